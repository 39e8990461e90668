import Kernels
import ModelFormat
import Synchronization
import TensorBasics
import WeightLoader

/// A layer's FFN in bundles of neurons: a selector chooses those a token needs, the window provides them.
///
/// "LLM in a flash" (arXiv:2312.11514), §3: selection, windowing, row-column bundles. A neuron's
/// products are computed when it is there, but the outputs are added in the order of the neurons, so
/// that neither the window nor the chunking of a prompt changes a bit; what is skipped because it is zero
/// would have changed none.
final class NeuronStep: ParallelRegion {
  private let layout: NeuronLayout
  private let width: Int
  private let length: Int
  private let activation: DecoderConfiguration.Activation
  private let neuronsPerBundle: Int
  private let bundleCount: Int
  private let matrices: [Matrices]
  private let stream: WeightStream
  private let linear: LinearExecutor
  private let pool: ThreadPool
  private let clock: StepClock
  private let finite: FiniteCheck
  private let memory: NeuronWorkspace
  private let prefetcher: NeuronPrefetcher

  /// A layer's parts, which may have other types than another's.
  private struct Matrices {
    var gate: Matrix?
    var up: Matrix
    var down: Matrix
  }
  private var gate: Matrix?
  private var up: Matrix
  private var down: Matrix

  /// A part of a bundle.
  private struct Matrix {
    var type: ElementType
    /// First byte in a bundle.
    var offset: Int

    init?(_ role: NeuronBundles.Role, _ bundles: NeuronBundles) {
      guard let (part, offset) = bundles.part(role) else { return nil }
      type = part.type
      self.offset = offset
    }
  }

  // What the current region does.
  private enum Phase { case choose, neurons, bundles, columns, rows }
  private var phase = Phase.choose
  private var layer: DecoderWeights.Neurons
  private var x = Activations(
    values: UnsafePointer(bitPattern: 64)!, stride: 0, blocks: nil, tokenCount: 0)
  /// The bundles of the batch, and the places in ``NeuronWorkspace/order`` that the region computes.
  private var batch = 0..<0
  private var places = 0..<0
  private var shareCount = 1

  /// - Throws: ``AllocationError``.
  init(
    _ configuration: DecoderConfiguration, _ layout: NeuronLayout, tokenCapacity: Int,
    stream: WeightStream, linear: LinearExecutor, pool: ThreadPool, clock: StepClock,
    finite: FiniteCheck
  ) throws(AllocationError) {
    matrices = layout.layers.map { bundles in
      guard let up = Matrix(.up, bundles), let down = Matrix(.down, bundles) else {
        preconditionFailure("bundles without up and down; the parser refuses them")
      }
      return Matrices(gate: Matrix(.gate, bundles), up: up, down: down)
    }
    self.layout = layout
    width = configuration.hiddenSize
    length = configuration.feedForwardLength
    activation = configuration.activation
    neuronsPerBundle = layout.layers[0].neuronsPerBundle
    bundleCount = layout.layers[0].bundleCount
    (gate, up, down) = (matrices[0].gate, matrices[0].up, matrices[0].down)
    self.stream = stream
    self.linear = linear
    self.pool = pool
    self.clock = clock
    self.finite = finite
    layer = DecoderWeights.Neurons(layer: 0, choice: .all)
    prefetcher = try NeuronPrefetcher(configuration, layout, stream: stream, linear: linear)
    memory = try NeuronWorkspace(
      configuration, layout, tokenCapacity: tokenCapacity, threadCount: pool.threadCount)
  }

  /// Whether the products of a layer take int8 activations.
  func takesBlocks(_ layer: DecoderWeights.Neurons) -> Bool {
    let chooses =
      switch layer.choice {
      case .all: false
      case .matrix(let matrix, _): linear.takesBlocks(matrix)
      case .predictor(let a, _, _): linear.takesBlocks(a)
      }
    let parts = matrices[layer.layer]
    return chooses || parts.up.type.isQuantised || parts.gate?.type.isQuantised == true
  }

