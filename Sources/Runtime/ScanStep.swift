import KVCache
import Kernels
import ModelFormat
import TensorBasics

/// Linear attention of one layer, of each sequence's tokens over its own state (`ScanSpec`).
///
/// Inputs of all rows lie together and are prepared row by row; the convolution goes over a sequence's rows by channels, the
/// scan by value heads. Tokens are taken in order and one at a time, so how they are cut into batches changes no bit.
///
/// States are the cache's. What is computed of a layer whose chunk is broken off leaves them in between: the cache knows.
///
/// Spans that end in drafts go through copies of their states, head by head, and leave these as they are; what they came
/// from is kept (``ScanOperands``). ``advance(_:rowCount:)`` then takes in the rows that turned out right, by the same kernels in
/// the same order as if they had come alone.
final class ScanStep: ParallelRegion {
  private let pool: ThreadPool
  private let clock: StepClock
  private let finite: FiniteCheck
  private let epsilon: Float

  /// Inputs as one matrix gives them, then of Mamba-2 what is added to outputs [rows, inputRowCount].
  private let fused: UnsafeMutablePointer<Float>
  /// Queries, keys and values, the values then being outputs [rows, channelCount].
  private let channels: UnsafeMutablePointer<Float>
  /// z [rows, valuesLength]; then the layer's output before its projection.
  let outputs: UnsafeMutablePointer<Float>
  /// What β and α come from, by key heads, or apart [rows, numberCount].
  private let betaAlpha: UnsafeMutablePointer<Float>
  /// Decays, then β [rows, gateCount].
  private let gates: UnsafeMutablePointer<Float>
  /// Weights with which RMSNorm over a head gives a key of length 1, and a query divided by √keyLength [keyLength].
  private let keyScale: UnsafeMutablePointer<Float>
  private let queryScale: UnsafeMutablePointer<Float>
  /// A token's query and key as products of their elements, and its value and a 1, of each worker.
  private let expanded: UnsafeMutablePointer<Float>
  private let expandedStride: Int
  private let memory: PartitionedBuffer
  /// Those of the model, in their order.
  private let layers: [DecoderWeights.Scan]
  /// nil where no rows are drafts.
  private let operands: ScanOperands?

  /// What the current region does.
  private enum Work {
    case prepare
    case decay
    case convolve
    case normalise
    case scan
    case finish
    /// As the three, with rows that were kept.
    case convolveKept
    case normaliseKept
    case scanKept
  }
  private var work = Work.prepare
  private var layer: DecoderWeights.Scan?
  private var batch: Unmanaged<Batch>?
  /// Whose rows are taken in, which was the first among those that were kept, and how many.
  private var kept: (cache: Unmanaged<KeyValueStore>, first: Int, count: Int)?

  /// Rows of one sequence that follow each other.
  private struct Rows {
    /// [count, channelCount]
    var channels: UnsafeMutablePointer<Float>
    /// [count, gateCount]
    var gates: UnsafeMutablePointer<Float>
    var count: Int

    /// Takes the first `savedCount` rows, calls `save`, and takes the others; all at once where that is nil.
    func forEachPart(
      until savedCount: Int?, _ spec: ScanSpec, _ body: (Rows) -> Void, save: () -> Void
    ) {
      guard let savedCount else { return body(self) }
      if savedCount > 0 { body(Rows(channels: channels, gates: gates, count: savedCount)) }
      save()
      body(
        Rows(
          channels: channels + savedCount * spec.channelCount,
          gates: gates + savedCount * spec.gateCount, count: count - savedCount))
    }
  }

  /// Added to the squared length of queries and keys before the root, and to the mean square of lightning attention.
  private static let lengthEpsilon: Float = 1e-6
  /// Channels that a worker convolves at once.
  private static let channelsAtOnce = 256

