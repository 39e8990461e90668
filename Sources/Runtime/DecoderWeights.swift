import Kernels
import ModelFormat
import TensorBasics
import WeightLoader

/// A decoder's weights by their place in the graph: matrices as tensor numbers for the stream,
/// vectors as f32 in memory.
final class DecoderWeights {
  /// One transformer block.
  struct Layer {
    var attentionNorm: UnsafePointer<Float>  // [embeddingLength]
    var query: Int  // [queryHeadCount * headLength, embeddingLength]
    var key: Int  // [keyValueHeadCount * headLength, embeddingLength]
    var value: Int  // as key
    var output: Int  // [embeddingLength, queryHeadCount * headLength]
    var queryBias: UnsafePointer<Float>?
    var keyBias: UnsafePointer<Float>?
    var valueBias: UnsafePointer<Float>?
    var queryNorm: UnsafePointer<Float>?  // [headLength]
    var keyNorm: UnsafePointer<Float>?  // [headLength]
    var postAttentionNorm: UnsafePointer<Float>?  // [embeddingLength]
    var feedForwardNorm: UnsafePointer<Float>  // [embeddingLength]
    var gate: Int  // [feedForwardLength, embeddingLength]
    var up: Int  // as gate
    var down: Int  // [embeddingLength, feedForwardLength]
    var postFeedForwardNorm: UnsafePointer<Float>?  // [embeddingLength]
  }

  let layers: [Layer]
  let outputNorm: UnsafePointer<Float>
  /// Embedding table [vocabularyCount, embeddingLength].
  let embedding: Int
  /// Output head of the same shape; the embedding table itself where they are tied.
  let head: Int
  /// Divisors of RoPE's frequencies [ropeDimensionCount / 2], where the file has them.
  let ropeFactors: UnsafePointer<Float>?
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
  /// - Throws: ``RuntimeError/notRunnable(path:reason:)`` where a tensor is missing.
  init(source: ModelSource, configuration: DecoderConfiguration) throws(RuntimeError) {
    if configuration.experts != nil || configuration.normalisesProjections {
      throw .notRunnable(path: source.path, reason: "models with experts do not run yet")
    }
    var index = TensorIndex(source: source)
    var layers: [Layer] = []
    layers.reserveCapacity(configuration.layerCount)
    do {
      vectors = try AlignedBuffer(byteCount: max(4, Self.vectorByteCount(source.description)))
    } catch { throw .allocation(error) }
    var loader = VectorLoader(source: source, memory: vectors.address)
    for number in 0..<configuration.layerCount {
      layers.append(try Self.layer(number, configuration, &index, &loader))
    }
    self.layers = layers
    outputNorm = try loader.place(try index.require("output_norm.weight"))
    ropeFactors = try index.find("rope_freqs.weight").map { tensor throws(RuntimeError) in
      try loader.place(tensor)
    }
    embedding = try index.require("token_embd.weight")
    head = index.find("output.weight") ?? embedding
    order = try Self.order(index, configuration)
    try loader.read()
  }

  /// The order of use, from names alone: nothing is read.
  ///
  /// - Throws: ``RuntimeError/notRunnable(path:reason:)`` where a tensor is missing.
  static func order(
    source: ModelSource, configuration: DecoderConfiguration
  ) throws(RuntimeError) -> StreamOrder {
    try order(TensorIndex(source: source), configuration)
  }

  private static func order(
    _ index: TensorIndex, _ configuration: DecoderConfiguration
  ) throws(RuntimeError) -> StreamOrder {
    var body: [Int] = []
    for number in 0..<configuration.layerCount {
      for name in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
        body.append(try index.require("blk.\(number).\(name).weight"))
      }
    }
    let embedding = try index.require("token_embd.weight")
    return StreamOrder(segments: [body, [index.find("output.weight") ?? embedding]])
  }

  /// Memory that ``init(source:configuration:)`` takes for the vectors.
  static func vectorByteCount(_ model: ModelDescription) -> Int {
    model.tensors.reduce(0) { sum, tensor in
      tensor.rowCount == 1 ? sum + (tensor.columnCount * 4 + 63) & ~63 : sum
    }
  }

  private static func layer(
    _ number: Int, _ configuration: DecoderConfiguration, _ index: inout TensorIndex,
    _ vectors: inout VectorLoader
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
    return Layer(
      attentionNorm: try vector("attn_norm.weight"),
      query: try matrix("attn_q"), key: try matrix("attn_k"), value: try matrix("attn_v"),
      output: try matrix("attn_output"),
      queryBias: try vector("attn_q.bias", if: biased),
      keyBias: try vector("attn_k.bias", if: biased),
      valueBias: try vector("attn_v.bias", if: biased),
      queryNorm: try vector("attn_q_norm.weight", if: configuration.normalisesHeads),
      keyNorm: try vector("attn_k_norm.weight", if: configuration.normalisesHeads),
      postAttentionNorm: try vector(
        "post_attention_norm.weight", if: configuration.normalisesOutputs),
      feedForwardNorm: try vector("ffn_norm.weight"),
      gate: try matrix("ffn_gate"), up: try matrix("ffn_up"), down: try matrix("ffn_down"),
      postFeedForwardNorm: try vector("post_ffw_norm.weight", if: configuration.normalisesOutputs))
  }
}

/// Tensor numbers by name.
private struct TensorIndex {
  private let path: String
  private var numbers: [String: Int]

  init(source: ModelSource) {
    path = source.path
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
    do throws(LoaderError) {
      try source.readTensors(placed.map(\.tensor)) { index, bytes in
        let record = records[placed[index].tensor]
        Dequantisation.row(
          bytes, type: record.type, columnCount: record.columnCount, into: placed[index].address)
      }
    } catch { throw RuntimeError(error) }
  }
}
