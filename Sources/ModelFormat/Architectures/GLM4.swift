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
    try parameters.refuseImagePositions()
    configuration.addPostNorms()
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
    decoder.addPostNorms()
    let hasBiases = try parameters.bool("attention_bias") ?? true
    decoder.editLayers { $0.attention?.hasBiases = hasBiases }
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }
}
