/// Shape and arithmetic of a decoder-only transformer, in the terms of its graph.
///
/// Families differ only in these values: reading a family's file is what fills them in
/// (`Architectures/`), running it needs nothing else.
public struct DecoderConfiguration: Sendable, Codable, Equatable {
  /// ggml's architecture name: `llama`, `phi3`, `qwen2`, `qwen2moe`, `qwen3`, `qwen3moe`, `olmoe`,
  /// `gemma3`, `opt`.
  public var architecture: String
  public var layerCount: Int
  /// Width of the residual stream.
  public var hiddenSize: Int
  /// Width of a dense FFN; where there are ``experts`` no layer has one, and this is what the file says.
  public var feedForwardLength: Int
  public var queryHeadCount: Int
  public var keyValueHeadCount: Int
  /// Elements of one query, key or value head.
  public var headDim: Int
  public var vocabularyCount: Int
  /// Positions the model was trained for.
  public var contextLength: Int
  /// Added to the mean square in RMSNorm, to the variance in LayerNorm.
  public var normEpsilon: Float

  /// Which elements of a head RoPE rotates together.
  public var ropePairing: RopePairing
  /// Leading elements of a head that RoPE rotates.
  public var ropeDimensionCount: Int
  /// Base of RoPE's frequencies on layers that see the whole context.
  public var ropeBase: Double
  /// Positions are divided by this (linear scaling); 1 = unscaled. Not applied on layers with ``slidingRopeBase``.
  public var ropeLinearScale: Double
  /// The same base for sliding-window layers; nil = ``ropeBase``.
  public var slidingRopeBase: Double?

  /// Positions a sliding-window layer sees, its own included; nil if no layer slides.
  public var slidingWindow: Int?
  /// For each layer whether it slides; empty = none does.
  public var slidingLayers: [Bool]

  /// The gate's activation; without gate up's, and then ReLU.
  public var activation: Activation
  /// Factor on embedding rows.
  public var embeddingScale: Float
  /// Factor on attention scores.
  public var attentionScale: Float
  /// RMSNorm on each query and key head before RoPE (`attn_q_norm`, `attn_k_norm`).
  public var normalisesHeads: Bool
  /// RMSNorm on what attention and FFN add to the residual stream (`post_attention_norm`,
  /// `post_ffw_norm`).
  public var normalisesOutputs: Bool
  /// Biases on the query, key and value projections.
  public var hasQueryKeyValueBias: Bool
  /// The output head is the embedding table.
  public var tiesOutput: Bool
  /// Experts in place of every layer's FFN; nil in a dense model.
  public var experts: ExpertConfiguration?
  /// ``normalisesProjections`` as headers state it: missing = false.
  private var statedProjectionNorms: Bool?

  /// RMSNorm on the whole query and key projections before RoPE (`attn_q_norm`, `attn_k_norm`), not
  /// head by head as in ``normalisesHeads``.
  public var normalisesProjections: Bool {
    get { statedProjectionNorms ?? false }
    set { statedProjectionNorms = newValue ? true : nil }
  }

  /// Row of `position_embd.weight` that is added to the embedding at position 0, where positions are
  /// learned; nil = RoPE. The table has ``contextLength`` rows from there on: no context is longer.
  public var positionOffset: Int?
  /// ``ropeMagnitude`` as headers state it: missing = 1.
  private var statedRopeMagnitude: Float?
  /// The longest context that uses RoPE's short factors; nil = all contexts use the same.
  ///
  /// Up to it RoPE's frequencies are divided by `rope_factors_short.weight`, in longer ones by
  /// `rope_factors_long.weight`.
  public var shortContextLength: Int?

  /// Factor on RoPE's cosines and sines ("attention factor").
  public var ropeMagnitude: Float {
    get { statedRopeMagnitude ?? 1 }
    set { statedRopeMagnitude = newValue == 1 ? nil : newValue }
  }

  /// The tensor that divides RoPE's frequencies in a context of that length; optional unless there are two.
  public func ropeFactorsName(contextLength: Int) -> String {
    guard let shortContextLength else { return RopeScaling.factorsName }
    return contextLength <= shortContextLength
      ? RopeScaling.shortFactorsName : RopeScaling.longFactorsName
  }

  /// ``isGated`` as headers state it: missing = true.
  private var statedGate: Bool?
  /// ``normKind`` as headers state it: missing = RMSNorm.
  private var statedNormKind: NormKind?
  /// ``hasProjectionBiases`` as headers state it: missing = false.
  private var statedProjectionBiases: Bool?

  /// Whether the FFN is down(activation(gate(x)) * up(x)); without gate it is
  /// down(activation(up(x))).
  public var isGated: Bool {
    get { statedGate ?? true }
    set { statedGate = newValue ? nil : false }
  }

