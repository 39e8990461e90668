import Kernels
import ModelFormat
import TensorBasics
import WeightLoader

/// Reads experts of the next layer while this one's compute: those that its rows will probably choose.
///
/// The next layer's router is run early, on the current hidden states (speculative loading, arXiv:2312.17238,
/// §3.2). How often it is right is measured for each rank as it goes; while that is rare, it is only tried
/// every few sweeps. An expert that several rows name is all the surer, and of many rows one will probably choose
/// any expert that is used now and then: from some number on, no router needs to be asked.
///
/// What is foreseen is only read ahead, so it changes no bit. What is read in vain is bounded
/// (`docs/decisions/0046`).
final class ExpertPrefetcher: ParallelRegion {
  private let experts: ExpertConfiguration
  private let choice: ExpertChoice
  private let width: Int
  private let epsilon: Float
  private let stream: WeightStream
  private let linear: LinearExecutor
  private let pool: ThreadPool
  private let clock: StepClock
  /// Routers whose weights are floats; the others are not worth int8 activations.
  private let isFloat: [Bool]
  private let memory: PartitionedBuffer
  /// Inputs of the router [``rowCapacity(_:tokenCapacity:)``, hiddenSize], and its scores.
  private let hidden: UnsafeMutablePointer<Float>
  private let scores: UnsafeMutablePointer<Float>
  /// Experts that each row named, by rank; −1 where the expert is in memory.
  private let named: UnsafeMutablePointer<Int32>
  /// The weights they would have, which nothing asks for.
  private let weights: UnsafeMutablePointer<Float>
  private var namedRowCount = 0
  /// Of each expert of the next layer: rows that named it, the chance that none of them chooses it, the chance
  /// that any row does (0 where it is in memory or was read ahead), and whether it was read ahead.
  private let namings: UnsafeMutablePointer<Int32>
  private let misses: UnsafeMutablePointer<Double>
  private let chances: UnsafeMutablePointer<Double>
  private let isRead: UnsafeMutablePointer<Bool>
  /// Share of the experts named at each rank, of those not in memory, that the router chose: a running mean.
  private let precisions: UnsafeMutablePointer<Double>
  /// The layer whose experts are read ahead; nil = none.
  private var family: Int?
  private var sweepCount = 0
  /// One row is served.
  private var isSingle = false
  /// Experts that may be read in vain.
  private var credit = 0.0
  /// Of that, what the reads ahead for the next layer have left.
  private var allowance = 0.0

  /// What the current region does.
  private enum Phase { case normalise, name }
  private var phase = Phase.normalise
  private var layer: DecoderWeights.Experts?
  private var norm: DecoderWeights.Norm
  private var residual: UnsafePointer<Float>

  /// Experts that were named and not in memory, and those of them that the router then chose.
  private(set) var namedTotal = 0
  private(set) var rightTotal = 0

  /// A wrong prediction costs a read and an eviction; a right one saves a wait of the same length.
  private static let leastChance = 0.5
  /// Reads in vain among those of a sweep with several rows: where the drive is what they wait for, each costs
  /// its time.
  private static let vainShare = 1.0 / 64
  private static let sweepsBetweenTrials = 8
  private static let weightOfNew = 1.0 / 64
  /// Choices an expert, on average, from which nearly every expert is chosen: all but e^−4 of them.
  private static let surelyUsed = 4

  /// - Throws: ``AllocationError``.
  init(
    _ configuration: DecoderConfiguration, _ experts: ExpertConfiguration, tokenCapacity: Int,
    stream: WeightStream, linear: LinearExecutor, pool: ThreadPool, clock: StepClock
  ) throws(AllocationError) {
    self.experts = experts
    choice = ExpertChoice(experts)
    width = configuration.hiddenSize
    epsilon = configuration.normEpsilon
    self.stream = stream
    self.linear = linear
    self.pool = pool
    self.clock = clock
    isFloat = stream.source.description.tensors.map { !$0.type.isQuantised }
    memory = try PartitionedBuffer(
      Self.sizes(configuration, experts, tokenCapacity: tokenCapacity))
    hidden = memory.pointer(0, as: Float.self)
    scores = memory.pointer(1, as: Float.self)
    named = memory.pointer(2, as: Int32.self)
    namings = memory.pointer(3, as: Int32.self)
    misses = memory.pointer(4, as: Double.self)
    chances = memory.pointer(5, as: Double.self)
    isRead = memory.pointer(6, as: Bool.self)
    precisions = memory.pointer(7, as: Double.self)
    weights = memory.pointer(8, as: Float.self)
    precisions.update(repeating: Self.leastChance, count: experts.expertsPerToken)
    norm = DecoderWeights.Norm(weight: UnsafePointer(hidden))
    residual = UnsafePointer(hidden)
  }