  /// - Parameter verifiedRowCapacity: most rows of spans that end in drafts.
  /// - Throws: ``AllocationError``.
  init(
    _ configuration: DecoderConfiguration, _ layers: [DecoderWeights.Scan], tokenCapacity: Int,
    verifiedRowCapacity: Int, pool: ThreadPool, clock: StepClock, finite: FiniteCheck
  ) throws(AllocationError) {
    (self.pool, self.clock, self.finite, self.layers) = (pool, clock, finite, layers)
    operands =
      verifiedRowCapacity == 0
      ? nil
      : try ScanOperands(
        layers.map(\.spec), rowCapacity: verifiedRowCapacity, channelsAtOnce: Self.channelsAtOnce,
        threadCount: pool.threadCount)
    epsilon = configuration.normEpsilon
    let memory = try PartitionedBuffer(
      Self.sizes(configuration, tokenCapacity: tokenCapacity, threadCount: pool.threadCount))
    fused = memory.pointer(0, as: Float.self)
    channels = memory.pointer(1, as: Float.self)
    outputs = memory.pointer(2, as: Float.self)
    betaAlpha = memory.pointer(3, as: Float.self)
    gates = memory.pointer(4, as: Float.self)
    keyScale = memory.pointer(5, as: Float.self)
    queryScale = memory.pointer(6, as: Float.self)
    expanded = memory.pointer(7, as: Float.self)
    expandedStride = layers.map(\.spec.expandedCount).max() ?? 0
    self.memory = memory
  }

  /// Memory of a step.
  static func byteCount(
    _ configuration: DecoderConfiguration, tokenCapacity: Int, verifiedRowCapacity: Int,
    threadCount: Int
  ) -> Int {
    PartitionedBuffer.byteCount(
      sizes(configuration, tokenCapacity: tokenCapacity, threadCount: threadCount))
      + (verifiedRowCapacity == 0
        ? 0
        : ScanOperands.byteCount(
          configuration.scans, rowCapacity: verifiedRowCapacity, channelsAtOnce: channelsAtOnce,
          threadCount: threadCount))
  }

  private static func sizes(
    _ configuration: DecoderConfiguration, tokenCapacity: Int, threadCount: Int
  ) -> [Int] {
    let scans = configuration.scans
    func floats(_ count: Int, _ length: (ScanSpec) -> Int) -> Int {
      PartitionedBuffer.roundedUp(4 * count * (scans.map(length).max() ?? 0))
    }
    return [
      floats(tokenCapacity) { $0.isFused ? $0.inputRowCount : 0 },
      floats(tokenCapacity, \.channelCount), floats(tokenCapacity, \.valuesLength),
      floats(tokenCapacity, \.numberCount), floats(tokenCapacity, \.gateCount),
      floats(1, \.keyLength), floats(1, \.keyLength), floats(threadCount, \.expandedCount),
    ]
  }

  /// The layer's inputs, as products give them.
  func multiply(
    _ layer: DecoderWeights.Scan, _ x: Activations, by linear: LinearExecutor
  ) throws(RuntimeError) {
    let spec = layer.spec
    if let key = layer.key, let value = layer.value {
      func channels(_ tensor: Int, from first: Int) -> LinearTask {
        LinearTask(
          tensor: tensor, output: self.channels + first, outputStride: spec.channelCount)
      }
      try linear.multiply(
        x, channels(layer.input, from: spec.queriesStart), channels(key, from: spec.keysStart),
        channels(value, from: spec.valuesStart))
      guard let gate = layer.gate, let alpha = layer.alpha else { return }
      return try linear.multiply(
        x, LinearTask(tensor: gate, output: outputs, outputStride: spec.valuesLength),
        LinearTask(tensor: alpha, output: betaAlpha, outputStride: spec.numberCount))
    }
    let whole = LinearTask(
      tensor: layer.input, output: fused, outputStride: spec.inputRowCount)
    guard let beta = layer.beta else {
      guard let gate = layer.gate else { return try linear.multiply(x, whole) }
      let z = LinearTask(tensor: gate, output: outputs, outputStride: spec.valuesLength)
      return try linear.multiply(x, whole, z)
    }
    let last = LinearTask(
      tensor: beta, output: betaAlpha, outputStride: spec.numberCount)
    guard let gate = layer.gate else { return try linear.multiply(x, whole, last) }
    try linear.multiply(
      x, LinearTask(tensor: layer.input, output: channels, outputStride: spec.channelCount),
      LinearTask(tensor: gate, output: outputs, outputStride: spec.valuesLength), last)
    guard let alpha = layer.alpha else { return }
    try linear.multiply(
      x,
      LinearTask(
        tensor: alpha, output: betaAlpha + spec.valueHeadCount,
        outputStride: spec.numberCount))
  }

