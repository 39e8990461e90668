/// Qwen 1.5 and 2 with experts: biases as in Qwen 2, a gated shared expert, weights not normalised.
///
/// A missing shared length is the dense one, as ggml has it.
enum Qwen2MoE: Architecture {
  static let name = "qwen2moe"

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves, mayHaveExperts: true)
    try parameters.refuseSlidingWindow()
    configuration.hasQueryKeyValueBias = true
    configuration.experts = try parameters.requiredExperts(
      configuration, normalisesWeights: false, dividesLength: true, sharesExpert: true)
    return configuration
  }
}
