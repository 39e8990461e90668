/// Shape and arithmetic of a decoder-only transformer, in the terms of its graph.
///
/// Families differ only in these values: reading a family's file is what fills them in
/// (`Architectures/`), running it needs nothing else. What the layers are made of stands in ``layers``.
public struct DecoderConfiguration: Sendable, Equatable {
  /// ggml's name of the architecture.
  ///
  /// It is one of `llama`, `phi3`, `qwen2`, `qwen2moe`, `qwen3`, `qwen3moe`, `olmoe`,
  /// `gemma2`, `gemma3`, `olmo2`, `granite`, `smollm3`, `command-r`, `glm4`, `gpt-oss`, `glm4moe`,
  /// `minimax-m2`, `qwen3next`, `qwen35`, `qwen35moe`,
  /// `granitehybrid`, `mamba2`, `nemotron_h`, `lfm2`, `lfm2moe`, `falcon-h1`, `minimax`, `gla`, `based`,
  /// `mimo2`, `openelm`, `opt`.
  public var architecture: String
  /// From the embedding to the output head.
  public var layers: [LayerSpec]
  /// Width of the residual stream.
  public var hiddenSize: Int
  /// Width of dense FFNs that state none; where no layer has one, what the file says, or 0.
  public var feedForwardLength: Int
  /// Query heads of layers that state none; where no layer attends, 1, and so are KV heads.
  public var queryHeadCount: Int
  /// KV heads of layers that state none.
  public var keyValueHeadCount: Int
  /// Elements of one query or key head, and of a value head of layers that state none.
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
  /// Positions are divided by this (linear scaling); 1 = unscaled. Not on layers with ``slidingRopeBase``.
  public var ropeLinearScale: Double
  /// The same base for layers with the other table, on which nothing is stretched; nil = both tables are the same.
  public var slidingRopeBase: Double?

  /// The gate's activation; without gate up's, and then ReLU.
  public var activation: Activation
  /// Factor on embedding rows.
  public var embeddingScale: Float
  /// Factor on attention scores.
  public var attentionScale: Float
  /// The norm in front of the output head.
  public var outputNorm: NormKind
  /// Attention scores become cap · tanh(score / cap); nil = they stay.
  public var attentionSoftCap: Float?
  /// Factor on logits.
  public var logitScale: Float = 1
  /// Logits, scaled, become cap · tanh(logit / cap); nil = they stay.
  public var logitSoftCap: Float?
  /// The output head is the embedding table.
  public var tiesOutput: Bool
  /// Row of `position_embd.weight` that is added to the embedding at position 0, where positions are
  /// learned; nil = RoPE. The table has ``contextLength`` rows from there on: no context is longer.
  public var positionOffset: Int?
  /// Whether a token's embedding is joined with a hidden state of another model: of a layer that predicts further tokens.
  public internal(set) var joinsStates = false
  /// Factor on RoPE's cosines and sines ("attention factor").
  public var ropeMagnitude: Float = 1
  /// The longest context that uses RoPE's short factors; nil = all contexts use the same.
  ///
  /// Up to it RoPE's frequencies are divided by `rope_factors_short.weight`, in longer ones by
  /// `rope_factors_long.weight`.
  public var shortContextLength: Int?

  /// The tensor that divides RoPE's frequencies in a context of that length; optional unless there are two.
  public func ropeFactorsName(contextLength: Int) -> String {
    guard let shortContextLength else { return RopeScaling.factorsName }
    return contextLength <= shortContextLength
      ? RopeScaling.shortFactorsName : RopeScaling.longFactorsName
  }

  public enum RopePairing: String, Sendable, Codable {
    /// x[2i] with x[2i+1]: GGUF files of llama.
    case adjacent
    /// x[i] with x[i + half]: everything else.
    case halves
  }

  public enum Activation: String, Sendable, Codable {
    case silu
    /// GELU by its tanh formula.
    case geluTanh
    case relu
    /// The square of ReLU.
    case reluSquared
    /// min(x, 7) · sigmoid(1.702 · min(x, 7)), times the other factor between −7 and 7, plus 1: gpt-oss.
    case clampedSwiGLU
  }

