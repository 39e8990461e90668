import Kernels
import ModelFormat
import TensorBasics
import WeightLoader

/// A layer's experts: the router chooses a few for each token, and their outputs are summed.
///
/// Experts run in the order in which they are in memory, but a token's outputs are added in the order
/// of the router's ranks, so neither the cache nor the chunking of a prompt changes a bit.
final class ExpertStep {
  private let experts: ExpertConfiguration
  private let width: Int
  private let familyCount: Int
  private let activation: DecoderConfiguration.Activation
  private let stream: WeightStream
  private let linear: LinearExecutor
  private let pool: ThreadPool
  private let clock: StepClock
  private let finite: FiniteCheck
  private let memory: ExpertWorkspace
  private let products: UnsafeMutableBufferPointer<BundleProduct>
  /// The next layer's router, run early.
  let prefetcher: ExpertPrefetcher
  /// Where the choices of single tokens are recorded; nil = nowhere.
  var trace: ExpertTrace?

  /// - Throws: ``AllocationError``.
  init(
    _ configuration: DecoderConfiguration, _ experts: ExpertConfiguration, tokenCapacity: Int,
    stream: WeightStream, linear: LinearExecutor, pool: ThreadPool, clock: StepClock,
    finite: FiniteCheck
  ) throws(AllocationError) {
    self.experts = experts
    width = configuration.hiddenSize
    activation = configuration.activation
    familyCount = configuration.layerCount
    self.stream = stream
    self.linear = linear
    self.pool = pool
    self.clock = clock
    self.finite = finite
    memory = try ExpertWorkspace(configuration, experts, tokenCapacity: tokenCapacity)
    prefetcher = try ExpertPrefetcher(configuration, experts, stream: stream)
    products = .allocate(capacity: 2 * experts.expertsPerToken + 2)
  }

  deinit { products.deallocate() }

  /// Forgets the current token, which was not completed.
  func abandon() {
    trace?.dropPartialToken()
    prefetcher.abandon()
  }

  /// output = Σ weight · expert(x) over each token's chosen experts.
  ///
  /// - Parameters:
  ///   - layer: whose router scores.
  ///   - x: normed hidden states [tokenCount, hiddenSize], with their int8 blocks.
  ///   - next: the layer after it, for a single token; nil = none.
  ///   - output: [tokenCount, hiddenSize]; may not be `x`.
  func run(
    _ layer: DecoderWeights.Experts, _ x: Activations, next: ExpertPrefetcher.Next?,
    into output: UnsafeMutablePointer<Float>
  ) throws(RuntimeError) {
    try linear.multiply(
      x,
      LinearTask(
        tensor: layer.router, output: memory.scores, outputStride: experts.expertCount))
    clock.measure(.elementwise) {
      pool.run(count: x.tokenCount) { token, _ in route(token) }
    }
    do throws(LoaderError) {
      if x.tokenCount == 1 {
        trace?.append((0..<experts.expertsPerToken).lazy.map { Int(self.memory.chosen[$0]) })
        prefetcher.learn(
          chosen: UnsafeBufferPointer(start: memory.chosen, count: experts.expertsPerToken))
        try runToken(layer.family, x, next)
      } else {
        try runChunk(layer.family, x)
      }
      // The drive has nothing to do for experts until the next layer's router has chosen.
      try stream.readExpectedBundles()
    } catch { throw RuntimeError(error) }
    clock.measure(.elementwise) {
      pool.run(count: x.tokenCount) { token, _ in sum(token, into: output + token * width) }
    }
  }

