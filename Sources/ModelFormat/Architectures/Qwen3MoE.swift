/// Qwen 3 with experts: heads normalised as in Qwen 3, weights normalised, no shared expert.
enum Qwen3MoE: Architecture {
  static let name = "qwen3moe"

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves, mayHaveExperts: true)
    try parameters.refuseSlidingWindow()
    configuration.normalisesHeads = true
    configuration.experts = try parameters.requiredExperts(
      configuration, normalisesWeights: true, dividesLength: true)
    return configuration
  }
}
