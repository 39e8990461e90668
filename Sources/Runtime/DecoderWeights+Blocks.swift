import Kernels
import ModelFormat
import TensorBasics
import WeightLoader

extension BlockTensors.Branch {
  /// The matrices that a sweep streams, in the order of use: without experts and bundles of neurons.
  func products(_ selector: NeuronSelector?) -> [TensorSpec] {
    switch self {
    case .attention(let tensors):
      [tensors.query, tensors.key, tensors.value, tensors.output].map(\.weight)
    case .scan(let tensors): tensors.products
    case .feedForward(let tensors): tensors.products
    case .experts(let tensors): [tensors.router.weight] + (tensors.shared?.products ?? [])
    case .neurons(let tensors):
      switch selector {
      case .exact, .threshold: [tensors.deciding.weight]
      case .predictor: tensors.predictor.map { [$0.down, $0.up] } ?? []
      case .all, nil: []
      }
    }
  }
}

extension BlockTensors.GatedTensors {
  fileprivate var products: [TensorSpec] {
    [gate?.weight, up.weight, down.weight].compactMap { $0 }
  }
}

/// Turns the names of blocks' tensors into numbers and addresses.
struct BlockBuilder {
  let index: TensorIndex
  let selector: NeuronSelector?
  /// What writes the residual stream before the first block.
  private let first: FiniteCheck.Part
  private(set) var blocks: [DecoderWeights.Block] = []
  private var familyCount = 0
  /// Layers so far that attend, and that scan.
  private var (attentionCount, scanCount) = (0, 0)

  init(index: TensorIndex, selector: NeuronSelector?, first: FiniteCheck.Part) {
    self.index = index
    self.selector = selector
    self.first = first
  }

  mutating func append(
    _ tensors: BlockTensors, layer: Int, _ vectors: inout VectorLoader
  ) throws(RuntimeError) {
    var block = DecoderWeights.Block(
      layer: layer, predecessor: blocks.last?.part ?? first,
      preNorm: try norm(tensors.preNorm, &vectors), postNorm: try norm(tensors.postNorm, &vectors),
      scale: tensors.scale, residualScale: tensors.residualScale)
    for branch in tensors.branches {
      switch branch {
      case .attention(let tensors):
        block.attention = try attention(tensors, &vectors)
      case .scan(let tensors):
        block.scan = try scan(tensors, &vectors)
        block.downBias = try vector(tensors.output.bias, &vectors)
      case .feedForward(let tensors):
        block.feedForward = .dense(try gated(tensors, &vectors))
        block.downBias = try vector(tensors.down.bias, &vectors)
      case .experts(let tensors): block.feedForward = try experts(tensors, &vectors)
      case .neurons(let tensors):
        block.feedForward = try neurons(tensors, layer: layer, &vectors)
        block.downBias = try vector(tensors.downBias, &vectors)
      }
    }
    blocks.append(block)
  }

  func norm(
    _ tensors: NormTensors, _ vectors: inout VectorLoader
  ) throws(RuntimeError) -> DecoderWeights.Norm {
    DecoderWeights.Norm(
      weight: try vectors.place(try index.require(tensors.weight.name)),
      bias: try vector(tensors.bias, &vectors))
  }

  private func norm(
    _ tensors: NormTensors?, _ vectors: inout VectorLoader
  ) throws(RuntimeError) -> DecoderWeights.Norm? {
    guard let tensors else { return nil }
    let found: DecoderWeights.Norm = try norm(tensors, &vectors)
    return found
  }

  private func vector(
    _ tensor: TensorSpec?, _ vectors: inout VectorLoader
  ) throws(RuntimeError) -> UnsafePointer<Float>? {
    guard let tensor else { return nil }
    return try vectors.place(try index.require(tensor.name))
  }

