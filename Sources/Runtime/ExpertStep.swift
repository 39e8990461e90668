import Kernels
import ModelFormat
import TensorBasics
import WeightLoader

/// A layer's experts: the router chooses a few for each row, and their outputs are summed.
///
/// Every expert that any row of the sweep chose is asked for once, those in memory first, and computed with all
/// its rows when it is there. Experts run in the order in which they arrive, but a row's outputs are
/// added in the order of the router's ranks, so neither the cache nor the other rows change a bit.
final class ExpertStep: ParallelRegion {
  private let experts: ExpertConfiguration
  private let choice: ExpertChoice
  private let width: Int
  private let stream: WeightStream
  private let linear: LinearExecutor
  private let pool: ThreadPool
  private let clock: StepClock
  private let finite: FiniteCheck
  private let memory: ExpertWorkspace
  private let products: ExpertProducts
  /// Reads the next layer's experts early.
  let prefetcher: ExpertPrefetcher
  /// Where the choices of single tokens are recorded; nil = nowhere.
  var trace: ExpertTrace?

  // Of the current layer: experts that are needed, those of them asked for, and those of these to be computed.
  private var neededCount = 0
  private var askedCount = 0
  private var waitingCount = 0

  // What the current region does.
  private enum Phase { case route, sum }
  private var phase = Phase.route
  private var output: UnsafeMutablePointer<Float>
  private var layer: DecoderWeights.Experts?

  /// - Throws: ``AllocationError``.
  init(
    _ configuration: DecoderConfiguration, _ experts: ExpertConfiguration, tokenCapacity: Int,
    stream: WeightStream, linear: LinearExecutor, pool: ThreadPool, clock: StepClock,
    finite: FiniteCheck
  ) throws(AllocationError) {
    self.experts = experts
    choice = ExpertChoice(experts)
    width = configuration.hiddenSize
    self.stream = stream
    self.linear = linear
    self.pool = pool
    self.clock = clock
    self.finite = finite
    memory = try ExpertWorkspace(configuration, experts, tokenCapacity: tokenCapacity)
    products = ExpertProducts(
      configuration, experts, memory: memory, linear: linear, pool: pool, clock: clock)
    prefetcher = try ExpertPrefetcher(
      configuration, experts, tokenCapacity: tokenCapacity, stream: stream, linear: linear,
      pool: pool, clock: clock)
    output = memory.rows
  }

  /// Forgets the current token, which was not completed.
  func abandon() {
    trace?.dropPartialToken()
    prefetcher.abandon()
  }

  /// output = Σ weight · expert(x) over each row's chosen experts.
  ///
  /// - Parameters:
  ///   - layer: whose router scores.
  ///   - x: normed hidden states [tokenCount, hiddenSize], with their int8 blocks.
  ///   - next: the layer after it; nil = none.
  ///   - output: [tokenCount, hiddenSize]; may not be `x`.
  func run(
    _ layer: DecoderWeights.Experts, _ x: Activations, next: ExpertPrefetcher.Next?,
    into output: UnsafeMutablePointer<Float>
  ) throws(RuntimeError) {
    try linear.multiply(
      x,
      LinearTask(
        tensor: layer.router, output: memory.scores, outputStride: choice.rowLength))
    self.layer = layer
    run(.route, x.tokenCount)
    try begin(layer.family, x.tokenCount)
    var next = next
    repeat {
      try ask(layer.family, rowCount: x.tokenCount)
      if askedCount == neededCount, let foreseen = next {
        next = nil
        try prefetcher.foresee(foreseen, rowCount: x.tokenCount)
      }
      do throws(LoaderError) {
        try prefetcher.readAhead()
        try computeArrived(layer, x)
      } catch { throw RuntimeError(error) }
    } while askedCount < neededCount || waitingCount > 0
    // The drive has nothing to do for experts until the next layer's router has chosen.
    do { try stream.readExpectedBundles() } catch { throw RuntimeError(error) }
    self.output = output
    run(.sum, x.tokenCount)
  }

  // MARK: - From the drive