  /// output = Σ over the neurons chosen for each token of down column · activation(gate row · x) ·
  /// (up row · x), [x.tokenCount, hiddenSize]; may be where x is.
  ///
  /// - Parameter next: the layer after it, for a single token; nil = none.
  func run(
    _ layer: DecoderWeights.Neurons, _ x: Activations, next: NeuronPrefetcher.Next?,
    into output: UnsafeMutablePointer<Float>
  ) throws(RuntimeError) {
    self.layer = layer
    self.x = x
    let parts = matrices[layer.layer]
    (gate, up, down) = (parts.gate, parts.up, parts.down)
    try decide()
    let neededCount = choose()
    let outputCount = x.tokenCount * width
    memory.output.update(repeating: 0, count: outputCount)
    var first = 0
    while first < neededCount {
      let end = min(first + stream.neuronBatchLimit, neededCount)
      try compute(first..<end, next: end == neededCount ? next : nil)
      first = end
    }
    output.update(from: memory.output, count: outputCount)
  }

  // MARK: - Choosing

  /// Computes what decides: the deciding matrix's products, or predicted scores.
  private func decide() throws(RuntimeError) {
    switch layer.choice {
    case .all: break
    case .matrix(let matrix, _):
      try linear.multiply(
        x, LinearTask(tensor: matrix, output: memory.decisions, outputStride: length))
    case .predictor(let a, let b, _):
      let rank = layout.predictor?.ranks[layer.layer] ?? 0
      try linear.multiply(
        x, LinearTask(tensor: a, output: memory.inner, outputStride: rank))
      let inner = Activations(
        values: UnsafePointer(memory.inner), stride: rank, blocks: nil, tokenCount: x.tokenCount)
      try linear.multiply(
        inner, LinearTask(tensor: b, output: memory.decisions, outputStride: length))
    }
  }

  /// Names the bundles that any token needs; their count.
  private func choose() -> Int {
    if case .all = layer.choice {
      for bundle in 0..<bundleCount { memory.needed[bundle] = Int32(bundle) }
      return bundleCount
    }
    var count = 0
    clock.measure(.elementwise) {
      memory.clearNeeded(bundleCount: bundleCount)
      phase = .choose
      pool.run(count: x.tokenCount, self)
      for bundle in 0..<bundleCount where memory.isNeeded[bundle].load(ordering: .relaxed) {
        memory.needed[count] = Int32(bundle)
        count += 1
      }
    }
    return count
  }

  /// Marks the bundles that one token needs.
  ///
  /// Where the deciding matrix decides, the others' decisions become zero, and their neurons with them.
  private func choose(token: Int) {
    let decisions = memory.decisions + token * length
    finite.check(decisions, count: length, row: token)
    switch layer.choice {
    case .all: break
    case .predictor(_, _, let bias):
      VectorOps.add(decisions, bias, count: length)
      mark { decisions[$0] > 0 }
    case .matrix(_, let threshold):
      if gate == nil, let bias = layer.upBias { VectorOps.add(decisions, bias, count: length) }
      guard let threshold else {
        mark { decisions[$0] > 0 }
        return
      }
      // As large as they will be when up multiplies them.
      let magnitudes = memory.values + token * length
      magnitudes.update(from: decisions, count: length)
      activation.gate(magnitudes, by: memory.ones, count: length)
      let isChosen = { (neuron: Int) in magnitudes[neuron].magnitude > threshold }
      mark(isChosen)
      for bundle in 0..<bundleCount where !contains(bundle, isChosen) {
        (decisions + bundle * neuronsPerBundle).update(repeating: 0, count: neuronsPerBundle)
      }
    }
  }

  @inline(__always)
  private func contains(_ bundle: Int, _ isChosen: (_ neuron: Int) -> Bool) -> Bool {
    let first = bundle * neuronsPerBundle
    return (first..<first + neuronsPerBundle).contains(where: isChosen)
  }

  /// Several tokens may mark at once: all write the same.
  @inline(__always)
  private func mark(_ isChosen: (_ neuron: Int) -> Bool) {
    if neuronsPerBundle == 1 {
      for neuron in 0..<length where isChosen(neuron) {
        memory.isNeeded[neuron].store(true, ordering: .relaxed)
      }
    } else {
      for bundle in 0..<bundleCount where contains(bundle, isChosen) {
        memory.isNeeded[bundle].store(true, ordering: .relaxed)
      }
    }
  }

