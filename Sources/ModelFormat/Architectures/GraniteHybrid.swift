/// Granite 4 hybrids: Granite with layers of Mamba-2, and few that attend, without positions; dense, or with experts beside one that
/// always runs.
enum GraniteHybrid: Architecture {
  static let name = "granitehybrid"
  static let huggingFaceNames = ["GraniteMoeHybridForCausalLM"]
  static var huggingFaceLayerNames: [String: String] {
    let block = "block_sparse_moe"
    return expertNames(block: block).merging([
      "mamba.in_proj": "ssm_in", "mamba.conv1d": "ssm_conv1d", "mamba.dt_bias": "ssm_dt.bias",
      "mamba.A_log": "ssm_a", "mamba.D": "ssm_d", "mamba.norm": "ssm_norm",
      "mamba.out_proj": "ssm_out", "shared_mlp.input_linear": "ffn_gate_up_shexp",
      "shared_mlp.output_linear": "ffn_down_shexp", "\(block).router.layer": "ffn_gate_inp",
      "\(block).router": "ffn_gate_inp", "\(block).input_linear": "ffn_gate_up_exps",
      "\(block).output_linear": "ffn_down_exps",
    ]) { _, new in new }
  }

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(
      pairing: .adjacent, mayHaveExperts: true, hasScales: true, hasScans: true)
    let metadata = parameters.metadata
    let scans = try metadata.integersOrZeros(
      parameters.key("attention.head_count_kv"), count: configuration.layerCount)?.areZero
    if let scans, scans.contains(true) {
      place(
        try parameters.mamba2(seenIn: scans.firstIndex(of: true) ?? 0), scans, in: &configuration)
    }
    if try metadata.bool(parameters.key("rope.scaling.finetuned")) == false {
      configuration.editLayers { $0.attention?.rope = nil }
    }
    if try parameters.integer("expert_count") ?? 0 > 0 {
      var experts = try parameters.requiredExperts(
        configuration, normalisesWeights: true, routing: ExpertRouting())
      experts.sharedFeedForwardLength = try parameters.integer("expert_shared_feed_forward_length")
      configuration.experts = experts
    }
    try Granite.scale(
      &configuration, embedding: parameters.scale("embedding_scale"),
      residual: parameters.scale("residual_scale"), logitDivisor: parameters.scale("logit_scale"))
    try configuration.validate(path: metadata.file.path)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(
      contextLength: 2048, feedForwardLengthKey: "shared_intermediate_size")
    let rope = try HuggingFaceRope(parameters, defaultBase: defaults.ropeBase)
    var decoder = try parameters.commonConfiguration(
      defaults, rope: rope, mayHaveExperts: true, hasScales: true)
    let expand = try parameters.required("mamba_expand", default: 2)
    guard (1...1 << 10).contains(expand) else {
      throw parameters.unsupported("mamba_expand", "\(expand)")
    }
    let scan = try parameters.mamba2(
      .init(
        heads: ("mamba_n_heads", 128), groups: ("mamba_n_groups", 1),
        keyLength: ("mamba_d_state", 256), taps: ("mamba_d_conv", 4), tapBias: "mamba_conv_bias",
        biases: ["mamba_proj_bias"]), valuesLength: expand * decoder.hiddenSize)
    place(scan, try parameters.mambaLayers(layerCount: decoder.layerCount), in: &decoder)
    if try parameters.string("position_embedding_type") != "rope" {
      decoder.editLayers { $0.attention?.rope = nil }
    }
    if try parameters.integer("num_local_experts") ?? 8 > 0 {
      var experts = try parameters.experts(
        .init(
          expertCount: 8, expertsPerToken: 2, lengthKey: "intermediate_size", length: 11008,
          normalisesWeights: true))
      experts.sharedFeedForwardLength = decoder.feedForwardLength
      decoder.experts = experts
    }
    decoder.attentionScale = Float(try parameters.double("attention_multiplier") ?? 1)
    try Granite.scale(
      &decoder, embedding: parameters.double("embedding_multiplier"),
      residual: parameters.double("residual_multiplier"),
      logitDivisor: parameters.double("logits_scaling"))
    try decoder.validate(path: parameters.path)
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }

  private static func place(
    _ scan: ScanSpec, _ scans: [Bool], in configuration: inout DecoderConfiguration
  ) {
    for (layer, scans) in zip(configuration.layers.indices, scans) where scans {
      configuration.layers[layer].scan = scan
    }
  }
}

extension HuggingFaceHyperparameters {
  /// For each layer whether it is Mamba's.
  fileprivate func mambaLayers(layerCount: Int) throws(FormatError) -> [Bool] {
    let types = config["layer_types"] ?? config["layers_block_type"]
    guard let types else { return Array(repeating: true, count: layerCount) }
    var scans: [Bool] = []
    for type in types.array ?? [] {
      switch type.string {
      case "attention", "full_attention": scans.append(false)
      case "mamba", "linear_attention": scans.append(true)
      case let other:
        throw error(
          .unsupported, type,
          "layer_types: \"\(other ?? "?")\" is not supported; mamba and attention are")
      }
    }
    guard scans.count == layerCount else {
      throw error(.malformed, types, "layer_types has \(scans.count) entries, not \(layerCount)")
    }
    return scans
  }
}
