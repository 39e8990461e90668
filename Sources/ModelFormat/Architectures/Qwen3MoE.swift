/// Qwen 3 with experts: heads normalised as in Qwen 3, weights normalised, no shared expert; also the text
/// part of Qwen 3 VL, whose three kinds of positions are equal where there is only text.
enum Qwen3MoE: Architecture {
  static let name = "qwen3moe"
  static let visionName = "Qwen3VLMoeForConditionalGeneration"
  static let ggufNames = [name, "qwen3vlmoe"]
  static let huggingFaceNames = ["Qwen3MoeForCausalLM", visionName]
  static var huggingFaceLayerNames: [String: String] { expertNames() }

  static func huggingFaceExpertLayout(_ name: String) -> FusedTensors.ExpertLayout {
    name == visionName ? .columns : .rows
  }

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves, mayHaveExperts: true)
    try parameters.refuseSlidingWindow()
    configuration.editLayers { $0.attention?.headNorm = .heads }
    configuration.experts = try parameters.requiredExperts(
      configuration, normalisesWeights: true, dividesLength: true)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(keyValueHeadCount: 4)
    let rope = try HuggingFaceRope(parameters, defaultBase: defaults.ropeBase)
    var decoder = try parameters.commonConfiguration(defaults, rope: rope, mayHaveExperts: true)
    try parameters.refuseSlidingLayers()
    decoder.editLayers { $0.attention?.headNorm = .heads }
    decoder.experts = try parameters.experts(
      .init(
        expertCount: 128, expertsPerToken: 8, length: 768,
        normalisesWeights: parameters.name == visionName))
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }
}