  // MARK: - Computing

  /// Brings the bundles `needed[batch]` and adds what they give; in memory ones while others come.
  private func compute(
    _ batch: Range<Int>, next: NeuronPrefetcher.Next?
  ) throws(RuntimeError) {
    self.batch = batch
    do throws(LoaderError) {
      try stream.holdNeurons(
        layer: layer.layer,
        bundles: UnsafeBufferPointer(start: memory.needed + batch.lowerBound, count: batch.count),
        addresses: memory.addresses)
    } catch { throw RuntimeError(error) }
    let missing = stream.missingNeurons
    var (present, absent) = (0, 0)
    for place in 0..<batch.count {
      if absent < missing.count, Int(missing[absent]) == place {
        memory.order[batch.count - missing.count + absent] = Int32(place)
        absent += 1
      } else {
        memory.order[present] = Int32(place)
        present += 1
      }
    }
    activate(0..<present)
    do { try stream.waitForNeurons() } catch { throw RuntimeError(error) }
    if let next { try prefetcher.prefetchNextLayer(next) }
    activate(present..<batch.count)
    add()
    if stream.cancellation.isRaised { throw .interrupted }
  }

  /// Computes the activated values of the bundles at those places of the order.
  private func activate(_ places: Range<Int>) {
    guard !places.isEmpty else { return }
    self.places = places
    clock.measure(.products) {
      if neuronsPerBundle == 1 {
        phase = .neurons
        pool.run(count: (places.count + RowGroup.rowCount - 1) / RowGroup.rowCount, self)
      } else {
        phase = .bundles
        pool.run(count: places.count, self)
      }
    }
  }

  /// Adds the batch's neurons to the output, in ascending order.
  private func add() {
    clock.measure(.products) {
      for place in 0..<batch.count {
        memory.downAddresses[place] = memory.addresses[place] + down.offset
      }
      let unit = neuronsPerBundle == 1 ? Self.columnsPerShare : RowGroup.rowCount
      let units = (width + unit - 1) / unit
      shareCount = min(units, 2 * pool.threadCount)
      phase = neuronsPerBundle == 1 ? .columns : .rows
      pool.run(count: shareCount, self)
    }
  }

  /// Shares of the output begin at multiples of this many columns.
  private static let columnsPerShare = 64

  /// The part of `count` things in units of `unit` that share `index` has.
  private func share(_ index: Int, of count: Int, unit: Int) -> Range<Int> {
    let units = (count + unit - 1) / unit
    return min(
      count, index * units / shareCount * unit)..<min(
        count, (index + 1) * units / shareCount * unit)
  }

  func perform(index: Int, worker: Int) {
    switch phase {
    case .choose: choose(token: index)
    case .neurons:
      let first = places.lowerBound + index * RowGroup.rowCount
      activateNeurons(first..<min(first + RowGroup.rowCount, places.upperBound), worker)
    case .bundles: activateBundle(places.lowerBound + index, worker)
    case .columns:
      NeuronColumns.accumulate(
        rows: memory.downAddresses, rowCount: batch.count, type: down.type,
        columns: share(index, of: width, unit: Self.columnsPerShare), values: memory.values,
        valueStride: length, tokenCount: x.tokenCount, into: memory.output, outputStride: width)
    case .rows:
      addBundles(groups: share(index, of: RowGroup.groupCount(rows: width), unit: 1))
    }
  }

  /// Up to sixteen single neurons.
  private func activateNeurons(_ range: Range<Int>, _ index: Int) {
    let worker = memory.worker(index)
    let stride = RowGroup.rowCount
    if !usesMatrix { multiply(gate ?? up, range, worker, into: worker.gate) }
    if gate != nil { multiply(up, range, worker, into: worker.up) }
    for token in 0..<x.tokenCount {
      let values = worker.gate + token * stride
      let decisions = memory.decisions + token * length
      for (row, place) in range.enumerated() {
        let neuron = Int(memory.needed[batch.lowerBound + Int(memory.order[place])])
        if usesMatrix {
          values[row] = decisions[neuron]
        } else if gate == nil, let bias = layer.upBias {
          values[row] += bias[neuron]
        }
      }
      let factors =
        gate == nil ? UnsafePointer(memory.ones) : UnsafePointer(worker.up + token * stride)
      activation.gate(values, by: factors, count: range.count)
      for (row, place) in range.enumerated() {
        let column = Int(memory.order[place])
        let isChosen =
          !predicts || decisions[Int(memory.needed[batch.lowerBound + column])] > 0
        memory.values[token * length + column] = isChosen ? values[row] : 0
      }
    }
  }

