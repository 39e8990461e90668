/// Command R: one norm in front of attention and FFN, which stand side by side, and a factor on logits.
///
/// Its LayerNorm has no biases, which is one whose biases are zeros.
enum CommandR: Architecture {
  static let name = "command-r"
  static let huggingFaceNames = ["CohereForCausalLM"]

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(
      pairing: .adjacent, epsilonKey: "attention.layer_norm_epsilon", hasScales: true)
    try adjust(&configuration, logitScale: parameters.scale("logit_scale"))
    try configuration.validate(path: parameters.metadata.file.path)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(
      contextLength: 8192, normEpsilonKey: "layer_norm_eps", normEpsilon: 1e-5,
      ropeBase: 500_000, tiesOutput: true)
    let rope = try HuggingFaceRope(parameters, defaultBase: defaults.ropeBase)
    var decoder = try parameters.commonConfiguration(defaults, rope: rope, hasScales: true)
    if try parameters.bool("use_qk_norm") == true {
      throw parameters.unsupported("use_qk_norm", "LayerNorm on heads is not supported")
    }
    decoder.ropePairing = .adjacent
    try adjust(&decoder, logitScale: parameters.double("logit_scale") ?? 0.0625)
    try decoder.validate(path: parameters.path)
    return HuggingFaceConfiguration(
      decoder: decoder,
      derivedValues: rope.scaling.factors.merging(derivedValues(decoder)) { first, _ in first })
  }

  private static func adjust(_ configuration: inout DecoderConfiguration, logitScale: Double?) {
    configuration.logitScale = Float(logitScale ?? 1)
    configuration.outputNorm = .layer
    configuration.editLayers { layer in
      layer.blocks = [
        BlockSpec(preNorm: .layer, branches: layer.blocks.flatMap(\.branches))
      ]
    }
  }

  static func derivedValues(_ configuration: DecoderConfiguration) -> [String: [Float]] {
    let zeros = [Float](repeating: 0, count: configuration.hiddenSize)
    let norms = configuration.layers.indices.flatMap {
      configuration.blockTensors(ofLayer: $0, neurons: nil).compactMap(\.preNorm)
    }
    let biases = (norms + [configuration.outputNormTensors]).compactMap(\.bias)
    return Dictionary(uniqueKeysWithValues: biases.map { ($0.name, zeros) })
  }
}
