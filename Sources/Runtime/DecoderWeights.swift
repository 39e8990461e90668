import BlockIO
import Kernels
import ModelFormat
import TensorBasics
import WeightLoader

/// A decoder's weights by their place in the graph: matrices as tensor numbers for the stream,
/// vectors as f32 in memory.
final class DecoderWeights {
  /// A ``BlockSpec`` with its weights: what a sweep goes through, one after the other.
  struct Block {
    var layer: Int
    /// What wrote the residual stream before it.
    var predecessor: FiniteCheck.Part
    var preNorm: Norm?
    var attention: Attention?
    var scan: Scan?
    var feedForward: FeedForward?
    var downBias: UnsafePointer<Float>?  // [hiddenSize]
    var postNorm: Norm?
    var scale: Float
    /// As `BlockSpec.residualScale`.
    var residualScale: Float?
  }

  struct Attention {
    /// Among the layers that attend, by which keys and values are kept.
    var number: Int
    var query: Int  // [queryLength, hiddenSize] of its ``HeadShape``, twice as many rows with gates
    var key: Int  // [keyLength, hiddenSize]
    var value: Int  // [valuesLength, hiddenSize]
    var output: Int  // [hiddenSize, outputLength]
    var queryBias: UnsafePointer<Float>?
    var keyBias: UnsafePointer<Float>?
    var valueBias: UnsafePointer<Float>?
    var queryNorm: UnsafePointer<Float>?  // [headDim], or of the whole projection
    var keyNorm: UnsafePointer<Float>?  // as queryNorm
    var normalisesWhole: Bool
    var sinks: UnsafePointer<Float>?  // [queryHeadCount]
    var outputBias: UnsafePointer<Float>?  // [hiddenSize]
    var rope: AttentionSpec.RopeTable?
    var window: Int?
    var valueScale: Float
    var hasGate: Bool
  }

  struct Scan {
    var spec: ScanSpec
    /// Among the layers that scan, by which states are kept.
    var number: Int
    /// All inputs, or queries, keys and values, or queries, as `ScanSpec.inputs` says.
    var input: Int
    var inputBias: UnsafePointer<Float>?  // of as many elements as input has rows
    /// Keys and values, where they have matrices of their own.
    var key: Int?  // [keysLength, hiddenSize]
    var value: Int?  // [valuesLength, hiddenSize]
    /// z, where it has a matrix of its own.
    var gate: Int?
    /// nil where the input has it.
    var beta: Int?  // [2 * valueHeadCount, hiddenSize], or without α [valueHeadCount, hiddenSize]
    var alpha: Int?  // [valueHeadCount, hiddenSize], or of decays of keys [decayRank, hiddenSize]
    var taps: UnsafePointer<Float>?  // [channelCount, tapCount]
    var tapBias: UnsafePointer<Float>?  // [channelCount]
    var decayFactor: UnsafePointer<Float>?  // [keysLength, decayRank]
    /// nil where decays depend on no token.
    var timeBias: UnsafePointer<Float>?  // [valueHeadCount], or of decays of keys [keysLength]
    /// nil of a convolution alone, and where each key has its decay.
    var decay: UnsafePointer<Float>?  // [valueHeadCount]
    var skip: UnsafePointer<Float>?  // [valueHeadCount], of Mamba-2
    /// Of Mamba-2 and lightning attention [valuesLength].
    var norm: UnsafePointer<Float>?  // [valueLength]
    var output: Int  // [hiddenSize, valuesLength]
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

  /// down(activation(gate(x)) * up(x)), or without gate down(activation(up(x) + upBias))
  struct GatedMatrices {
    var gate: Int?  // [feedForwardLength, hiddenSize]
    var up: Int  // as gate
    var length: Int
    var upBias: UnsafePointer<Float>?  // [feedForwardLength]
    var down: Int  // [hiddenSize, feedForwardLength]
  }

  struct Experts {
    var router: Int  // [expertCount, hiddenSize]
    /// Number in ``DecoderWeights/families``.
    var family: Int
    var routerBias: UnsafePointer<Float>?  // [expertCount]
    var selectionBias: UnsafePointer<Float>?  // [expertCount]
    var shared: GatedMatrices?
    var sharedGate: UnsafePointer<Float>?  // [hiddenSize]
    var biases: Biases?

