/// Gemma 2: sandwich norms, scaled embeddings, caps on attention scores and logits, every other layer sliding.
///
/// GGUF files store norm weights with Gemma's "+1" folded in, Hugging Face files without it.
enum Gemma2: Architecture {
  static let name = "gemma2"
  static let huggingFaceNames = ["Gemma2ForCausalLM"]
  static let huggingFaceNormsAreFromOne = true
  static var huggingFaceLayerNames: [String: String] { Gemma3.huggingFaceLayerNames }
  /// The 27B model, alone in scaling scores by its width per head.
  private static let largestLayerCount = 46

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves, hasSoftCaps: true)
    adjust(&configuration)
    if configuration.layerCount == largestLayerCount {
      let width = Double(configuration.hiddenSize / configuration.queryHeadCount)
      configuration.attentionScale = Float(1 / width.squareRoot())
    }
    configuration.attentionSoftCap = Float(try parameters.scale("attn_logit_softcapping") ?? 50)
    configuration.logitSoftCap = Float(try parameters.scale("final_logit_softcapping") ?? 30)
    configuration.slide(
      try parameters.slidingLayers(layerCount: configuration.layerCount, usualPeriod: 2),
      window: try parameters.integer("attention.sliding_window") ?? 4096)
    try configuration.validate(path: parameters.metadata.file.path)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(
      queryHeadCount: 8, keyValueHeadCount: 4, headDim: 256, contextLength: 8192,
      activationKey: "hidden_activation", activation: "gelu_pytorch_tanh", tiesOutput: true)
    let rope = try HuggingFaceRope(parameters, defaultBase: defaults.ropeBase)
    var decoder = try parameters.commonConfiguration(defaults, rope: rope, hasSoftCaps: true)
    let activation = decoder.activation
    adjust(&decoder)
    decoder.activation = activation
    let scalar = try parameters.double("query_pre_attn_scalar") ?? 256
    decoder.attentionScale = Float(1 / scalar.squareRoot())
    decoder.attentionSoftCap = try parameters.softCap("attn_logit_softcapping", usual: 50)
    decoder.logitSoftCap = try parameters.softCap("final_logit_softcapping", usual: 30)
    decoder.slide(
      try parameters.slidingLayers(layerCount: decoder.layerCount, usualPeriod: 2),
      window: try parameters.integer("sliding_window") ?? 4096)
    try decoder.validate(path: parameters.path)
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }

  private static func adjust(_ configuration: inout DecoderConfiguration) {
    configuration.activation = .geluTanh
    configuration.embeddingScale = Float(configuration.hiddenSize).squareRoot()
    configuration.addPostNorms()
  }
}

extension HuggingFaceHyperparameters {
  /// A cap; null = none.
  fileprivate func softCap(_ key: StaticString, usual: Float) throws(FormatError) -> Float? {
    let isStated = config.members?.contains { $0.key == "\(key)" } ?? false
    return isStated ? try double(key).map { Float($0) } : usual
  }
}