  /// Puts every row's inputs in order, and notes those that are not finite.
  func prepare(_ layer: DecoderWeights.Scan, rowCount: Int) {
    begin(layer)
    forEach(rowCount, .prepare)
    if layer.spec.decaysKeys { forEach(rowCount * layer.spec.keyHeadCount, .decay) }
  }

  private func begin(_ layer: DecoderWeights.Scan) {
    self.layer = layer
    let length = Float(layer.spec.keyLength)
    for index in 0..<layer.spec.keyLength {
      keyScale[index] = 1 / length.squareRoot()
      queryScale[index] = 1 / length
    }
  }

  /// Leaves in ``outputs`` what the layer's output projection takes, of spans that are alive.
  func run(_ layer: DecoderWeights.Scan, _ batch: Batch) {
    self.layer = layer
    self.batch = .passUnretained(batch)
    let spec = layer.spec
    forEach(batch.spans.count * Self.partCount(spec.channelCount), .convolve)
    if spec.scans {
      if spec.inputs != .lightning && spec.inputs != .taylor { forEach(batch.rowCount, .normalise) }
      forEach(batch.spans.count * spec.valueHeadCount, .scan)
    }
    forEach(batch.rowCount, .finish)
    self.batch = nil
  }

  /// Has the states of a span that ends in drafts take in its first rows, of a sweep that has passed all layers.
  func advance(_ span: Batch.Span, rowCount: Int) {
    kept = (.passUnretained(span.cache), span.firstVerified, rowCount)
    for layer in layers {
      begin(layer)
      forEach(Self.partCount(layer.spec.channelCount), .convolveKept)
      guard layer.spec.scans else { continue }
      if layer.spec.deletes { forEach(rowCount, .normaliseKept) }
      forEach(layer.spec.valueHeadCount, .scanKept)
    }
    kept = nil
    span.cache.finishStates(at: span.position + rowCount)
  }

  private static func partCount(_ channelCount: Int) -> Int {
    (channelCount + channelsAtOnce - 1) / channelsAtOnce
  }

  private func forEach(_ count: Int, _ work: Work) {
    self.work = work
    clock.measure(.attention) { pool.run(count: count, self) }
  }

  func perform(index: Int, worker: Int) {
    guard let layer else { return }
    switch work {
    case .prepare: prepareRow(index, layer)
    case .decay: decay(index, layer)
    case .convolve:
      let (span, part) = index.quotientAndRemainder(
        dividingBy: Self.partCount(layer.spec.channelCount))
      batch?._withUnsafeGuaranteedRef { convolve($0, span, part: part, layer, worker) }
    case .normalise: normalise(index, layer)
    case .scan:
      let (span, head) = index.quotientAndRemainder(dividingBy: layer.spec.valueHeadCount)
      batch?._withUnsafeGuaranteedRef { scan($0, span, head: head, layer, worker) }
    case .finish: finish(index, layer)
    case .convolveKept, .normaliseKept, .scanKept: takeIn(index, layer, worker)
    }
  }