    /// Of every expert.
    struct Biases: BitwiseCopyable {
      var gate: UnsafePointer<Float>  // [expertCount, feedForwardLength]
      var up: UnsafePointer<Float>  // as gate
      var down: UnsafePointer<Float>  // [expertCount, hiddenSize]
    }
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

  /// What joins embeddings and hidden states: [hiddenSize, 2 * hiddenSize] and the norms in front of it.
  struct Join {
    var embeddingNorm: Norm
    var stateNorm: Norm
    var matrix: Int
  }

  /// nil where embeddings alone go into the first layer.
  let join: Join?
  /// Of all layers, in their order.
  let blocks: [Block]
  /// Of each layer that attends; also in its block.
  let attentions: [Attention]
  /// Of each layer that scans; also in its block.
  let scans: [Scan]
  /// Experts of each layer that has some: gate, up, down.
  let families: [BundleFamily]
  let outputNorm: Norm
  /// Embedding table [vocabularyCount, hiddenSize].
  let embedding: Int
  /// Learned positions [positionOffset + contextLength, hiddenSize]; nil = RoPE.
  let positions: Int?
  /// Output head of the same shape; the embedding table itself where they are tied.
  let head: Int
  /// What is to be named where the last block's output is not finite.
  var lastPart: FiniteCheck.Part { blocks.last?.part ?? .embedding }
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
    do {
      vectors = try AlignedBuffer(byteCount: max(4, Self.vectorByteCount(source.description)))
    } catch { throw .allocation(error) }
    var loader = VectorLoader(source: source, memory: vectors.address)
    var builder = BlockBuilder(
      index: index, selector: selector, first: configuration.joinsStates ? .join : .embedding)
    join = try configuration.joinTensors.map { tensors throws(RuntimeError) in
      Join(
        embeddingNorm: try builder.norm(tensors.embeddingNorm, &loader),
        stateNorm: try builder.norm(tensors.stateNorm, &loader),
        matrix: try index.require(tensors.matrix.weight.name))
    }
    for layer in 0..<configuration.layerCount {
      let tensors = configuration.blockTensors(ofLayer: layer, neurons: index.neurons)
      for block in tensors { try builder.append(block, layer: layer, &loader) }
    }
    blocks = builder.blocks
    attentions = builder.blocks.compactMap(\.attention)
    scans = builder.blocks.compactMap(\.scan)
    outputNorm = try builder.norm(configuration.outputNormTensors, &loader)
    let factorsName = configuration.ropeFactorsName(contextLength: contextLength)
    ropeFactors = try index.find(factorsName).map { tensor throws(RuntimeError) in
      try loader.place(tensor)
    }
    factors = try source.description.tensors.map { tensor throws(RuntimeError) in
      guard let name = TensorRecord.factorName(ofWeight: tensor.name) else { return nil }
      return try index.find(name).map { number throws(RuntimeError) in try loader.place(number) }
    }
    embedding = try index.require(DecoderConfiguration.embeddingName)
    positions =
      configuration.positionOffset == nil
      ? nil : try index.require(DecoderConfiguration.positionsName)
    head = try index.require(configuration.outputHeadName)
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
    if let join = configuration.joinTensors {
      body.append(try index.require(join.matrix.weight.name))
    }
    for layer in 0..<configuration.layerCount {
      for block in configuration.blockTensors(ofLayer: layer, neurons: index.neurons) {
        for branch in block.branches {
          for tensor in branch.products(selector) { body.append(try index.require(tensor.name)) }
        }
      }
    }
    let head = try index.require(configuration.outputHeadName)
    return StreamOrder(segments: [body, [head]])
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
    var families: [BundleFamily] = []
    for layer in 0..<configuration.layerCount {
      for block in configuration.blockTensors(ofLayer: layer, neurons: index.neurons) {
        for case .experts(let experts) in block.branches {
          let tensors = try experts.parts.map { part throws(RuntimeError) in
            try index.require(part.name)
          }
          families.append(
            BundleFamily(
              tensors: tensors, of: source.description, alignment: source.readAlignment))
        }
      }
    }
    return families
  }

  /// Memory that ``init(source:configuration:selector:)`` takes for the vectors.
  static func vectorByteCount(_ model: ModelDescription) -> Int {
    model.tensors.reduce(0) { sum, tensor in
      tensor.rowCount == 1 ? sum + (tensor.columnCount * 4 + 63) & ~63 : sum
    }
  }
}
