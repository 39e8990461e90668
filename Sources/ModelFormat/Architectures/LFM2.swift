/// LFM 2: layers with a short convolution between gates, and some that attend, with RMSNorm on heads.
enum LFM2: Architecture {
  static let name = "lfm2"
  static let huggingFaceNames = ["Lfm2ForCausalLM", "LFM2ForCausalLM"]
  static let ggufLayerNames = [
    "shortconv.in_proj": "ssm_in", "shortconv.conv": "ssm_conv1d",
    "shortconv.out_proj": "ssm_out", "token_embd_norm.weight": "output_norm.weight",
  ]
  static let huggingFaceLayerNames = [
    "operator_norm": "attn_norm", "ffn_norm": "ffn_norm", "conv.in_proj": "ssm_in",
    "conv.conv": "ssm_conv1d", "conv.out_proj": "ssm_out", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_output", "self_attn.q_layernorm": "attn_q_norm",
    "self_attn.k_layernorm": "attn_k_norm", "feed_forward.w1": "ffn_gate",
    "feed_forward.w3": "ffn_up", "feed_forward.w2": "ffn_down",
  ]

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves, hasScans: true)
    try configuration.placeConvolutions(parameters)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let adjusts = try parameters.bool("block_auto_adjust_ff_dim") ?? true
    var configuration = try parameters.convolving(mayHaveExperts: false)
    configuration.decoder.feedForwardLength = try length(
      try parameters.integer("block_ff_dim") ?? configuration.decoder.feedForwardLength,
      adjusts: adjusts, parameters)
    try configuration.decoder.validate(path: parameters.path)
    return configuration
  }

  /// Width of the FFN, as transformers computes it of what is stated.
  private static func length(
    _ stated: Int, adjusts: Bool, _ parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> Int {
    guard adjusts, (1...DecoderConfiguration.feedForwardLengthLimit).contains(stated) else {
      return stated
    }
    let key: StaticString = "block_ffn_dim_multiplier"
    let part = 2 * stated / 3
    let isNull = parameters.config.members?.contains {
      $0.key == "block_ffn_dim_multiplier" && $0.value.isNull
    }
    guard isNull != true else { return part }
    let factor = try parameters.double(key) ?? 1
    let unit = try parameters.integer("block_multiple_of") ?? 256
    guard factor > 0, factor <= 1024, (1...1 << 20).contains(unit) else {
      throw parameters.unsupported(key, "\(factor), in multiples of \(unit)")
    }
    return (Int(factor * Double(part)) + unit - 1) / unit * unit
  }
}

/// LFM 2 with experts, which a sigmoid scores and a bias helps to choose, after dense layers.
enum LFM2MoE: Architecture {
  static let name = "lfm2moe"
  static let huggingFaceNames = ["Lfm2MoeForCausalLM"]
  static let ggufLayerNames = LFM2.ggufLayerNames
  static var huggingFaceLayerNames: [String: String] {
    expertNames(block: "feed_forward", gate: "w1", up: "w3", down: "w2")
      .merging(LFM2.huggingFaceLayerNames) { _, new in new }
      .merging(["feed_forward.expert_bias": "exp_probs_b.bias"]) { _, new in new }
  }

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(
      pairing: .halves, mayHaveExperts: true, hasScans: true)
    let experts = try parameters.requiredExperts(
      configuration, normalisesWeights: true, routing: .biasedSigmoid)
    try configuration.place(
      experts, after: parameters.integer("leading_dense_block_count") ?? 0,
      path: parameters.metadata.file.path)
    try configuration.placeConvolutions(parameters)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    var configuration = try parameters.convolving(mayHaveExperts: true)
    var routing = ExpertRouting.biasedSigmoid
    routing.hasSelectionBias = try parameters.bool("use_expert_bias") ?? true
    let experts = try parameters.experts(
      .init(
        expertCount: 32, expertsPerToken: 4, length: 1792, normalisesWeights: true,
        routing: routing))
    try configuration.decoder.place(
      experts, after: parameters.integer("num_dense_layers") ?? 2, path: parameters.path)
    try configuration.decoder.validate(path: parameters.path)
    return configuration
  }
}

extension DecoderConfiguration {
  /// Has layers that a GGUF file gives no KV heads convolve, and norms the heads of the others.
  fileprivate mutating func placeConvolutions(
    _ parameters: GGUFHyperparameters
  ) throws(FormatError) {
    let key = parameters.key("attention.head_count_kv")
    let found = try parameters.metadata.integersOrZeros(key, count: layerCount)
    place(
      convolutions: found?.areZero ?? [], tapCount: try parameters.required("shortconv.l_cache"))
    try validate(path: parameters.metadata.file.path)
  }

  fileprivate mutating func place(convolutions: [Bool], tapCount: Int) {
    let convolution = ScanSpec.gatedConvolution(width: hiddenSize, tapCount: tapCount)
    for (layer, convolves) in convolutions.enumerated() where convolves {
      layers[layer].scan = convolution
    }
    editLayers { $0.attention?.headNorm = .heads }
  }
}

extension HuggingFaceHyperparameters {
  /// What both families' folders say.
  fileprivate func convolving(
    mayHaveExperts: Bool
  ) throws(FormatError) -> HuggingFaceConfiguration {
    if try bool("conv_bias") == true {
      throw unsupported("conv_bias", "biases on convolutions are not supported")
    }
    let defaults = Defaults(
      keyValueHeadCount: 8, contextLength: 128_000, normEpsilonKey: "norm_eps", normEpsilon: 1e-5,
      ropeBase: 1_000_000, tiesOutput: try bool("tie_embedding") ?? true)
    let rope = try HuggingFaceRope(self, defaultBase: defaults.ropeBase)
    var decoder = try commonConfiguration(defaults, rope: rope, mayHaveExperts: mayHaveExperts)
    var attends = Array(repeating: true, count: decoder.layerCount)
    if let types = config["layer_types"] {
      attends = types.array?.map { $0.string != "conv" } ?? []
      guard attends.count == decoder.layerCount else {
        throw error(
          .malformed, types, "layer_types has \(attends.count) entries, not \(decoder.layerCount)")
      }
    } else if let numbers = config["full_attn_idxs"]?.array {
      attends = decoder.layers.indices.map { layer in numbers.contains { $0.integer == layer } }
    }
    decoder.place(
      convolutions: attends.map { !$0 }, tapCount: try required("conv_L_cache", default: 3))
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }
}