  /// A part of taking in rows that were kept.
  private func takeIn(_ index: Int, _ layer: DecoderWeights.Scan, _ worker: Int) {
    guard let kept, let operands else { return }
    let spec = layer.spec
    let rows = Rows(
      channels: operands.channels(layer.number, row: kept.first, spec),
      gates: operands.gates(layer.number, row: kept.first, spec), count: kept.count)
    kept.cache._withUnsafeGuaranteedRef { cache in
      let state = state(of: cache, layer)
      switch work {
      case .convolveKept:
        convolve(
          rows, part: index, layer, history: state + index * Self.channelsAtOnce,
          historyStride: spec.channelCount)
      case .scanKept:
        scan(
          rows, head: index, layer, state: state + spec.stateStart(ofHead: index), worker)
      default: makeUnitLong(rows.channels + index * spec.channelCount, spec)
      }
    }
  }

  private func prepareRow(_ row: Int, _ layer: DecoderWeights.Scan) {
    let spec = layer.spec
    switch spec.inputs {
    case .byKind, .apart, .gatedLinear: break
    case .taylor:
      return finite.check(channels + row * spec.channelCount, count: spec.channelCount, row: row)
    case .byKeyHead: sortKeyHeads(row, spec)
    case .mamba2: sortMamba(row, spec)
    case .gatedConvolution: gateChannels(row, spec)
    case .activatedConvolution: splitChannels(row, layer)
    case .lightning: sortKeyHeads(row, spec)
    }
    let heads = spec.valueHeadCount
    let numbers = betaAlpha + row * spec.numberCount
    finite.check(channels + row * spec.channelCount, count: spec.channelCount, row: row)
    finite.check(outputs + row * spec.valuesLength, count: spec.valuesLength, row: row)
    guard let decay = layer.decay else {
      if spec.decaysKeys { finite.check(numbers, count: spec.numberCount, row: row) }
      return
    }
    let gates = gates + row * spec.gateCount
    guard let timeBias = layer.timeBias else {
      for head in 0..<heads {
        (gates[head], gates[heads + head]) = (Float(CanonicalMath.exp(Double(decay[head]))), 1)
      }
      return
    }
    finite.check(numbers, count: spec.numberCount, row: row)
    for head in 0..<heads {
      let (group, member) = head.quotientAndRemainder(dividingBy: spec.groupSize)
      let (beta, alpha) =
        switch spec.inputs {
        case .byKeyHead, .byKind:
          (2 * group * spec.groupSize + member, (2 * group + 1) * spec.groupSize + member)
        default: (head, heads + head)
        }
      let step = softplus(Double(numbers[alpha]) + Double(timeBias[head]))
      gates[head] = Float(CanonicalMath.exp(Double(decay[head]) * step))
      gates[heads + head] = Float(
        spec.inputs == .mamba2 ? step : 1 / (1 + CanonicalMath.exp(-Double(numbers[beta]))))
    }
  }

  /// What is kept of a row's state for each key of a head: the sigmoid of its number, to the power 1/16.
  private func decay(_ index: Int, _ layer: DecoderWeights.Scan) {
    guard let factors = layer.decayFactor, let bias = layer.timeBias else { return }
    let (spec, rank) = (layer.spec, ScanSpec.decayRank)
    let (row, head) = index.quotientAndRemainder(dividingBy: spec.keyHeadCount)
    let (numbers, decays) = (betaAlpha + row * spec.numberCount, gates + row * spec.gateCount)
    for key in head * spec.keyLength..<(head + 1) * spec.keyLength {
      let factors = factors + key * rank
      var number = Double(bias[key])
      for index in 0..<rank { number += Double(factors[index]) * Double(numbers[index]) }
      decays[key] = Float(CanonicalMath.exp(-softplus(-number) / 16))
    }
  }

  /// Queries, keys, values and, but of lightning attention, z, which lie key head by key head, each to their kind.
  private func sortKeyHeads(_ row: Int, _ spec: ScanSpec) {
    let channels = channels + row * spec.channelCount
    let z = outputs + row * spec.valuesLength
    let (keyLength, length) = (spec.keyLength, spec.groupSize * spec.valueLength)
    var source = UnsafePointer(fused + row * spec.inputRowCount)
    for head in 0..<spec.keyHeadCount {
      for (target, count) in [
        (channels + head * keyLength, keyLength),
        (channels + spec.keysLength + head * keyLength, keyLength),
        (channels + 2 * spec.keysLength + head * length, length),
      ] {
        target.update(from: source, count: count)
        source += count
      }
      guard spec.inputs == .byKeyHead else { continue }
      (z + head * length).update(from: source, count: length)
      source += length
    }
  }

