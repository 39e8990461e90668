/// GLM 4.5 to 4.7: dense layers first, then experts that a sigmoid scores and a bias helps to choose, beside one that
/// always runs; a part of each head rotated, the larger models with RMSNorm on heads.
enum GLM4MoE: Architecture {
  static let name = "glm4moe"
  static let huggingFaceNames = ["Glm4MoeForCausalLM"]
  static let skipsPredictionLayers = true
  /// What llama.cpp calls the norm in front of the FFN.
  static let ggufLayerNames = ["post_attention_norm": "ffn_norm"]
  static var huggingFaceLayerNames: [String: String] {
    expertNames().merging([
      "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
      "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
      "mlp.shared_experts.up_proj": "ffn_up_shexp",
      "mlp.shared_experts.down_proj": "ffn_down_shexp",
    ]) { _, new in new }
  }

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves, mayHaveExperts: true)
    try parameters.refuseSlidingWindow()
    try parameters.refuseImagePositions()
    var experts = try parameters.requiredExperts(
      configuration, normalisesWeights: true, routing: .biasedSigmoid)
    let count = try parameters.integer("expert_shared_count") ?? 1
    experts.sharedFeedForwardLength = try GGUFHyperparameters.product(
      count, experts.feedForwardLength, path: parameters.metadata.file.path)
    try configuration.place(
      experts, after: parameters.integer("leading_dense_block_count") ?? 0,
      path: parameters.metadata.file.path)
    if parameters.hasTensor("blk.0.attn_q_norm.weight") {
      configuration.editLayers { $0.attention?.headNorm = .heads }
    }
    try configuration.validate(path: parameters.metadata.file.path)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(
      queryHeadCount: 96, keyValueHeadCount: 8, contextLength: 131072, normEpsilon: 1e-5)
    let rope = try HuggingFaceRope(
      parameters, defaultBase: defaults.ropeBase, mayBePartial: true, usualPart: 0.5)
    var decoder = try parameters.commonConfiguration(
      defaults, rope: rope, mayHaveExperts: true, mayHaveBiases: true)
    try parameters.refuseSlidingLayers()
    var experts = try parameters.experts(
      .init(
        expertCount: 128, expertsPerToken: 8, length: 1408, normalisesWeights: true,
        routing: .biasedSigmoid))
    experts.sharedFeedForwardLength = try GGUFHyperparameters.product(
      parameters.integer("n_shared_experts") ?? 1, experts.feedForwardLength, path: parameters.path)
    try decoder.place(
      experts, after: parameters.integer("first_k_dense_replace") ?? 1, path: parameters.path)
    let (hasBiases, hasNorms) = (
      try parameters.bool("attention_bias") ?? false, try parameters.bool("use_qk_norm") ?? false
    )
    decoder.editLayers {
      $0.attention?.hasBiases = hasBiases
      $0.attention?.headNorm = hasNorms ? .heads : nil
    }
    try decoder.validate(path: parameters.path)
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }
}
