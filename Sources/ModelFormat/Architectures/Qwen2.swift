/// Qwen 2 and 2.5: llama with biases on query, key and value, RoPE over halves.
enum Qwen2: Architecture {
  static let name = "qwen2"
  static let huggingFaceNames = ["Qwen2ForCausalLM"]

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves)
    try parameters.refuseSlidingWindow()
    configuration.editLayers { $0.attention?.hasBiases = true }
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(keyValueHeadCount: 32)
    let rope = try HuggingFaceRope(parameters, defaultBase: defaults.ropeBase)
    var decoder = try parameters.commonConfiguration(defaults, rope: rope)
    try parameters.refuseSlidingLayers()
    decoder.editLayers { $0.attention?.hasBiases = true }
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }
}

extension GGUFHyperparameters {
  /// For families whose files may name a window that their graph does not have.
  func refuseSlidingWindow() throws(FormatError) {
    let suffix = "attention.sliding_window"
    if let window = try integer(suffix), window > 0 {
      throw unsupported(suffix, "a sliding window is not supported in \(architecture)")
    }
  }
}
