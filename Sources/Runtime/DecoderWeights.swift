import BlockIO
import Kernels
import ModelFormat
import TensorBasics
import WeightLoader

/// A decoder's weights by their place in the graph: matrices as tensor numbers for the stream,
/// vectors as f32 in memory.
final class DecoderWeights {
  /// One transformer block.
  struct Layer {
    var attentionNorm: Norm
    var query: Int  // [queryHeadCount * headDim, hiddenSize]
    var key: Int  // [keyValueHeadCount * headDim, hiddenSize]
    var value: Int  // as key
    var output: Int  // [hiddenSize, queryHeadCount * headDim]
    var queryBias: UnsafePointer<Float>?
    var keyBias: UnsafePointer<Float>?
    var valueBias: UnsafePointer<Float>?
    var queryNorm: UnsafePointer<Float>?  // [headDim], or of the whole projection
    var keyNorm: UnsafePointer<Float>?  // as queryNorm
    var outputBias: UnsafePointer<Float>?  // [hiddenSize]
    var postAttentionNorm: UnsafePointer<Float>?  // [hiddenSize]
    var feedForwardNorm: Norm
    var feedForward: FeedForward
    var downBias: UnsafePointer<Float>?  // [hiddenSize]
    var postFeedForwardNorm: UnsafePointer<Float>?  // [hiddenSize]
  }

  /// RMSNorm, or LayerNorm where there is a bias.
  struct Norm: BitwiseCopyable {
    var weight: UnsafePointer<Float>  // [hiddenSize]
    var bias: UnsafePointer<Float>?  // [hiddenSize]

    /// y = RMSNorm(x) * weight, or with a bias LayerNorm(x) * weight + bias; false if x is not finite.
    @discardableResult
    func apply(
      _ x: UnsafePointer<Float>, epsilon: Float, count: Int, into y: UnsafeMutablePointer<Float>
    ) -> Bool {
      if let bias {
        VectorOps.layerNorm(x, weight: weight, bias: bias, epsilon: epsilon, count: count, into: y)
      } else {
        VectorOps.rmsNorm(x, weight: weight, epsilon: epsilon, count: count, into: y)
      }
    }
  }

  /// What follows attention: one FFN, or a choice of several.
  enum FeedForward {
    case dense(GatedMatrices)
    case experts(Experts)
    case neurons(Neurons)
  }

  /// down(activation(gate(x)) * up(x)), or without gate down(relu(up(x) + upBias))
  struct GatedMatrices {
    var gate: Int?  // [feedForwardLength, hiddenSize]
    var up: Int  // as gate
    var upBias: UnsafePointer<Float>?  // [feedForwardLength]
    var down: Int  // [hiddenSize, feedForwardLength]
  }

  struct Experts {
    var router: Int  // [expertCount, hiddenSize]
    /// Number in ``DecoderWeights/families``.
    var family: Int
    var shared: GatedMatrices?
    var sharedGate: UnsafePointer<Float>?  // [hiddenSize]
  }

  /// An FFN in bundles of neurons, and what chooses among them.
  struct Neurons {
    var layer: Int
    var choice: NeuronChoice
    var upBias: UnsafePointer<Float>?  // [feedForwardLength], of an FFN without gate
  }

  enum NeuronChoice {
    case all
    /// The deciding matrix [feedForwardLength, hiddenSize], and the least |activation| that counts;
    /// nil = what ReLU lets through.
    case matrix(Int, threshold: Float?)
    /// Low-rank factors [rank, hiddenSize] and [feedForwardLength, rank], bias [feedForwardLength].
    case predictor(Int, Int, bias: UnsafePointer<Float>)
  }

  let layers: [Layer]
  /// Experts of each layer that has some: gate, up, down.
  let families: [BundleFamily]
  let outputNorm: Norm
  /// Embedding table [vocabularyCount, hiddenSize].
  let embedding: Int
  /// Learned positions [positionOffset + contextLength, hiddenSize]; nil = RoPE.
  let positions: Int?
  /// Output head of the same shape; the embedding table itself where they are tied.
  let head: Int
  /// The tables that single rows are read of.
  var tables: [Int] { [embedding] + (positions.map { [$0] } ?? []) }
  /// Divisors of RoPE's frequencies [ropeDimensionCount / 2], where the file has them.
  let ropeFactors: UnsafePointer<Float>?
  /// By tensor number, what products with a matrix are multiplied by: one number, or one for each expert; nil for
  /// most.
  let factors: [UnsafePointer<Float>?]
  /// Matrices in the order of use, by ``Segment``.
  let order: StreamOrder