  /// The norm in front of attention, FFN and output head.
  public var normKind: NormKind {
    get { statedNormKind ?? .rms }
    set { statedNormKind = newValue == .rms ? nil : newValue }
  }

  /// Biases on attention's output projection and on an ungated FFN's (`attn_output`, `ffn_up`,
  /// `ffn_down`).
  public var hasProjectionBiases: Bool {
    get { statedProjectionBiases ?? false }
    set { statedProjectionBiases = newValue ? true : nil }
  }

  private enum CodingKeys: String, CodingKey {
    case architecture, layerCount, feedForwardLength, queryHeadCount
    case hiddenSize = "embeddingLength"
    case headDim = "headLength"
    case keyValueHeadCount, vocabularyCount, contextLength, normEpsilon, ropePairing
    case ropeDimensionCount, ropeBase, ropeLinearScale, slidingRopeBase, slidingWindow
    case slidingLayers, activation, embeddingScale, attentionScale, normalisesHeads
    case normalisesOutputs, hasQueryKeyValueBias, tiesOutput, experts
    case positionOffset, shortContextLength
    case statedRopeMagnitude = "ropeMagnitude"
    case statedProjectionNorms = "normalisesProjections"
    case statedGate = "isGated"
    case statedNormKind = "normKind"
    case statedProjectionBiases = "hasProjectionBiases"
  }

  public enum RopePairing: String, Sendable, Codable {
    /// x[2i] with x[2i+1]: GGUF files of llama.
    case adjacent
    /// x[i] with x[i + half]: everything else.
    case halves
  }

  public enum NormKind: String, Sendable, Codable {
    case rms
    /// LayerNorm, which also centres and adds a bias (`attn_norm.bias`, `ffn_norm.bias`,
    /// `output_norm.bias`).
    case layer
  }

  public enum Activation: String, Sendable, Codable {
    case silu
    /// GELU by its tanh formula.
    case geluTanh
    case relu
  }

  public init(
    architecture: String, layerCount: Int, hiddenSize: Int, feedForwardLength: Int,
    queryHeadCount: Int, keyValueHeadCount: Int, headDim: Int, vocabularyCount: Int,
    contextLength: Int, normEpsilon: Float, ropePairing: RopePairing, ropeDimensionCount: Int,
    ropeBase: Double, ropeLinearScale: Double = 1, slidingRopeBase: Double? = nil,
    slidingWindow: Int? = nil, slidingLayers: [Bool] = [], activation: Activation = .silu,
    embeddingScale: Float = 1, attentionScale: Float? = nil, normalisesHeads: Bool = false,
    normalisesProjections: Bool = false, normalisesOutputs: Bool = false,
    hasQueryKeyValueBias: Bool = false, tiesOutput: Bool, experts: ExpertConfiguration? = nil,
    isGated: Bool = true, normKind: NormKind = .rms, hasProjectionBiases: Bool = false,
    positionOffset: Int? = nil
  ) {
    self.architecture = architecture
    self.layerCount = layerCount
    self.hiddenSize = hiddenSize
    self.feedForwardLength = feedForwardLength
    self.queryHeadCount = queryHeadCount
    self.keyValueHeadCount = keyValueHeadCount
    self.headDim = headDim
    self.vocabularyCount = vocabularyCount
    self.contextLength = contextLength
    self.normEpsilon = normEpsilon
    self.ropePairing = ropePairing
    self.ropeDimensionCount = ropeDimensionCount
    self.ropeBase = ropeBase
    self.ropeLinearScale = ropeLinearScale
    self.slidingRopeBase = slidingRopeBase
    self.slidingWindow = slidingWindow
    self.slidingLayers = slidingLayers
    self.activation = activation
    self.embeddingScale = embeddingScale
    self.attentionScale = attentionScale ?? Float(1 / Double(headDim).squareRoot())
    self.normalisesHeads = normalisesHeads
    self.normalisesOutputs = normalisesOutputs
    self.hasQueryKeyValueBias = hasQueryKeyValueBias
    self.tiesOutput = tiesOutput
    self.experts = experts
    self.positionOffset = positionOffset
    statedProjectionNorms = normalisesProjections ? true : nil
    statedGate = isGated ? nil : false
    statedNormKind = normKind == .rms ? nil : normKind
    statedProjectionBiases = hasProjectionBiases ? true : nil
  }

  /// Elements that a head takes among keys and values: a multiple of 16, the last ones zeros.
  public var storedHeadDim: Int { (headDim + 15) / 16 * 16 }

  /// Whether `layer` attends through the sliding window.
  public func slides(layer: Int) -> Bool { slidingLayers.isEmpty ? false : slidingLayers[layer] }
}
