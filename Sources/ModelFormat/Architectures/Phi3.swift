/// Phi 3, 3.5 and 4 (dense): llama over halves, with query, key and value in one tensor, and gate and up in
/// another; longer contexts by longrope.
enum Phi3: Architecture {
  static let name = "phi3"
  static let huggingFaceNames = ["Phi3ForCausalLM"]

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves)
    slide(&configuration, window: try parameters.integer("attention.sliding_window"))
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(contextLength: 4096, normEpsilon: 1e-5)
    let rope = try HuggingFaceRope(
      parameters, defaultBase: defaults.ropeBase, mayBePartial: true)
    var decoder = try parameters.commonConfiguration(defaults, rope: rope)
    try parameters.refuseSlidingLayers()
    slide(&decoder, window: try parameters.integer("sliding_window"))
    try decoder.validate(path: parameters.path)
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }

  /// Lets all layers slide, unless the window holds every context.
  private static func slide(_ configuration: inout DecoderConfiguration, window: Int?) {
    guard let window, window > 0, window < configuration.contextLength else { return }
    configuration.slide(Array(repeating: true, count: configuration.layerCount), window: window)
  }
}
