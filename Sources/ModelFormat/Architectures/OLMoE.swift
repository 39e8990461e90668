/// OLMoE: queries and keys normalised as a whole, weights not normalised, RoPE over halves.
enum OLMoE: Architecture {
  static let name = "olmoe"

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves, mayHaveExperts: true)
    try parameters.refuseSlidingWindow()
    configuration.normalisesProjections = true
    configuration.experts = try parameters.requiredExperts(
      configuration, normalisesWeights: false)
    return configuration
  }
}
