/// Qwen 3 (dense): RMSNorm on each query and key head, RoPE over halves; also the text part of Qwen 3 VL, whose three
/// kinds of positions are equal where there is only text.
enum Qwen3: Architecture {
  static let name = "qwen3"
  static let ggufNames = [name, "qwen3vl"]
  static let huggingFaceNames = ["Qwen3ForCausalLM", "Qwen3VLForConditionalGeneration"]

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves)
    try parameters.refuseSlidingWindow()
    configuration.editLayers { $0.attention?.headNorm = .heads }
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(keyValueHeadCount: 32, headDim: 128)
    let rope = try HuggingFaceRope(parameters, defaultBase: defaults.ropeBase)
    var decoder = try parameters.commonConfiguration(defaults, rope: rope)
    try parameters.refuseSlidingLayers()
    decoder.editLayers { $0.attention?.headNorm = .heads }
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }
}