  /// z, channels and steps, which lie one after the other, each to their place; there are no β.
  private func sortMamba(_ row: Int, _ spec: ScanSpec) {
    let (heads, source) = (spec.valueHeadCount, UnsafePointer(fused + row * spec.inputRowCount))
    (outputs + row * spec.valuesLength).update(from: source, count: spec.valuesLength)
    (channels + row * spec.channelCount).update(
      from: source + spec.valuesLength, count: spec.channelCount)
    let numbers = betaAlpha + row * spec.numberCount
    numbers.update(repeating: 0, count: heads)
    (numbers + heads).update(
      from: source + spec.valuesLength + spec.channelCount, count: heads)
    guard let scales = spec.inputScales else { return }
    let channels = channels + row * spec.channelCount
    for (values, count, scale) in [
      (outputs + row * spec.valuesLength, spec.valuesLength, scales[0]),
      (channels + spec.valuesStart, spec.valuesLength, scales[1]),
      (channels + spec.keysStart, spec.keysLength, scales[2]),
      (channels + spec.queriesStart, spec.keysLength, scales[3]),
      (numbers + heads, heads, scales[4]),
    ] { VectorOps.scale(values, by: scale, count: count) }
  }

  /// B ⊙ x becomes the channels, C what their convolution is multiplied by.
  private func gateChannels(_ row: Int, _ spec: ScanSpec) {
    let (count, source) = (spec.channelCount, UnsafePointer(fused + row * spec.inputRowCount))
    let channels = channels + row * count
    for index in 0..<count { channels[index] = source[index] * source[2 * count + index] }
    (outputs + row * count).update(from: source + count, count: count)
  }

  /// The first half becomes the channels, the other what their convolution is multiplied by.
  private func splitChannels(_ row: Int, _ layer: DecoderWeights.Scan) {
    let (count, source) = (layer.spec.channelCount, fused + row * layer.spec.inputRowCount)
    if let bias = layer.inputBias { VectorOps.add(source, bias, count: 2 * count) }
    (channels + row * count).update(from: source, count: count)
    (outputs + row * count).update(from: source + count, count: count)
  }

  /// ln(1 + eˣ)
  private func softplus(_ x: Double) -> Double {
    x > 40 ? x : CanonicalMath.log(1 + CanonicalMath.exp(x))
  }

  private func rows(of span: Batch.Span, _ spec: ScanSpec) -> Rows {
    Rows(
      channels: channels + span.rows.lowerBound * spec.channelCount,
      gates: gates + span.rows.lowerBound * spec.gateCount, count: span.rows.count)
  }

  private func convolve(
    _ batch: Batch, _ number: Int, part: Int, _ layer: DecoderWeights.Scan, _ worker: Int
  ) {
    let (span, spec) = (batch.spans[number], layer.spec)
    guard span.isAlive else { return }
    let rows = rows(of: span, spec)
    let first = part * Self.channelsAtOnce
    let history = state(of: span.cache, layer) + first
    let count = min(Self.channelsAtOnce, spec.channelCount - first)
    guard span.draftCount > 0, let operands else {
      rows.forEachPart(until: span.cache.savedRowCount, spec) { rows in
        convolve(rows, part: part, layer, history: history, historyStride: spec.channelCount)
      } save: {
        guard let saved = saved(of: span.cache, layer) else { return }
        for tap in 0..<spec.tapCount - 1 {
          let start = tap * spec.channelCount
          (saved + first + start).update(from: history + start, count: count)
        }
      }
      return
    }
    precondition(
      span.firstVerified + rows.count <= operands.rowCapacity, "more drafts than were planned for")
    for row in 0..<rows.count {
      (operands.channels(layer.number, row: span.firstVerified + row, spec) + first).update(
        from: rows.channels + row * spec.channelCount + first, count: count)
    }
    let copy = operands.history(ofWorker: worker)
    for tap in 0..<spec.tapCount - 1 {
      (copy + tap * Self.channelsAtOnce).update(
        from: history + tap * spec.channelCount, count: count)
    }
    convolve(rows, part: part, layer, history: copy, historyStride: Self.channelsAtOnce)
  }

