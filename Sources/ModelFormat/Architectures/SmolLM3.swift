/// SmolLM 3: llama, in which every fourth layer does not know positions.
enum SmolLM3: Architecture {
  static let name = "smollm3"
  static let huggingFaceNames = ["SmolLM3ForCausalLM"]

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .adjacent)
    try parameters.refuseSlidingWindow()
    // GGUF files do not say which.
    for layer in configuration.layers.indices where layer % 4 == 3 {
      configuration.layers[layer].attention?.rope = nil
    }
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(
      keyValueHeadCount: 4, ropeBase: 2_000_000, tiesOutput: true)
    let rope = try HuggingFaceRope(parameters, defaultBase: defaults.ropeBase)
    var decoder = try parameters.commonConfiguration(defaults, rope: rope)
    try parameters.refuseSlidingLayers()
    let interval = try parameters.integer("no_rope_layer_interval") ?? 4
    guard interval > 0 else {
      throw parameters.unsupported("no_rope_layer_interval", "an interval of \(interval)")
    }
    // 1 = a layer has RoPE.
    let stated = parameters.config["no_rope_layers"]
    let flags = stated?.array?.map { $0.integer == 1 }
    if let stated, flags?.count != decoder.layerCount {
      throw parameters.error(
        .malformed, stated, "no_rope_layers is not a list of \(decoder.layerCount) numbers")
    }
    for layer in decoder.layers.indices {
      let rotates = flags?[layer] ?? ((layer + 1) % interval != 0)
      if !rotates { decoder.layers[layer].attention?.rope = nil }
    }
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }
}