  private mutating func scan(
    _ tensors: BlockTensors.ScanTensors, _ vectors: inout VectorLoader
  ) throws(RuntimeError) -> DecoderWeights.Scan {
    defer { scanCount += 1 }
    return DecoderWeights.Scan(
      spec: tensors.spec, number: scanCount,
      input: try index.require(tensors.input.weight.name),
      inputBias: try vector(tensors.input.bias, &vectors),
      key: try number(tensors.key), value: try number(tensors.value),
      gate: try number(tensors.gate), beta: try number(tensors.beta),
      alpha: try number(tensors.alpha),
      taps: try vector(tensors.taps, &vectors),
      tapBias: try vector(tensors.tapBias, &vectors),
      decayFactor: try vector(tensors.decayFactor, &vectors),
      timeBias: try vector(tensors.timeBias, &vectors),
      decay: try vector(tensors.decay, &vectors), skip: try vector(tensors.skip, &vectors),
      norm: try vector(tensors.norm, &vectors),
      output: try index.require(tensors.output.weight.name))
  }

  private func number(_ product: Projection?) throws(RuntimeError) -> Int? {
    guard let product else { return nil }
    return try index.require(product.weight.name)
  }

  private mutating func attention(
    _ tensors: BlockTensors.AttentionTensors, _ vectors: inout VectorLoader
  ) throws(RuntimeError) -> DecoderWeights.Attention {
    defer { attentionCount += 1 }
    return DecoderWeights.Attention(
      number: attentionCount,
      query: try index.require(tensors.query.weight.name),
      key: try index.require(tensors.key.weight.name),
      value: try index.require(tensors.value.weight.name),
      output: try index.require(tensors.output.weight.name),
      queryBias: try vector(tensors.query.bias, &vectors),
      keyBias: try vector(tensors.key.bias, &vectors),
      valueBias: try vector(tensors.value.bias, &vectors),
      queryNorm: try vector(tensors.queryNorm, &vectors),
      keyNorm: try vector(tensors.keyNorm, &vectors),
      normalisesWhole: tensors.spec.headNorm == .projection,
      sinks: try vector(tensors.sinks, &vectors),
      outputBias: try vector(tensors.output.bias, &vectors),
      rope: tensors.spec.rope, window: tensors.spec.window, valueScale: tensors.spec.valueScale,
      hasGate: tensors.spec.hasGate)
  }

  private func gated(
    _ tensors: BlockTensors.GatedTensors, _ vectors: inout VectorLoader
  ) throws(RuntimeError) -> DecoderWeights.GatedMatrices {
    DecoderWeights.GatedMatrices(
      gate: try number(tensors.gate),
      up: try index.require(tensors.up.weight.name), length: tensors.up.weight.rowCount,
      upBias: try vector(tensors.up.bias, &vectors),
      down: try index.require(tensors.down.weight.name))
  }

  private mutating func experts(
    _ tensors: BlockTensors.ExpertTensors, _ vectors: inout VectorLoader
  ) throws(RuntimeError) -> DecoderWeights.FeedForward {
    defer { familyCount += 1 }
    let addresses = try tensors.biases.map { bias throws(RuntimeError) in
      try vectors.place(try index.require(bias.name))
    }
    return .experts(
      DecoderWeights.Experts(
        router: try index.require(tensors.router.weight.name), family: familyCount,
        routerBias: try vector(tensors.router.bias, &vectors),
        selectionBias: try vector(tensors.selectionBias, &vectors),
        shared: try tensors.shared.map { shared throws(RuntimeError) in
          try gated(shared, &vectors)
        },
        sharedGate: try vector(tensors.sharedGate, &vectors),
        biases: addresses.count == 3
          ? DecoderWeights.Experts.Biases(
            gate: addresses[0], up: addresses[1], down: addresses[2]) : nil))
  }