  private let vectors: AlignedBuffer

  /// Segments of ``order``.
  enum Segment: Int {
    case body
    case head
  }

  /// Resolves names and reads the vectors.
  ///
  /// - Parameter contextLength: the context that RoPE's frequencies are chosen for.
  /// - Throws: ``RuntimeError/notRunnable(path:reason:)`` if a tensor is missing.
  init(
    source: ModelSource, configuration: DecoderConfiguration, contextLength: Int,
    selector: NeuronSelector?
  ) throws(RuntimeError) {
    let index = TensorIndex(source: source)
    var layers: [Layer] = []
    layers.reserveCapacity(configuration.layerCount)
    do {
      vectors = try AlignedBuffer(byteCount: max(4, Self.vectorByteCount(source.description)))
    } catch { throw .allocation(error) }
    var loader = VectorLoader(source: source, memory: vectors.address)
    for number in 0..<configuration.layerCount {
      layers.append(try Self.layer(number, configuration, selector, index, &loader))
    }
    self.layers = layers
    outputNorm = try Self.norm("output_norm", configuration, index, &loader)
    let factorsName = configuration.ropeFactorsName(contextLength: contextLength)
    ropeFactors = try index.find(factorsName).map { tensor throws(RuntimeError) in
      try loader.place(tensor)
    }
    factors = try source.description.tensors.map { tensor throws(RuntimeError) in
      guard let name = TensorRecord.factorName(ofWeight: tensor.name) else { return nil }
      return try index.find(name).map { number throws(RuntimeError) in try loader.place(number) }
    }
    embedding = try index.require("token_embd.weight")
    positions =
      configuration.positionOffset == nil ? nil : try index.require("position_embd.weight")
    head = index.find("output.weight") ?? embedding
    order = try Self.order(index, configuration, selector)
    families = try Self.families(source: source, index, configuration)
    try loader.read()
  }

  /// The order of use, from names alone: nothing is read.
  ///
  /// - Throws: ``RuntimeError/notRunnable(path:reason:)`` if a tensor is missing.
  static func order(
    source: ModelSource, configuration: DecoderConfiguration, selector: NeuronSelector?
  ) throws(RuntimeError) -> StreamOrder {
    try order(TensorIndex(source: source), configuration, selector)
  }

  private static func order(
    _ index: TensorIndex, _ configuration: DecoderConfiguration, _ selector: NeuronSelector?
  ) throws(RuntimeError) -> StreamOrder {
    var body: [Int] = []
    for number in 0..<configuration.layerCount {
      for name in matrixNames(configuration, selector) {
        body.append(try index.require("blk.\(number).\(name).weight"))
      }
    }
    let embedding = try index.require("token_embd.weight")
    return StreamOrder(segments: [body, [index.find("output.weight") ?? embedding]])
  }

  /// A layer's matrices in the order of use, without experts and bundles of neurons.
  private static func matrixNames(
    _ configuration: DecoderConfiguration, _ selector: NeuronSelector?
  ) -> [String] {
    let attention = ["attn_q", "attn_k", "attn_v", "attn_output"]
    switch selector {
    case .exact, .threshold: return attention + ["ffn_select"]
    case .predictor: return attention + ["ffn_predictor_a", "ffn_predictor_b"]
    case .all: return attention
    case nil: break
    }
    guard let experts = configuration.experts else {
      return attention + (configuration.isGated ? ["ffn_gate"] : []) + ["ffn_up", "ffn_down"]
    }
    let shared =
      experts.sharedFeedForwardLength == nil
      ? [] : ["ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"]
    return attention + ["ffn_gate_inp"] + shared
  }

  /// The experts of each layer, from names alone: nothing is read.
  static func families(
    source: ModelSource, configuration: DecoderConfiguration
  ) throws(RuntimeError) -> [BundleFamily] {
    try families(source: source, TensorIndex(source: source), configuration)
  }