  /// - Parameter history: of the part's first channel.
  private func convolve(
    _ rows: Rows, part: Int, _ layer: DecoderWeights.Scan, history: UnsafeMutablePointer<Float>,
    historyStride: Int
  ) {
    guard let taps = layer.taps else { return }
    let (spec, first) = (layer.spec, part * Self.channelsAtOnce)
    let convolution = ShortConvolution(
      tapCount: spec.tapCount, stride: spec.channelCount, historyStride: historyStride,
      activates: spec.inputs != .gatedConvolution)
    convolution.run(
      rows.channels + first, weights: taps + first * spec.tapCount,
      bias: layer.tapBias.map { $0 + first }, history: history,
      channelCount: min(Self.channelsAtOnce, spec.channelCount - first), tokenCount: rows.count)
  }

  /// Queries and keys become as long as they are to be, or queries are divided by √keyLength; of Mamba-2's values, what is to be added to outputs is kept.
  private func normalise(_ row: Int, _ layer: DecoderWeights.Scan) {
    let spec = layer.spec
    let channels = channels + row * spec.channelCount
    if let skip = layer.skip {
      let share = fused + row * spec.inputRowCount
      share.update(from: channels + spec.valuesStart, count: spec.valuesLength)
      for head in 0..<spec.valueHeadCount {
        VectorOps.scale(
          share + head * spec.valueLength, by: skip[head], count: spec.valueLength)
      }
      return
    }
    guard !spec.decaysKeys else {
      return VectorOps.scale(
        channels, by: 1 / Float(spec.keyLength).squareRoot(), count: spec.keysLength)
    }
    makeUnitLong(channels, spec)
  }

  /// Gives the keys of a row a length of 1, and its queries one of 1/√keyLength.
  private func makeUnitLong(_ channels: UnsafeMutablePointer<Float>, _ spec: ScanSpec) {
    let epsilon = Self.lengthEpsilon / Float(spec.keyLength)
    for head in 0..<2 * spec.keyHeadCount {
      let x = channels + head * spec.keyLength
      VectorOps.rmsNorm(
        x, weight: head < spec.keyHeadCount ? queryScale : keyScale, epsilon: epsilon,
        count: spec.keyLength, into: x)
    }
  }

  private func scan(
    _ batch: Batch, _ number: Int, head: Int, _ layer: DecoderWeights.Scan, _ worker: Int
  ) {
    let (span, spec) = (batch.spans[number], layer.spec)
    guard span.isAlive else { return }
    let rows = rows(of: span, spec)
    let state = state(of: span.cache, layer) + spec.stateStart(ofHead: head)
    guard span.draftCount > 0, let operands else {
      rows.forEachPart(until: span.cache.savedRowCount, spec) { rows in
        scan(rows, head: head, layer, state: state, worker)
      } save: {
        guard let saved = saved(of: span.cache, layer) else { return }
        (saved + spec.stateStart(ofHead: head)).update(from: state, count: spec.headStateCount)
      }
      return
    }
    for row in 0..<rows.count {
      let gates = operands.gates(layer.number, row: span.firstVerified + row, spec)
      let own = rows.gates + row * spec.gateCount
      guard !spec.decaysKeys else {
        let first = head * spec.keyLength
        (gates + first).update(from: own + first, count: spec.keyLength)
        continue
      }
      gates[head] = own[head]
      gates[spec.valueHeadCount + head] = own[spec.valueHeadCount + head]
    }
    let copy = operands.state(ofWorker: worker)
    copy.update(from: state, count: spec.headStateCount)
    scan(rows, head: head, layer, state: copy, worker)
  }

