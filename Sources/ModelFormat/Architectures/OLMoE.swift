/// OLMoE: queries and keys normalised as a whole, weights not normalised, RoPE over halves.
enum OLMoE: Architecture {
  static let name = "olmoe"
  static let huggingFaceNames = ["OlmoeForCausalLM"]
  static var huggingFaceLayerNames: [String: String] { expertNames() }

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves, mayHaveExperts: true)
    try parameters.refuseSlidingWindow()
    configuration.editLayers { $0.attention?.headNorm = .projection }
    configuration.experts = try parameters.requiredExperts(
      configuration, normalisesWeights: false)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(contextLength: 4096, normEpsilon: 1e-5)
    let rope = try HuggingFaceRope(parameters, defaultBase: defaults.ropeBase)
    var decoder = try parameters.commonConfiguration(defaults, rope: rope, mayHaveExperts: true)
    try parameters.refuseSlidingLayers()
    if parameters.config["clip_qkv"] != nil {
      throw parameters.unsupported("clip_qkv", "clipped projections are not supported")
    }
    decoder.editLayers { $0.attention?.headNorm = .projection }
    decoder.experts = try parameters.experts(
      .init(expertCount: 64, expertsPerToken: 8, lengthKey: "intermediate_size"))
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }
}