  /// Whether the deciding matrix was computed whole.
  private var usesMatrix: Bool {
    if case .matrix = layer.choice { true } else { false }
  }

  private var predicts: Bool {
    if case .predictor = layer.choice { true } else { false }
  }

  /// Rows of a part of single neurons times x, [tokenCount, 16].
  private func multiply(
    _ matrix: Matrix, _ range: Range<Int>, _ worker: NeuronWorkspace.Worker,
    into output: UnsafeMutablePointer<Float>
  ) {
    for (row, place) in range.enumerated() {
      worker.rows[row] = memory.addresses[Int(memory.order[place])] + matrix.offset
    }
    Interleaving.interleave(
      rowPointers: worker.rows, rowCount: range.count, type: matrix.type, columnCount: width,
      into: worker.group)
    MatrixProduct.multiply(
      MatrixOperand(
        address: worker.group, type: matrix.type, layout: .interleaved, rowCount: range.count,
        columnCount: width),
      groups: 0..<1, by: x, into: output, outputStride: RowGroup.rowCount, scratch: nil)
  }

  /// A bundle of several neurons: its activated values as int8.
  private func activateBundle(_ place: Int, _ index: Int) {
    let worker = memory.worker(index)
    let column = Int(memory.order[place])
    let address = memory.addresses[column]
    let first = Int(memory.needed[batch.lowerBound + column]) * neuronsPerBundle
    let count = neuronsPerBundle
    func multiply(_ matrix: Matrix, into output: UnsafeMutablePointer<Float>) {
      MatrixProduct.multiply(
        MatrixOperand(
          address: address + matrix.offset, type: matrix.type, layout: .interleaved,
          rowCount: count, columnCount: width),
        groups: 0..<RowGroup.groupCount(rows: count), by: x, into: output, outputStride: count,
        scratch: nil)
    }
    if !usesMatrix { multiply(gate ?? up, into: worker.gate) }
    if gate != nil { multiply(up, into: worker.up) }
    for token in 0..<x.tokenCount {
      let values = worker.gate + token * count
      let decisions = memory.decisions + token * length + first
      if usesMatrix {
        values.update(from: decisions, count: count)
      } else if gate == nil, let bias = layer.upBias {
        VectorOps.add(values, bias + first, count: count)
      }
      activation.gate(
        values,
        by: gate == nil ? UnsafePointer(memory.ones) : UnsafePointer(worker.up + token * count),
        count: count)
      if predicts, !(0..<count).contains(where: { decisions[$0] > 0 }) {
        values.update(repeating: 0, count: count)
      }
    }
    blocks(column).quantise(
      UnsafePointer(worker.gate), stride: count, tokens: 0..<x.tokenCount)
  }

  /// Int8 activations of a bundle of the batch.
  private func blocks(_ column: Int) -> ActivationBlocks {
    ActivationBlocks(
      memory: memory.blocks + column * memory.blocksByteCount, columnCount: neuronsPerBundle)
  }

  /// Row groups of all bundles' down parts, bundle after bundle.
  private func addBundles(groups: Range<Int>) {
    guard !groups.isEmpty else { return }
    for column in 0..<batch.count {
      MatrixProduct.accumulate(
        MatrixOperand(
          address: memory.downAddresses[column], type: down.type, layout: .interleaved,
          rowCount: width, columnCount: neuronsPerBundle),
        groups: groups,
        by: Activations(
          values: UnsafePointer(memory.values), stride: neuronsPerBundle, blocks: blocks(column),
          tokenCount: x.tokenCount),
        into: memory.output, outputStride: width, scratch: nil)
    }
  }
}
