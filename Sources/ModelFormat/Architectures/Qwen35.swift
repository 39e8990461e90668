/// Qwen 3.5 and 3.6, dense and text only: Qwen 3 Next's layers with FFNs in place of experts. β and α have matrices of their own, and
/// GGUF files have value heads in another order: they take key heads in turn.
enum Qwen35: Architecture {
  static let name = "qwen35"
  static let huggingFaceNames = ["Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"]
  static let skipsPredictionLayers = true
  static let huggingFaceNormsAreFromOne = true
  static let ggufLayerNames = Qwen3Next.ggufLayerNames
  static var huggingFaceLayerNames: [String: String] {
    denseHuggingFaceLayerNames.merging(Qwen3Next.scanNames) { _, new in new }
  }

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves)
    try parameters.refuseSlidingWindow()
    try configuration.placeScans(parameters, inputs: .apart, takesKeysInTurn: true)
    try configuration.validate(path: parameters.metadata.file.path)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    try Qwen3Next.configuration(
      parameters, .init(queryHeadCount: 16, keyValueHeadCount: 4, headDim: 256), .apart)
  }
}

/// The same with experts beside a gated one that always runs.
enum Qwen35MoE: Architecture {
  static let name = "qwen35moe"
  static let huggingFaceNames = ["Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"]
  static let skipsPredictionLayers = true
  static let huggingFaceNormsAreFromOne = true
  static let ggufLayerNames = Qwen3Next.ggufLayerNames
  static var huggingFaceLayerNames: [String: String] {
    expertNames().merging(Qwen3Next.scanNames) { _, new in new }
  }

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves, mayHaveExperts: true)
    try parameters.refuseSlidingWindow()
    try configuration.placeScans(parameters, inputs: .apart, takesKeysInTurn: true)
    configuration.experts = try parameters.requiredExperts(
      configuration, normalisesWeights: true, dividesLength: true, sharesExpert: true)
    try configuration.validate(path: parameters.metadata.file.path)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    try Qwen3Next.configuration(
      parameters,
      .init(
        queryHeadCount: 16, keyValueHeadCount: 2, headDim: 256,
        feedForwardLengthKey: "moe_intermediate_size"), .apart,
      experts: .init(
        expertCount: 256, expertsPerToken: 8, length: 512, sharedLength: 512,
        normalisesWeights: true))
  }
}
