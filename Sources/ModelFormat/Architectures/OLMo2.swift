/// OLMo 2 and 3: norms behind attention and FFN and none in front, queries and keys normalised as a whole.
///
/// In OLMo 3 three layers of four slide, with RoPE as it was before it was stretched.
enum OLMo2: Architecture {
  static let name = "olmo2"
  static let thirdName = "Olmo3ForCausalLM"
  static let huggingFaceNames = ["Olmo2ForCausalLM", thirdName]
  static let slidingPattern = 4
  static var huggingFaceLayerNames: [String: String] {
    denseHuggingFaceLayerNames.merging([
      "post_attention_layernorm": "post_attention_norm",
      "post_feedforward_layernorm": "post_ffw_norm",
    ]) { _, new in new }
  }

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves)
    adjust(&configuration)
    if let window = try parameters.integer("attention.sliding_window"), window > 0 {
      let slides = try parameters.slidingLayers(
        layerCount: configuration.layerCount, usualPeriod: slidingPattern)
      configuration.slide(slides, window: window)
      configuration.slidingRopeBase =
        try parameters.float("rope.freq_base_swa") ?? configuration.ropeBase
    }
    return configuration
  }

  private static func adjust(_ configuration: inout DecoderConfiguration) {
    configuration.editLayers { layer in
      layer.attention?.headNorm = .projection
      for block in layer.blocks.indices { layer.blocks[block].preNorm = nil }
    }
    configuration.addPostNorms()
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(
      contextLength: 2048, normEpsilon: 1e-5,
      ropeBase: parameters.name == thirdName ? 500_000 : 10000)
    let rope = try HuggingFaceRope(parameters, defaultBase: defaults.ropeBase)
    var decoder = try parameters.commonConfiguration(defaults, rope: rope)
    adjust(&decoder)
    if parameters.name == thirdName {
      let sliding = try HuggingFaceRope(
        parameters, layerType: "sliding_attention", defaultBase: rope.base, isScaled: false)
      let slides = try parameters.slidingLayers(
        layerCount: decoder.layerCount, usualPeriod: slidingPattern)
      decoder.slide(slides, window: try parameters.integer("sliding_window") ?? 4096)
      decoder.slidingRopeBase = sliding.base
    } else {
      try parameters.refuseSlidingLayers()
    }
    try decoder.validate(path: parameters.path)
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }
}
