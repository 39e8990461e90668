/// GLM 4 of April 2025 (dense): norms in front of blocks and behind them, biases on query, key and value, a part of
/// each head rotated.
enum GLM4: Architecture {
  static let name = "glm4"
  static let huggingFaceNames = ["Glm4ForCausalLM"]
  static var huggingFaceLayerNames: [String: String] {
    denseHuggingFaceLayerNames.merging([
      "post_self_attn_layernorm": "post_attention_norm", "post_mlp_layernorm": "post_ffw_norm",
    ]) { _, new in new }
  }

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .adjacent)
    try parameters.refuseSlidingWindow()
    let sections = "rope.dimension_sections"
    if parameters.metadata.entry(parameters.key(sections)) != nil {
      throw parameters.unsupported(sections, "positions of images are not supported in \(name)")
    }
    addNorms(&configuration)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(
      keyValueHeadCount: 2, headDim: 128, contextLength: 131072, normEpsilon: 1.5625e-7)
    let rope = try HuggingFaceRope(
      parameters, defaultBase: defaults.ropeBase, mayBePartial: true)
    var decoder = try parameters.commonConfiguration(defaults, rope: rope, mayHaveBiases: true)
    try parameters.refuseSlidingLayers()
    decoder.ropePairing = .adjacent
    addNorms(&decoder)
    let hasBiases = try parameters.bool("attention_bias") ?? true
    decoder.editLayers { $0.attention?.hasBiases = hasBiases }
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }

  private static func addNorms(_ configuration: inout DecoderConfiguration) {
    configuration.editLayers { layer in
      for block in layer.blocks.indices { layer.blocks[block].postNorm = .rms }
    }
  }
}
