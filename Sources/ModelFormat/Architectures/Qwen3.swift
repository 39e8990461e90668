/// Qwen 3 (dense): RMSNorm on each query and key head, RoPE over halves.
enum Qwen3: Architecture {
  static let name = "qwen3"

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves)
    try parameters.refuseSlidingWindow()
    configuration.normalisesHeads = true
    return configuration
  }
}