  private func scan(
    _ rows: Rows, head: Int, _ layer: DecoderWeights.Scan, state: UnsafeMutablePointer<Float>,
    _ worker: Int
  ) {
    let spec = layer.spec
    guard spec.inputs != .taylor else {
      return TaylorScan(spec: spec, memory: expanded + worker * expandedStride).run(
        rows.channels, head: head, state: state, tokenCount: rows.count)
    }
    let scan = LinearScan(
      keyCount: spec.keyLength, columnCount: spec.valueLength, keyStride: spec.channelCount,
      valueStride: spec.channelCount, decay: spec.decaysKeys ? .perKey : .scalar,
      decayStride: spec.gateCount, betaStride: spec.gateCount, deletes: spec.deletes)
    let (first, gates) = (
      rows.channels, rows.gates + (spec.decaysKeys ? head * spec.keyLength : head)
    )
    let key = spec.keyHead(of: head) * spec.keyLength
    scan.run(
      state: state, queries: first + spec.queriesStart + key, keys: first + spec.keysStart + key,
      values: first + spec.valuesStart + head * spec.valueLength, decays: gates,
      betas: spec.decaysKeys ? nil : gates + spec.valueHeadCount, tokenCount: rows.count)
  }

  /// outputs = RMSNorm(o) · SiLU(z), head by head; of Mamba-2 RMSNorm((o + share of v) · SiLU(z)), key head by key head, or without
  /// the norm; of lightning attention RMSNorm(o) · sigmoid(z), over all heads; of a convolution alone C times it.
  private func finish(_ row: Int, _ layer: DecoderWeights.Scan) {
    let spec = layer.spec
    let values = channels + row * spec.channelCount + spec.valuesStart
    let outputs = outputs + row * spec.valuesLength
    guard spec.scans else {
      for index in 0..<spec.valuesLength { outputs[index] *= values[index] }
      return finite.check(outputs, count: spec.valuesLength, row: row)
    }
    guard spec.inputs != .taylor else {
      outputs.update(from: values, count: spec.valuesLength)
      return finite.check(outputs, count: spec.valuesLength, row: row)
    }
    let epsilon = spec.inputs == .lightning ? Self.lengthEpsilon : epsilon
    func normalise(_ x: UnsafeMutablePointer<Float>, _ length: Int, _ weight: Int) {
      guard let norm = layer.norm else {
        return finite.check(x, count: spec.valuesLength, row: row)
      }
      for first in stride(from: 0, to: spec.valuesLength, by: length) {
        finite.note(
          VectorOps.rmsNorm(
            x + first, weight: norm + weight * first, epsilon: epsilon, count: length,
            into: x + first), row: row)
      }
    }
    guard spec.inputs != .lightning else {
      normalise(values, spec.valuesLength, 1)
      VectorOps.gate(values, bySigmoidOf: outputs, count: spec.valuesLength)
      return outputs.update(from: values, count: spec.valuesLength)
    }
    guard layer.skip != nil else {
      normalise(values, spec.valueLength, 0)
      return VectorOps.siluMultiply(outputs, values, count: spec.valuesLength)
    }
    VectorOps.add(values, fused + row * spec.inputRowCount, count: spec.valuesLength)
    VectorOps.siluMultiply(outputs, values, count: spec.valuesLength)
    normalise(outputs, spec.groupSize * spec.valueLength, 1)
  }

  private func state(
    of cache: KeyValueStore, _ layer: DecoderWeights.Scan
  ) -> UnsafeMutablePointer<Float> {
    cache.state(layer.number).bindMemory(to: Float.self, capacity: layer.spec.stateCount)
  }

  /// Where the state is copied to; nil = it is not.
  private func saved(
    of cache: KeyValueStore, _ layer: DecoderWeights.Scan
  ) -> UnsafeMutablePointer<Float>? {
    cache.savedState(layer.number)?.bindMemory(
      to: Float.self, capacity: layer.spec.stateCount)
  }
}