  /// Chooses a token's experts: softmax over all scores, the most probable first, ties to the lower
  /// number.
  private func route(_ token: Int) {
    let (count, used) = (experts.expertCount, experts.expertsPerToken)
    let scores = memory.scores + token * count
    let chosen = memory.chosen + token * used
    let weights = memory.weights + token * used
    finite.check(scores, count: count, row: token)
    var highest = scores[0]
    for expert in 1..<count where scores[expert] > highest { highest = scores[expert] }
    for expert in 0..<count { scores[expert] -= highest }
    VectorOps.exp(scores, count: count)
    var total: Float = 0
    for expert in 0..<count { total += scores[expert] }
    var chosenTotal: Float = 0
    for rank in 0..<used {
      var best = -1
      for expert in 0..<count
      where scores[expert] >= 0 && (best < 0 || scores[expert] > scores[best]) {
        best = expert
      }
      // Nothing is left to choose from only if all scores are NaN.
      if best < 0 { best = rank }
      chosen[rank] = Int32(best)
      weights[rank] = scores[best] / total
      chosenTotal += weights[rank]
      scores[best] = -1
    }
    guard experts.normalisesWeights else { return }
    for rank in 0..<used { weights[rank] /= chosenTotal }
  }

  /// A token's outputs, weighted, by rank.
  private func sum(_ token: Int, into output: UnsafeMutablePointer<Float>) {
    let used = experts.expertsPerToken
    for rank in 0..<used {
      let part = memory.outputs + (token * used + rank) * width
      VectorOps.scale(part, by: memory.weights[token * used + rank], count: width)
      if rank == 0 {
        output.update(from: part, count: width)
      } else {
        VectorOps.add(output, part, count: width)
      }
    }
  }

  // MARK: - One token

  /// Asks for all experts of the token, then computes them as they arrive.
  private func runToken(
    _ family: Int, _ x: Activations, _ next: ExpertPrefetcher.Next?
  ) throws(LoaderError) {
    let used = experts.expertsPerToken
    // Those in memory first, so that none of them is evicted for another.
    for rank in 0..<used {
      memory.isDone[rank] = false
      memory.isResident[rank] = stream.holds(bundle: Int(memory.chosen[rank]), of: family)
      guard memory.isResident[rank] else { continue }
      try stream.request(bundle: Int(memory.chosen[rank]), of: family)
    }
    for rank in 0..<used where !memory.isResident[rank] {
      try stream.makeRoomForBundle(of: family)
      try stream.request(bundle: Int(memory.chosen[rank]), of: family)
    }
    stream.endPrefetching(of: family)
    if let next { try prefetcher.prefetchNextLayer(next) }
    var left = used
    while left > 0 {
      var ready = 0
      for rank in 0..<used where !memory.isDone[rank] {
        guard try stream.isReady(bundle: Int(memory.chosen[rank]), of: family) else { continue }
        memory.ranks[ready] = rank
        ready += 1
      }
      if ready == 0 {
        for rank in 0..<used where !memory.isDone[rank] {
          try stream.wait(forBundle: Int(memory.chosen[rank]), of: family)
          break
        }
        continue
      }
      try compute(family, x, rankCount: ready)
      for index in 0..<ready {
        memory.isDone[memory.ranks[index]] = true
        stream.release(bundle: Int(memory.chosen[memory.ranks[index]]), of: family)
      }
      left -= ready
    }
  }

  /// The first `rankCount` of `memory.ranks`: their experts of a single token, together.
  private func compute(_ family: Int, _ x: Activations, rankCount: Int) throws(LoaderError) {
    let length = experts.feedForwardLength
    for index in 0..<rankCount {
      let bundle = Int(memory.chosen[memory.ranks[index]])
      products[2 * index] = BundleProduct(
        family: family, bundle: bundle, part: 0, activations: x,
        output: memory.gate + index * length, outputStride: length)
      products[2 * index + 1] = BundleProduct(
        family: family, bundle: bundle, part: 1, activations: x,
        output: memory.up + index * length, outputStride: length)
    }
    try multiply(2 * rankCount)
    activate(rowCount: rankCount)
    for index in 0..<rankCount {
      let rank = memory.ranks[index]
      products[index] = BundleProduct(
        family: family, bundle: Int(memory.chosen[rank]), part: 2,
        activations: quantised(
          memory.gate + index * length, columnCount: length, tokenCount: 1,
          into: memory.blocks + index * memory.blockRowByteCount),
        output: memory.outputs + rank * width, outputStride: width)
    }
    try multiply(rankCount)
  }

  private func multiply(_ count: Int) throws(LoaderError) {
    try linear.multiply(UnsafeBufferPointer(start: products.baseAddress, count: count))
  }

  // MARK: - A chunk of a prompt