  /// Bytes that one takes.
  static func byteCount(
    _ configuration: DecoderConfiguration, _ experts: ExpertConfiguration, tokenCapacity: Int
  ) -> Int {
    PartitionedBuffer.byteCount(sizes(configuration, experts, tokenCapacity: tokenCapacity))
  }

  private static func sizes(
    _ configuration: DecoderConfiguration, _ experts: ExpertConfiguration, tokenCapacity: Int
  ) -> [Int] {
    let rows = rowCapacity(experts, tokenCapacity: tokenCapacity)
    return [
      4 * rows * configuration.hiddenSize, 4 * rows * ExpertChoice.rowLength(experts),
      4 * rows * experts.expertsPerToken, 4 * experts.expertCount, 8 * experts.expertCount,
      8 * experts.expertCount, experts.expertCount, 8 * experts.expertsPerToken,
      4 * rows * experts.expertsPerToken,
    ].map(PartitionedBuffer.roundedUp)
  }

  /// Most rows for which the router is run early.
  private static func rowCapacity(_ experts: ExpertConfiguration, tokenCapacity: Int) -> Int {
    min(tokenCapacity, surelyUsed * experts.expertCount / experts.expertsPerToken)
  }

  /// What may be saved up for later: a layer's share, and one.
  private static func creditLimit(_ experts: ExpertConfiguration) -> Double {
    1 + vainShare * Double(experts.expertCount)
  }

  /// What the next layer's router is, and what it will see but for this layer's experts.
  struct Next {
    var layer: DecoderWeights.Experts
    var norm: DecoderWeights.Norm
    /// [rowCount, hiddenSize]
    var residual: UnsafePointer<Float>
  }

  /// Weighs how probably the next layer's experts will be chosen, for ``readAhead()``.
  func foresee(_ next: Next, rowCount: Int) throws(RuntimeError) {
    family = next.layer.family
    isSingle = rowCount == 1
    if next.layer.family == 1 { sweepCount += 1 }
    isRead.update(repeating: false, count: experts.expertCount)
    namings.update(repeating: 0, count: experts.expertCount)
    misses.update(repeating: 1, count: experts.expertCount)
    try askRouter(next, rowCount: rowCount)
    count()
    weigh(next.layer.family, rowCount: rowCount)
    // One row waits for each of its few experts by itself, whatever else is read.
    allowance = isSingle ? .infinity : credit
  }

  /// Reads what was foreseen and is worth it, the surest first, as far as the cache and the drive's queue have
  /// room.
  ///
  /// For several rows it may be called again when there is more room. One row has asked for all its experts at
  /// once, so that room comes when they are computed; then the drive may do as well with what the
  /// next layer really needs, and what is read does not depend on how soon that is.
  func readAhead() throws(LoaderError) {
    defer { if isSingle { family = nil } }
    while let family, stream.canReadAhead, stream.hasRoomForBundle(of: family) {
      var best = 0
      for expert in 1..<experts.expertCount where chances[expert] > chances[best] { best = expert }
      let chance = chances[best]
      guard chance >= Self.leastChance, 1 - chance <= allowance else {
        self.family = nil
        return
      }
      allowance -= 1 - chance
      chances[best] = 0
      isRead[best] = true
      try stream.prefetch(bundle: best, of: family)
    }
  }

  /// Discards the predictions for a layer that will not be computed.
  func abandon() {
    namedRowCount = 0
    family = nil
    isRead.update(repeating: false, count: experts.expertCount)
    namings.update(repeating: 0, count: experts.expertCount)
  }

