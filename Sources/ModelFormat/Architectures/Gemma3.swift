/// Gemma 3 (text): sandwich norms, normalised heads, sliding windows, two RoPE bases, scaled embeddings.
///
/// GGUF files store norm weights with Gemma's "+1" folded in, Hugging Face files without it.
enum Gemma3: Architecture {
  static let name = "gemma3"
  static let huggingFaceNames = ["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"]
  static let huggingFaceNormsAreFromOne = true
  /// Five sliding layers, then one that sees everything.
  static let slidingPattern = 6
  static let slidingRopeBase = 10000.0
  /// The 27B model, alone in scaling scores by its width per head.
  static let largestLayerCount = 62

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves)
    configuration.ropeBase = try parameters.float("rope.freq_base") ?? 1_000_000
    if let window = try parameters.integer("attention.sliding_window"), window > 0 {
      configuration.slide(
        try parameters.slidingLayers(
          layerCount: configuration.layerCount, usualPeriod: slidingPattern),
        window: window)
      configuration.slidingRopeBase =
        try parameters.float("rope.freq_base_swa") ?? slidingRopeBase
    }
    adjust(&configuration)
    return configuration
  }

  /// What follows from the family and the shape, whatever the file format.
  static func adjust(_ configuration: inout DecoderConfiguration) {
    configuration.activation = .geluTanh
    configuration.editLayers { $0.attention?.headNorm = .heads }
    configuration.addPostNorms()
    configuration.embeddingScale = Float(configuration.hiddenSize).squareRoot()
    if configuration.layerCount == largestLayerCount {
      let width = Double(configuration.hiddenSize) / Double(configuration.queryHeadCount)
      configuration.attentionScale = Float(1 / width.squareRoot())
    }
  }

  static var huggingFaceLayerNames: [String: String] {
    let sandwich = [
      "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
      "post_feedforward_layernorm": "post_ffw_norm",
    ]
    return denseHuggingFaceLayerNames.merging(sandwich) { _, new in new }
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(
      queryHeadCount: 8, keyValueHeadCount: 4, headDim: 256, contextLength: 131072,
      ropeBase: 1_000_000, activationKey: "hidden_activation", activation: "gelu_pytorch_tanh",
      tiesOutput: true)
    let rope = try HuggingFaceRope(parameters, defaultBase: defaults.ropeBase)
    let slidingRope = try HuggingFaceRope(
      parameters, layerType: "sliding_attention", baseKey: "rope_local_base_freq",
      defaultBase: slidingRopeBase, isScaled: false)
    guard rope.scaling.isLinear, slidingRope.scaling.isLinear,
      slidingRope.scaling.linearScale == 1
    else {
      throw parameters.unsupported("rope_parameters", "this scaling is not supported in gemma3")
    }
    var decoder = try parameters.commonConfiguration(defaults, rope: rope)
    let activation = decoder.activation
    adjust(&decoder)
    decoder.activation = activation
    decoder.slidingRopeBase = slidingRope.base
    decoder.slide(
      try slidingLayers(parameters, decoder.layerCount),
      window: try parameters.integer("sliding_window") ?? 4096)
    let scalar = try parameters.double("query_pre_attn_scalar") ?? 256
    decoder.attentionScale = Float(1 / scalar.squareRoot())
    try decoder.validate(path: parameters.path)
    return HuggingFaceConfiguration(decoder: decoder)
  }

  private static func slidingLayers(
    _ parameters: HuggingFaceHyperparameters, _ layerCount: Int
  ) throws(FormatError) -> [Bool] {
    if let layers = try parameters.slidingLayers(layerCount: layerCount) { return layers }
    // Configurations converted by transformers may keep the key under a private name.
    let converted = try parameters.integer("_sliding_window_pattern")
    let period = try parameters.integer("sliding_window_pattern") ?? converted ?? slidingPattern
    guard period > 0 else {
      throw parameters.unsupported("sliding_window_pattern", "a period of \(period)")
    }
    return DecoderConfiguration.slidingLayers(layerCount: layerCount, period: period)
  }
}
