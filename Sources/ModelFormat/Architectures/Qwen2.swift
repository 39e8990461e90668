/// Qwen 2 and 2.5: llama with biases on query, key and value, RoPE over halves.
enum Qwen2: Architecture {
  static let name = "qwen2"

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves)
    try parameters.refuseSlidingWindow()
    configuration.hasQueryKeyValueBias = true
    return configuration
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