  /// - Parameter layerCount: at most `layerLimit`, layers as ``LayerSpec/usual``.
  public init(
    architecture: String, layerCount: Int, hiddenSize: Int, feedForwardLength: Int,
    queryHeadCount: Int, keyValueHeadCount: Int, headDim: Int, vocabularyCount: Int,
    contextLength: Int, normEpsilon: Float, ropePairing: RopePairing, ropeDimensionCount: Int,
    ropeBase: Double, ropeLinearScale: Double = 1, slidingRopeBase: Double? = nil,
    activation: Activation = .silu, embeddingScale: Float = 1, attentionScale: Float? = nil,
    tiesOutput: Bool, experts: ExpertConfiguration? = nil
  ) {
    self.architecture = architecture
    layers = Array(repeating: .usual, count: max(0, min(layerCount, Self.layerLimit)))
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
    self.activation = activation
    self.embeddingScale = embeddingScale
    self.attentionScale = attentionScale ?? Float(1 / Double(headDim).squareRoot())
    outputNorm = .rms
    self.tiesOutput = tiesOutput
    self.experts = experts
  }
}

// MARK: - Of the layers

extension DecoderConfiguration {
  public var layerCount: Int { layers.count }

  /// Changes every layer.
  public mutating func editLayers(_ change: (inout LayerSpec) -> Void) {
    for index in layers.indices { change(&layers[index]) }
  }

  /// Puts an RMSNorm behind each block.
  mutating func addPostNorms() {
    editLayers { layer in
      for block in layer.blocks.indices { layer.blocks[block].postNorm = .rms }
    }
  }

  /// For each layer whether it slides, of each `period` layers all but the last.
  static func slidingLayers(layerCount: Int, period: Int) -> [Bool] {
    (0..<layerCount).map { $0 % period < period - 1 }
  }

  /// Experts that all layers have which have any; nil in a dense model.
  ///
  /// Set, they take the place of every layer's FFN, and nil puts usual FFNs there.
  public var experts: ExpertConfiguration? {
    get { layers.lazy.compactMap(\.experts).first }
    set {
      guard newValue != nil || experts != nil else { return }
      editLayers {
        if let newValue { $0.experts = newValue } else { $0.feedForward = FeedForwardSpec() }
      }
    }
  }

  /// Puts experts in place of the FFNs of all layers but the first `denseCount`.
  ///
  /// - Throws: ``FormatError`` for more layers than there are, or where none is left.
  mutating func place(
    _ experts: ExpertConfiguration, after denseCount: Int, path: String?
  ) throws(FormatError) {
    guard (0..<layerCount).contains(denseCount) else {
      throw FormatError(
        .malformed, path: path,
        "\(denseCount) dense layers come first; 0 to \(layerCount - 1) of \(layerCount) are possible"
      )
    }
    for layer in denseCount..<layerCount { layers[layer].experts = experts }
  }

  /// Whether FFNs are down(activation(gate(x)) * up(x)); without gate they are down(activation(up(x))).
  public var isGated: Bool { layers.allSatisfy { $0.feedForward?.isGated ?? true } }

  /// Whether a layer has a dense FFN.
  var hasFeedForward: Bool { layers.contains { $0.feedForward != nil } }

  /// For each layer that attends how many positions a token sees; nil = all.
  public var windows: [Int?] { layers.compactMap(\.attention).map(\.window) }

  /// Scans of the layers that have one, in their order.
  public var scans: [ScanSpec] { layers.compactMap(\.scan) }

  /// Lets layers see only `window` positions.
  ///
  /// - Parameter slides: for each layer whether it does.
  mutating func slide(_ slides: [Bool], window: Int) {
    for (index, slides) in slides.enumerated() where slides {
      layers[index].attention?.window = window
      layers[index].attention?.rope = .sliding
    }
  }
}