  /// Every expert that any token chose, once, with all its tokens.
  ///
  /// Reading runs ahead as far as queue and cache have room, into the next layer's experts where the
  /// chunk is long enough to need nearly all of them.
  private func runChunk(_ family: Int, _ x: Activations) throws(LoaderError) {
    let needed = memory.sortByExpert(tokenCount: x.tokenCount) {
      stream.holds(bundle: $0, of: family)
    }
    let needsAll = x.tokenCount * experts.expertsPerToken >= Self.surelyUsed * experts.expertCount
    let next = needsAll && family + 1 < familyCount ? experts.expertCount : 0
    var (requested, prefetched) = (0, 0)
    for index in 0..<needed {
      if requested == index { try stream.makeRoomForBundle(of: family) }
      while requested < needed, stream.hasRoomForBundle(of: family),
        requested == index || stream.canReadAhead
      {
        try stream.request(bundle: Int(memory.needed[requested]), of: family)
        requested += 1
        if requested == needed { stream.endPrefetching(of: family) }
      }
      while requested == needed, prefetched < next, stream.hasRoomForBundle(of: family + 1),
        stream.canReadAhead
      {
        try stream.prefetch(bundle: prefetched, of: family + 1)
        prefetched += 1
      }
      let bundle = Int(memory.needed[index])
      try stream.wait(forBundle: bundle, of: family)
      try compute(family, bundle: bundle, x)
      stream.release(bundle: bundle, of: family)
    }
  }

  /// Choices an expert, on average, from which nearly every expert is chosen: all but e^−4 of them.
  private static let surelyUsed = 4

  private func compute(_ family: Int, bundle: Int, _ x: Activations) throws(LoaderError) {
    let length = experts.feedForwardLength
    let places = memory.places(of: bundle)
    clock.measure(.elementwise) {
      pool.run(count: places.count) { row, _ in
        (memory.gathered + row * width).update(
          from: x.values + Int(places[row]) / experts.expertsPerToken * x.stride, count: width)
      }
    }
    let input = quantised(
      memory.gathered, columnCount: width, tokenCount: places.count, into: memory.blocks)
    for (part, output) in [memory.gate, memory.up].enumerated() {
      products[part] = BundleProduct(
        family: family, bundle: bundle, part: part, activations: input, output: output,
        outputStride: length)
    }
    try multiply(2)
    activate(rowCount: places.count)
    products[0] = BundleProduct(
      family: family, bundle: bundle, part: 2,
      activations: quantised(
        memory.gate, columnCount: length, tokenCount: places.count, into: memory.blocks),
      output: memory.gathered, outputStride: width)
    try multiply(1)
    clock.measure(.elementwise) {
      pool.run(count: places.count) { row, _ in
        (memory.outputs + Int(places[row]) * width).update(
          from: memory.gathered + row * width, count: width)
      }
    }
  }

  // MARK: - Small steps

  /// gate = activation(gate) * up, for the first rows; a token's few rows are not worth a region.
  private func activate(rowCount: Int) {
    let length = experts.feedForwardLength
    func activateRow(_ row: Int) {
      activation.gate(memory.gate + row * length, by: memory.up + row * length, count: length)
    }
    clock.measure(.elementwise) {
      if rowCount <= experts.expertsPerToken {
        for row in 0..<rowCount { activateRow(row) }
      } else {
        pool.run(count: rowCount) { row, _ in activateRow(row) }
      }
    }
  }

  /// Int8 blocks of x, made in `blocks`; x alone where its columns are not whole blocks.
  private func quantised(
    _ x: UnsafePointer<Float>, columnCount: Int, tokenCount: Int,
    into memory: UnsafeMutableRawPointer
  ) -> Activations {
    var result = Activations(values: x, stride: columnCount, blocks: nil, tokenCount: tokenCount)
    guard columnCount % 32 == 0 else { return result }
    let blocks = ActivationBlocks(memory: memory, columnCount: columnCount)
    clock.measure(.products) {
      blocks.quantise(x, stride: columnCount, tokenCount: tokenCount, on: pool)
    }
    result.blocks = blocks
    return result
  }
}