  private func neurons(
    _ tensors: BlockTensors.NeuronTensors, layer: Int, _ vectors: inout VectorLoader
  ) throws(RuntimeError) -> DecoderWeights.FeedForward {
    func deciding() throws(RuntimeError) -> Int { try index.require(tensors.deciding.weight.name) }
    let choice: DecoderWeights.NeuronChoice
    switch (selector, tensors.predictor) {
    case (.exact, _): choice = .matrix(try deciding(), threshold: nil)
    case (.threshold, _):
      choice = .matrix(try deciding(), threshold: index.neurons?.thresholds?.values[layer])
    case (.predictor, let predictor?):
      choice = .predictor(
        try index.require(predictor.down.name), try index.require(predictor.up.name),
        bias: try vectors.place(try index.require(predictor.bias.name)))
    case (.predictor, nil):
      throw .notRunnable(path: index.path, reason: "layer \(layer) has no predictor")
    case (.all, _), (nil, _): choice = .all
    }
    return .neurons(
      DecoderWeights.Neurons(
        layer: layer, choice: choice, upBias: try vector(tensors.upBias, &vectors)))
  }
}

extension DecoderWeights.Block {
  /// What is to be named where its output is not finite.
  var part: FiniteCheck.Part {
    feedForward == nil ? scan == nil ? .attention(layer) : .scan(layer) : .feedForward(layer)
  }
}

/// Tensor numbers by name.
struct TensorIndex {
  let path: String
  private var numbers: [String: Int]
  let neurons: NeuronLayout?

  init(source: ModelSource) {
    path = source.path
    neurons = source.description.neurons
    numbers = Dictionary(minimumCapacity: source.description.tensors.count)
    for (number, tensor) in source.description.tensors.enumerated() {
      numbers[tensor.name] = number
    }
  }

  func find(_ name: String) -> Int? { numbers[name] }

  func require(_ name: String) throws(RuntimeError) -> Int {
    guard let number = numbers[name] else {
      throw .notRunnable(path: path, reason: "tensor '\(name)' is missing")
    }
    return number
  }
}

/// Gives vectors their place in memory, then reads them all as f32.
struct VectorLoader {
  private let source: ModelSource
  private let memory: UnsafeMutableRawPointer
  private var used = 0
  private var placed: [(tensor: Int, address: UnsafeMutablePointer<Float>)] = []

  init(source: ModelSource, memory: UnsafeMutableRawPointer) {
    self.source = source
    self.memory = memory
  }

  mutating func place(_ tensor: Int) throws(RuntimeError) -> UnsafePointer<Float> {
    let record = source.description.tensors[tensor]
    guard record.rowCount == 1, !record.type.isQuantised else {
      throw .notRunnable(
        path: source.path,
        reason: "tensor '\(record.name)' must be a vector of F32, F16 or BF16, not "
          + "\(record.rowCount) × \(record.columnCount) of \(record.type.name)")
    }
    let address = (memory + used).bindMemory(to: Float.self, capacity: record.columnCount)
    used += (record.columnCount * 4 + 63) & ~63
    placed.append((tensor, address))
    return UnsafePointer(address)
  }

  func read() throws(RuntimeError) {
    let records = source.description.tensors
    let derivations = source.description.derivations
    var stored: [(tensor: Int, address: UnsafeMutablePointer<Float>)] = []
    for (tensor, address) in placed {
      guard case .values(let values) = derivations[records[tensor].name] else {
        stored.append((tensor, address))
        continue
      }
      for (index, value) in values.enumerated() { address[index] = value }
    }
    do throws(LoaderError) {
      try source.readTensors(stored.map(\.tensor)) { index, bytes in
        let (record, address) = (records[stored[index].tensor], stored[index].address)
        Dequantisation.row(
          bytes, type: record.type, columnCount: record.columnCount, into: address)
        derivations[record.name]?.apply(to: address, count: record.columnCount)
      }
    } catch { throw RuntimeError(error) }
    for (tensor, address) in placed { try checkFinite(records[tensor], address) }
  }

  private func checkFinite(
    _ record: TensorRecord, _ values: UnsafePointer<Float>
  ) throws(RuntimeError) {
    guard let element = (0..<record.columnCount).first(where: { !values[$0].isFinite }) else {
      return
    }
    throw .loader(
      .format(
        FormatError(
          .malformed, at: record.offset + element * record.type.blockByteCount,
          path: source.description.files[record.fileIndex],
          "element \(element) of tensor '\(record.name)' is \(values[element]): a weight must be a finite number"
        )))
  }
}