  private static func families(
    source: ModelSource, _ index: TensorIndex, _ configuration: DecoderConfiguration
  ) throws(RuntimeError) -> [BundleFamily] {
    guard configuration.experts != nil else { return [] }
    var families: [BundleFamily] = []
    for number in 0..<configuration.layerCount {
      var tensors: [Int] = []
      for name in ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"] {
        tensors.append(try index.require("blk.\(number).\(name).weight"))
      }
      families.append(
        BundleFamily(
          tensors: tensors, of: source.description, alignment: source.readAlignment))
    }
    return families
  }

  /// Memory that ``init(source:configuration:selector:)`` takes for the vectors.
  static func vectorByteCount(_ model: ModelDescription) -> Int {
    model.tensors.reduce(0) { sum, tensor in
      tensor.rowCount == 1 ? sum + (tensor.columnCount * 4 + 63) & ~63 : sum
    }
  }

  private static func norm(
    _ name: String, _ configuration: DecoderConfiguration, _ index: TensorIndex,
    _ vectors: inout VectorLoader
  ) throws(RuntimeError) -> Norm {
    let weight = try vectors.place(try index.require(name + ".weight"))
    guard configuration.normKind == .layer else { return Norm(weight: weight) }
    return Norm(weight: weight, bias: try vectors.place(try index.require(name + ".bias")))
  }

  private static func layer(
    _ number: Int, _ configuration: DecoderConfiguration, _ selector: NeuronSelector?,
    _ index: TensorIndex, _ vectors: inout VectorLoader
  ) throws(RuntimeError) -> Layer {
    let prefix = "blk.\(number)."
    func matrix(_ name: String) throws(RuntimeError) -> Int {
      try index.require(prefix + name + ".weight")
    }
    func vector(_ name: String) throws(RuntimeError) -> UnsafePointer<Float> {
      try vectors.place(try index.require(prefix + name))
    }
    func vector(_ name: String, if present: Bool) throws(RuntimeError) -> UnsafePointer<Float>? {
      present ? try vector(name) : nil
    }
    let biased = configuration.hasQueryKeyValueBias
    let normed = configuration.normalisesHeads || configuration.normalisesProjections
    func gated(_ suffix: String) throws(RuntimeError) -> GatedMatrices {
      GatedMatrices(
        gate: configuration.isGated ? try matrix("ffn_gate" + suffix) : nil,
        up: try matrix("ffn_up" + suffix),
        down: try matrix("ffn_down" + suffix))
    }
    let feedForward: FeedForward
    let upBias = try vector("ffn_up.bias", if: configuration.hasProjectionBiases)
    if let selector {
      let choice: NeuronChoice =
        switch selector {
        case .all: .all
        case .exact: .matrix(try matrix("ffn_select"), threshold: nil)
        case .threshold:
          .matrix(try matrix("ffn_select"), threshold: index.neurons?.thresholds?.values[number])
        case .predictor:
          .predictor(
            try matrix("ffn_predictor_a"), try matrix("ffn_predictor_b"),
            bias: try vector("ffn_predictor.bias"))
        }
      feedForward = .neurons(Neurons(layer: number, choice: choice, upBias: upBias))
    } else if let experts = configuration.experts {
      feedForward = .experts(
        Experts(
          router: try matrix("ffn_gate_inp"), family: number,
          shared: experts.sharedFeedForwardLength == nil ? nil : try gated("_shexp"),
          sharedGate: try vector("ffn_gate_inp_shexp.weight", if: experts.gatesSharedExpert)))
    } else {
      var matrices = try gated("")
      matrices.upBias = upBias
      feedForward = .dense(matrices)
    }
    return Layer(
      attentionNorm: try norm(prefix + "attn_norm", configuration, index, &vectors),
      query: try matrix("attn_q"), key: try matrix("attn_k"), value: try matrix("attn_v"),
      output: try matrix("attn_output"),
      queryBias: try vector("attn_q.bias", if: biased),
      keyBias: try vector("attn_k.bias", if: biased),
      valueBias: try vector("attn_v.bias", if: biased),
      queryNorm: try vector("attn_q_norm.weight", if: normed),
      keyNorm: try vector("attn_k_norm.weight", if: normed),
      outputBias: try vector("attn_output.bias", if: configuration.hasProjectionBiases),
      postAttentionNorm: try vector(
        "post_attention_norm.weight", if: configuration.normalisesOutputs),
      feedForwardNorm: try norm(prefix + "ffn_norm", configuration, index, &vectors),
      feedForward: feedForward,
      downBias: try vector("ffn_down.bias", if: configuration.hasProjectionBiases),
      postFeedForwardNorm: try vector("post_ffw_norm.weight", if: configuration.normalisesOutputs))
  }
}

/// Tensor numbers by name.
private struct TensorIndex {
  private let path: String
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
private struct VectorLoader {
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
        guard derivations[record.name] == .plusOne else { return }
        for column in 0..<record.columnCount { address[column] += 1 }
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