  /// Names the experts that the rows chose, and holds those of them that are in memory, so that none
  /// leaves for another.
  private func begin(_ family: Int, _ rowCount: Int) throws(RuntimeError) {
    if rowCount == 1 {
      trace?.append((0..<experts.expertsPerToken).lazy.map { Int(self.memory.chosen[$0]) })
    }
    let count = memory.sortByExpert(tokenCount: rowCount) {
      stream.holds(bundle: $0, of: family)
    }
    prefetcher.learn(
      chosen: memory.chosen, rowCount: rowCount, missingCount: count.needed - count.resident
    ) { !memory.rows(of: $0).isEmpty }
    (neededCount, askedCount, waitingCount) = (count.needed, 0, 0)
    do throws(LoaderError) {
      while askedCount < count.resident { try request(family) }
    } catch { throw RuntimeError(error) }
    // What was foreseen wrongly need not stay.
    stream.endPrefetching(of: family)
  }

  /// Asks for the experts that are not in memory, as far as the cache and the drive's queue have room.
  ///
  /// Those of one row always fit. Where what was read in vain is still on its way to their places it is waited for, so
  /// that nothing that was needed leaves for them.
  private func ask(_ family: Int, rowCount: Int) throws(RuntimeError) {
    do throws(LoaderError) {
      while askedCount < neededCount {
        if waitingCount == 0 || rowCount == 1 { try stream.makeRoomForBundle(of: family) }
        guard stream.hasRoomForBundle(of: family), waitingCount == 0 || stream.canRead else {
          return
        }
        try request(family)
      }
    } catch { throw RuntimeError(error) }
  }

  private func request(_ family: Int) throws(LoaderError) {
    let expert = memory.needed[askedCount]
    try stream.request(
      bundle: Int(expert), of: family, users: memory.rows(of: Int(expert)).count)
    memory.waiting[waitingCount] = expert
    askedCount += 1
    waitingCount += 1
  }

  /// Computes the experts that have arrived, as many together as are worth it; waits for one where none has.
  private func computeArrived(
    _ layer: DecoderWeights.Experts, _ x: Activations
  ) throws(LoaderError) {
    let family = layer.family
    var (count, rowCount, left) = (0, 0, 0)
    for index in 0..<waitingCount {
      let expert = memory.waiting[index]
      let rows = memory.rows(of: Int(expert)).count
      if count == 0 || rowCount + rows <= ExpertWorkspace.sufficientRowCount,
        try stream.isReady(bundle: Int(expert), of: family)
      {
        memory.group[count] = expert
        count += 1
        rowCount += rows
      } else {
        memory.waiting[left] = expert
        left += 1
      }
    }
    guard count > 0 else {
      if waitingCount > 0 { try stream.wait(forBundle: Int(memory.waiting[0]), of: family) }
      return
    }
    waitingCount = left
    try products.compute(layer, count: count, x)
    for index in 0..<count {
      stream.release(bundle: Int(memory.group[index]), of: family)
    }
  }

  // MARK: - Rows

  /// Does something to every row.
  private func run(_ phase: Phase, _ rowCount: Int) {
    self.phase = phase
    clock.measure(.elementwise) { pool.run(count: rowCount, self) }
  }

  func perform(index: Int, worker: Int) {
    switch phase {
    case .route: route(index)
    case .sum: sum(index, into: output + index * width)
    }
  }

  /// Chooses a token's experts.
  private func route(_ token: Int) {
    guard let layer else { return }
    let used = experts.expertsPerToken
    let scores = memory.scores + token * choice.rowLength
    finite.check(scores, count: experts.expertCount, row: token)
    choice.choose(
      scores, layer, into: memory.chosen + token * used, weights: memory.weights + token * used)
  }

  /// A token's outputs, weighted, by rank.
  private func sum(_ token: Int, into output: UnsafeMutablePointer<Float>) {
    let used = experts.expertsPerToken
    for rank in 0..<used {
      let part = memory.output(token: token, rank: rank, width: width)
      if let bias = layer?.biases?.down {
        VectorOps.add(part, bias + Int(memory.chosen[token * used + rank]) * width, count: width)
      }
      VectorOps.scale(part, by: memory.weights[token * used + rank], count: width)
      if rank == 0 {
        output.update(from: part, count: width)
      } else {
        VectorOps.add(output, part, count: width)
      }
    }
  }
}