  /// Compares what a layer's router chose with what was foreseen, before any of it was asked for.
  ///
  /// - Parameters:
  ///   - chosen: the experts of each row by rank [rowCount, expertsPerToken].
  ///   - missingCount: experts that were chosen and are neither in memory nor on their way.
  ///   - isUsed: whether any row chose an expert.
  func learn(
    chosen: UnsafePointer<Int32>, rowCount: Int, missingCount: Int, isUsed: (_ expert: Int) -> Bool
  ) {
    let used = experts.expertsPerToken
    for place in 0..<namedRowCount * used where named[place] >= 0 {
      let (row, rank) = place.quotientAndRemainder(dividingBy: used)
      let isRight = (row * used..<(row + 1) * used).contains { chosen[$0] == named[place] }
      precisions[rank] += ((isRight ? 1 : 0) - precisions[rank]) * Self.weightOfNew
    }
    var missingCount = missingCount
    var vainCount = 0
    for expert in 0..<experts.expertCount where namings[expert] > 0 || isRead[expert] {
      let isRight = isUsed(expert)
      if namings[expert] > 0 {
        namedTotal += 1
        rightTotal += isRight ? 1 : 0
      }
      if isRead[expert] {
        missingCount += isRight ? 1 : 0
        vainCount += isRight ? 0 : 1
      }
    }
    if rowCount > 1 {
      let earned = Self.vainShare * Double(missingCount) - Double(vainCount)
      credit = min(Self.creditLimit(experts), credit + earned)
    }
    abandon()
  }

  // MARK: - Details

  /// Runs the next layer's router on the current hidden states, where that has been worth it or it is tried
  /// again.
  private func askRouter(_ next: Next, rowCount: Int) throws(RuntimeError) {
    namedRowCount = 0
    let ranks = 0..<experts.expertsPerToken
    guard rowCount * experts.expertsPerToken < Self.surelyUsed * experts.expertCount,
      sweepCount % Self.sweepsBetweenTrials == 0
        || ranks.contains(where: { precisions[$0] >= Self.leastChance }),
      isFloat[next.layer.router], stream.residentAddress(ofTensor: next.layer.router) != nil
    else { return }
    namedRowCount = rowCount
    (layer, norm, residual) = (next.layer, next.norm, next.residual)
    run(.normalise)
    try linear.multiply(
      Activations(
        values: UnsafePointer(hidden), stride: width, blocks: nil, tokenCount: rowCount),
      LinearTask(tensor: next.layer.router, output: scores, outputStride: choice.rowLength))
    run(.name)
  }

  private func run(_ phase: Phase) {
    self.phase = phase
    clock.measure(.elementwise) { pool.run(count: namedRowCount, self) }
  }

  func perform(index row: Int, worker: Int) {
    switch phase {
    case .normalise:
      norm.apply(
        residual + row * width, epsilon: epsilon, count: width, into: hidden + row * width)
    case .name: name(row)
    }
  }

  /// The experts that a row would choose.
  private func name(_ row: Int) {
    guard let layer else { return }
    let used = experts.expertsPerToken
    choice.choose(
      scores + row * choice.rowLength, layer, into: named + row * used,
      weights: weights + row * used)
  }

  /// Counts what the rows named of what is not in memory.
  private func count() {
    guard let family else { return }
    for place in 0..<namedRowCount * experts.expertsPerToken where named[place] >= 0 {
      let expert = Int(named[place])
      guard !stream.holds(bundle: expert, of: family) else {
        named[place] = -1
        continue
      }
      namings[expert] += 1
      misses[expert] *= 1 - precisions[place % experts.expertsPerToken]
    }
  }

  /// The chance of each expert that is not in memory: rows choose one that they named as often as such names were
  /// right, and one that they did not name as often as rows used it lately, as far as names leave room for it.
  private func weigh(_ family: Int, rowCount: Int) {
    let isNamed = namedRowCount > 0
    let assumed = Double(experts.expertsPerToken) / Double(experts.expertCount)
    var others = 1.0
    if isNamed {
      var sum = 0.0
      for rank in 0..<experts.expertsPerToken { sum += precisions[rank] }
      others -= sum / Double(experts.expertsPerToken)
    }
    for expert in 0..<experts.expertCount {
      chances[expert] = 0
      // One row chooses nothing surely that it did not name.
      guard rowCount > 1 || namings[expert] > 0, !stream.holds(bundle: expert, of: family) else {
        continue
      }
      let share = others * stream.shareOfRows(using: expert, of: family, assuming: assumed)
      chances[expert] =
        1 - misses[expert] * CanonicalMath.power(1 - share, rowCount - Int(namings[expert]))
    }
  }
}
