/// Llama 2 and 3, Mistral, SmolLM2 and whatever else ggml files as `llama`.
///
/// GGUF files hold query and key rows permuted, so that RoPE rotates neighbours. Llama 3's RoPE scaling
/// arrives as the tensor `rope_freqs.weight`.
enum Llama: Architecture {
  static let name = "llama"

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .adjacent)
    if let window = try parameters.integer("attention.sliding_window"), window > 0 {
      // Mistral: every layer slides.
      guard configuration.ropeLinearScale == 1 else {
        throw parameters.unsupported(
          "attention.sliding_window", "not supported together with RoPE scaling")
      }
      configuration.slidingWindow = window
      configuration.slidingLayers = Array(repeating: true, count: configuration.layerCount)
    }
    return configuration
  }
}
