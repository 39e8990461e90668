public import TensorBasics

/// How an image holds the FFN of every layer in bundles of neurons, and what it knows of choosing them
/// (`docs/format.md`, section 6).
///
/// Row-column bundling: "LLM in a flash", arXiv:2312.11514, §3.2. Neuron *i* of an FFN is row *i* of gate
/// and up and column *i* of down.
public struct NeuronLayout: Sendable, Equatable {
  /// The bundles of each layer; all layers have equally long ones.
  public var layers: [NeuronBundles]
  /// Trained predictors, where the image has some.
  public var predictor: NeuronPredictor?
  /// Calibrated thresholds, where the image has some.
  public var thresholds: NeuronThresholds?

  public init(
    layers: [NeuronBundles], predictor: NeuronPredictor? = nil,
    thresholds: NeuronThresholds? = nil
  ) {
    self.layers = layers
    self.predictor = predictor
    self.thresholds = thresholds
  }
}

/// The bundles of one layer: equally long, one after the other in the order of their neurons.
public struct NeuronBundles: Sendable, Codable, Equatable {
  /// Neurons of a bundle: 1, or as many as a quant block of the down matrix has columns.
  public var neuronsPerBundle: Int
  public var bundleCount: Int
  /// File offset of bundle 0, a multiple of 4096.
  public var offset: Int
  /// Bytes from one bundle to the next, a multiple of 4096.
  public var byteStride: Int
  /// What a bundle holds, without gaps: up (in a gated FFN), down, and last what decides whether a
  /// neuron is active: gate, or up in an FFN without gate. So a reader that has the deciding matrix by
  /// itself reads all but the last part.
  public var parts: [Part]
  /// File offset of the layer's checksums, a multiple of 4096.
  ///
  /// For each bundle there are two 4-byte words: the low halves of XXH3-64 over the parts before the last, and over
  /// the last.
  public var checksumOffset: Int

  /// A matrix's share of a bundle.
  ///
  /// With one neuron a bundle it is one row of `hiddenSize` elements in the element type's plain
  /// order: a row of gate or up, or a column of down, quantised along its own length. With several it is
  /// row groups (`RowGroup`): `neuronsPerBundle` rows of gate or up, or all rows of down, of which it
  /// has `neuronsPerBundle` columns.
  public struct Part: Sendable, Codable, Equatable {
    public var role: Role
    public var type: ElementType
    /// Bytes in a bundle.
    public var byteCount: Int

    public init(role: Role, type: ElementType, byteCount: Int) {
      self.role = role
      self.type = type
      self.byteCount = byteCount
    }
  }

  public enum Role: String, Sendable, Codable, CaseIterable { case gate, up, down }

  public init(
    neuronsPerBundle: Int, bundleCount: Int, offset: Int, byteStride: Int, parts: [Part],
    checksumOffset: Int
  ) {
    self.neuronsPerBundle = neuronsPerBundle
    self.bundleCount = bundleCount
    self.offset = offset
    self.byteStride = byteStride
    self.parts = parts
    self.checksumOffset = checksumOffset
  }

  /// Bytes of a bundle without padding.
  public var byteCount: Int { parts.reduce(0) { $0 + $1.byteCount } }
  /// Bytes of a bundle without the deciding part and without padding.
  public var prefixByteCount: Int { byteCount - (parts.last?.byteCount ?? 0) }
  public var checksumByteCount: Int { bundleCount * 8 }

  /// The part of that role and where in a bundle it begins.
  public func part(_ role: Role) -> (part: Part, offset: Int)? {
    var offset = 0
    for part in parts {
      if part.role == role { return (part, offset) }
      offset += part.byteCount
    }
    return nil
  }
}

/// Low-rank predictors of active neurons (arXiv:2312.11514, §3.1).
///
/// Neuron *i* is predicted to be active if `(B (A x))[i] + bias[i] > 0`, x being the FFN's normalised input.
///
/// Layer *n* has the tensors `blk.n.ffn_predictor_a.weight` [rank, hiddenSize],
/// `blk.n.ffn_predictor_b.weight` [feedForwardLength, rank], `blk.n.ffn_predictor.bias`
/// [feedForwardLength].
public struct NeuronPredictor: Sendable, Codable, Equatable {
  /// Rank of each layer's predictor.
  public var ranks: [Int]
  /// Per layer, the share of active neurons that were predicted, on text it was not trained on.
  public var recalls: [Double]
  /// Per layer, the share of neurons that were predicted, and of those that were active.
  public var predictedFractions: [Double]
  public var activeFractions: [Double]

  public init(
    ranks: [Int], recalls: [Double], predictedFractions: [Double], activeFractions: [Double]
  ) {
    self.ranks = ranks
    self.recalls = recalls
    self.predictedFractions = predictedFractions
    self.activeFractions = activeFractions
  }
}

/// Per layer, the least |activation(gate)| of a neuron that is taken to be active.
///
/// Thresholds are calibrated so that `keptFraction` of neurons are active; skipping the others is an approximation.
public struct NeuronThresholds: Sendable, Codable, Equatable {
  public var values: [Float]
  public var keptFraction: Double

  public init(values: [Float], keptFraction: Double) {
    self.values = values
    self.keptFraction = keptFraction
  }
}
