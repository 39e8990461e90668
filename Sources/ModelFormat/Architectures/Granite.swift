/// Granite 3 and 4 (dense): llama with factors on embeddings, attention scores, what blocks add, and logits.
enum Granite: Architecture {
  static let name = "granite"
  static let huggingFaceNames = ["GraniteForCausalLM"]

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .adjacent, hasScales: true)
    try scale(
      &configuration, embedding: parameters.scale("embedding_scale"),
      residual: parameters.scale("residual_scale"), logitDivisor: parameters.scale("logit_scale"))
    try configuration.validate(path: parameters.metadata.file.path)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(contextLength: 2048)
    let rope = try HuggingFaceRope(parameters, defaultBase: defaults.ropeBase)
    var decoder = try parameters.commonConfiguration(defaults, rope: rope, hasScales: true)
    try parameters.refuseSlidingLayers()
    decoder.attentionScale = Float(try parameters.double("attention_multiplier") ?? 1)
    try scale(
      &decoder, embedding: parameters.double("embedding_multiplier"),
      residual: parameters.double("residual_multiplier"),
      logitDivisor: parameters.double("logits_scaling"))
    try decoder.validate(path: parameters.path)
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }

  /// What the family multiplies.
  static func scale(
    _ configuration: inout DecoderConfiguration, embedding: Double?, residual: Double?,
    logitDivisor: Double?
  ) {
    configuration.embeddingScale = Float(embedding ?? 1)
    configuration.logitScale = Float(1 / (logitDivisor ?? 1))
    configuration.editLayers { layer in
      for block in layer.blocks.indices { layer.blocks[block].scale = Float(residual ?? 1) }
    }
  }
}
