/// Qwen 1.5 and 2 with experts: biases as in Qwen 2, a gated shared expert, weights not normalised.
///
/// A missing shared length is the dense one, as ggml has it.
enum Qwen2MoE: Architecture {
  static let name = "qwen2moe"
  static let huggingFaceNames = ["Qwen2MoeForCausalLM"]
  static var huggingFaceLayerNames: [String: String] { expertNames() }

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves, mayHaveExperts: true)
    try parameters.refuseSlidingWindow()
    configuration.editLayers { $0.attention?.hasBiases = true }
    configuration.experts = try parameters.requiredExperts(
      configuration, normalisesWeights: false, dividesLength: true, sharesExpert: true)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(keyValueHeadCount: 16)
    let rope = try HuggingFaceRope(parameters, defaultBase: defaults.ropeBase)
    var decoder = try parameters.commonConfiguration(defaults, rope: rope, mayHaveExperts: true)
    try parameters.refuseSlidingLayers()
    if try parameters.bool("qkv_bias") == false {
      throw parameters.unsupported("qkv_bias", "biases are always there in \(name)")
    }
    decoder.editLayers { $0.attention?.hasBiases = true }
    decoder.experts = try parameters.experts(
      .init(expertCount: 60, expertsPerToken: 4, length: 1408, sharedLength: 5632))
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }
}
