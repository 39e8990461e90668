/// gpt-oss: experts with biases and a clamped SwiGLU, a softmax over those that are chosen, sinks in every attention,
/// every other layer sliding.
///
/// Positions are stretched by YaRN on all layers. llama.cpp rounds where blending begins and ends, transformers does not
/// where the configuration says so, and each format is read as there.
enum GPTOSS: Architecture {
  static let name = "gpt-oss"
  static let huggingFaceNames = ["GptOssForCausalLM"]
  /// What llama.cpp calls the norm in front of the experts.
  static let ggufLayerNames = ["post_attention_norm": "ffn_norm"]
  static var huggingFaceLayerNames: [String: String] {
    denseHuggingFaceLayerNames.merging([
      "self_attn.sinks": "attn_sinks.weight", "mlp.router": "ffn_gate_inp",
      "mlp.experts.gate_up_proj": "ffn_gate_up_exps",
      "mlp.experts.gate_up_proj_bias": "ffn_gate_up_exps.bias",
      "mlp.experts.down_proj": "ffn_down_exps",
      "mlp.experts.down_proj_bias": "ffn_down_exps.bias",
    ]) { _, new in new }
  }

  static func huggingFaceExpertLayout(_ name: String) -> FusedTensors.ExpertLayout {
    .alternatingColumns
  }

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves, mayHaveExperts: true)
    let experts = try parameters.requiredExperts(configuration, normalisesWeights: true)
    try adjust(
      &configuration, experts, window: parameters.required("attention.sliding_window"),
      slides: parameters.slidingLayers(layerCount: configuration.layerCount, usualPeriod: 2))
    try configuration.validate(path: parameters.metadata.file.path)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(
      keyValueHeadCount: 8, headDim: 64, contextLength: 131072, normEpsilon: 1e-5,
      ropeBase: 150_000)
    let rope = try HuggingFaceRope(parameters, defaultBase: defaults.ropeBase)
    var decoder = try parameters.commonConfiguration(
      defaults, rope: rope, mayHaveExperts: true, mayHaveBiases: true)
    if try parameters.bool("attention_bias") == false {
      throw parameters.unsupported("attention_bias", "biases are always there in \(name)")
    }
    try parameters.refuse([("swiglu_alpha", 1.702), ("swiglu_limit", 7)])
    let experts = try parameters.experts(
      .init(
        expertCount: 128, expertsPerToken: 4, lengthKey: "intermediate_size",
        normalisesWeights: true))
    try adjust(
      &decoder, experts, window: parameters.integer("sliding_window") ?? 128,
      slides: parameters.slidingLayers(layerCount: decoder.layerCount, usualPeriod: 2))
    try decoder.validate(path: parameters.path)
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }

  private static func adjust(
    _ configuration: inout DecoderConfiguration, _ experts: ExpertConfiguration, window: Int,
    slides: [Bool]
  ) {
    var experts = experts
    experts.hasBiases = true
    experts.routing.hasBias = true
    configuration.activation = .clampedSwiGLU
    configuration.experts = experts
    configuration.editLayers { layer in
      layer.attention?.hasBiases = true
      layer.attention?.hasOutputBias = true
      layer.attention?.hasSinks = true
    }
    configuration.slide(slides, window: window)
  }
}
