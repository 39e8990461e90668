import Kernels
import ModelFormat
import TensorBasics

/// The buffers that a chunk of tokens passes through the graph in, allocated once.
///
/// All are f32, a row per token. Buffers whose lifetimes do not overlap share memory.
final class DecoderWorkspace {
  /// Most tokens of a chunk.
  let tokenCapacity: Int
  /// Most rows of logits computed at once.
  let logitRowCapacity: Int

  /// Residual stream [tokens, hiddenSize].
  let residual: UnsafeMutablePointer<Float>
  /// Normalised input of a projection, and what attention or FFN gives back
  /// [tokens, hiddenSize].
  let hidden: UnsafeMutablePointer<Float>
  /// Queries, then attention's output [tokens, queryHeadCount * storedHeadDim], of the layer.
  let queries: UnsafeMutablePointer<Float>
  /// Queries, each head's before its gate, where attention has gates [tokens, 2 * queryHeadCount * headDim].
  let gatedQueries: UnsafeMutablePointer<Float>
  /// [tokens, storedKeyValueHeadCount * storedHeadDim]
  let keys: UnsafeMutablePointer<Float>
  /// [tokens, storedKeyValueHeadCount * storedHeadDim]
  let values: UnsafeMutablePointer<Float>
  /// [tokens, feedForwardLength], where the FFN has a gate.
  let gate: UnsafeMutablePointer<Float>
  /// [tokens, feedForwardLength]
  let up: UnsafeMutablePointer<Float>
  /// Cosines and sines of RoPE [tokens, ropeDimensionCount / 2], whole-context layers first, then
  /// sliding ones; nothing if positions are learned.
  let rope: UnsafeMutablePointer<Float>
  /// Rows of the table of positions [tokens], where they are learned.
  let positionRows: UnsafeMutablePointer<Int32>
  /// [logitRowCapacity, vocabularyCount]
  let logits: UnsafeMutablePointer<Float>
  /// The experts' sum, or attention's output where an FFN or a scan stands beside it, and the shared expert's output
  /// [tokenCapacity, hiddenSize].
  let mixed: UnsafeMutablePointer<Float>
  let shared: UnsafeMutablePointer<Float>
  /// Hidden states of another model, where embeddings are joined with them [tokens, hiddenSize], and both, normalised
  /// [tokens, 2 * hiddenSize].
  let states: UnsafeMutablePointer<Float>
  let joined: UnsafeMutablePointer<Float>
  /// Int8 activations of the current projection.
  let blockMemory: UnsafeMutableRawPointer

  private let memory: PartitionedBuffer

  /// - Throws: ``AllocationError``.
  init(
    _ configuration: DecoderConfiguration, tokenCapacity: Int, logitRowCapacity: Int,
    hasNeurons: Bool
  ) throws(AllocationError) {
    self.tokenCapacity = tokenCapacity
    self.logitRowCapacity = logitRowCapacity
    let sizes = Self.sizes(
      configuration, tokenCapacity: tokenCapacity, logitRowCapacity: logitRowCapacity,
      hasNeurons: hasNeurons)
    let memory = try PartitionedBuffer(sizes)
    residual = memory.pointer(0, as: Float.self)
    hidden = memory.pointer(1, as: Float.self)
    queries = memory.pointer(2, as: Float.self)
    keys = memory.pointer(3, as: Float.self)
    values = memory.pointer(4, as: Float.self)
    gate = memory.pointer(5, as: Float.self)
    up = memory.pointer(6, as: Float.self)
    rope = memory.pointer(7, as: Float.self)
    logits = memory.pointer(8, as: Float.self)
    blockMemory = memory.address(9)
    mixed = memory.pointer(10, as: Float.self)
    shared = memory.pointer(11, as: Float.self)
    positionRows = memory.pointer(12, as: Int32.self)
    gatedQueries = memory.pointer(13, as: Float.self)
    states = memory.pointer(14, as: Float.self)
    joined = memory.pointer(15, as: Float.self)
    self.memory = memory
  }

  /// Bytes a workspace of that capacity takes.
  static func byteCount(
    _ configuration: DecoderConfiguration, tokenCapacity: Int, logitRowCapacity: Int,
    hasNeurons: Bool
  ) -> Int {
    PartitionedBuffer.byteCount(
      sizes(
        configuration, tokenCapacity: tokenCapacity, logitRowCapacity: logitRowCapacity,
        hasNeurons: hasNeurons))
  }

  /// Bytes of each buffer, in order, each a multiple of 64.
  private static func sizes(
    _ configuration: DecoderConfiguration, tokenCapacity: Int, logitRowCapacity: Int,
    hasNeurons: Bool
  ) -> [Int] {
    let heads = HeadLayout.all(configuration)
    let queryStride = heads.map(\.queryStride).max() ?? 0
    let keyStride = heads.map(\.keyStride).max() ?? 0
    let experts = configuration.experts
    let usesRope = configuration.positionOffset == nil
    let usesMixed =
      experts != nil
      || configuration.layers.contains { $0.blocks.contains { $0.branches.count > 1 } }
    // Of FFNs that stand in the graph: dense ones, or shared experts.
    let length =
      hasNeurons
      ? 0 : max(experts?.sharedFeedForwardLength ?? 0, configuration.longestFeedForwardLength)
    let hasGates = configuration.layers.contains { $0.attention?.hasGate == true }
    let joinedSize = configuration.joinsStates ? 2 * configuration.hiddenSize : 0
    let widest = max(
      configuration.hiddenSize, joinedSize, heads.map(\.shape.outputLength).max() ?? 0, length,
      configuration.scans.map(\.valuesLength).max() ?? 0)
    func floats(_ rows: Int, _ columns: Int) -> Int {
      PartitionedBuffer.roundedUp(rows * columns * 4)
    }
    return [
      floats(tokenCapacity, configuration.hiddenSize),
      floats(tokenCapacity, configuration.hiddenSize),
      floats(tokenCapacity, queryStride),
      floats(tokenCapacity, keyStride),
      floats(tokenCapacity, keyStride),
      floats(tokenCapacity, configuration.isGated ? length : 0),
      floats(tokenCapacity, length),
      floats(tokenCapacity, usesRope ? 2 * configuration.ropeDimensionCount : 0),
      floats(logitRowCapacity, configuration.vocabularyCount),
      PartitionedBuffer.roundedUp(
        ActivationBlocks.byteCount(
          tokenCapacity: max(tokenCapacity, logitRowCapacity),
          columnCount: (widest + 31) / 32 * 32)),
      usesMixed ? floats(tokenCapacity, configuration.hiddenSize) : 0,
      experts?.sharedFeedForwardLength == nil
        ? 0 : floats(tokenCapacity, configuration.hiddenSize),
      usesRope ? 0 : PartitionedBuffer.roundedUp(tokenCapacity * 4),
      hasGates
        ? floats(tokenCapacity, 2 * (heads.map(\.shape.queryLength).max() ?? 0)) : 0,
      floats(tokenCapacity, joinedSize / 2), floats(tokenCapacity, joinedSize),
    ]
  }
}
