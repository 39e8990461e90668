/// Gated linear attention (arXiv:2312.06635), as flash-linear-attention publishes it: layers of a scan whose keys forget each by
/// itself, and an FFN. There are no GGUF files of it.
enum GLA: Architecture {
  static let name = "gla"
  static let ggufNames: [String] = []
  static let huggingFaceNames = ["GLAForCausalLM"]
  static let huggingFaceLayerNames = [
    "attn_norm": "attn_norm", "attn.q_proj": "attn_q", "attn.k_proj": "attn_k",
    "attn.v_proj": "attn_v", "attn.g_proj": "attn_gate", "attn.gk_proj.0": "ssm_f_a",
    "attn.gk_proj.1": "ssm_f_b", "attn.g_norm_swish_gate": "ssm_norm",
    "attn.g_norm": "ssm_norm", "attn.o_proj": "ssm_out", "mlp_norm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
  ]

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    throw parameters.metadata.error(
      .unsupported, key: "general.architecture",
      "gated linear attention is supported as a Hugging Face folder, not as GGUF")
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    try refuseOptions(parameters)
    let layerCount = try parameters.required("num_hidden_layers", default: 24)
    try DecoderConfiguration.checkLayerCount(layerCount, path: parameters.path)
    let hiddenSize = try parameters.required("hidden_size", default: 2048)
    guard (1...1 << 20).contains(hiddenSize) else {
      throw parameters.unsupported("hidden_size", "\(hiddenSize); 1 to \(1 << 20) is possible")
    }
    let scan = try scan(parameters, hiddenSize: hiddenSize)
    // The first published folders call it so.
    let oldEpsilon = try parameters.double("rms_norm_eps")
    let epsilon = try parameters.double("norm_eps") ?? oldEpsilon ?? 1e-6
    let ties = try parameters.bool("tie_word_embeddings") ?? false
    // Heads of attention are those of none.
    var decoder = DecoderConfiguration(
      architecture: name, layerCount: layerCount, hiddenSize: hiddenSize,
      feedForwardLength: try feedForwardLength(parameters, hiddenSize: hiddenSize),
      queryHeadCount: 1, keyValueHeadCount: 1, headDim: 16,
      vocabularyCount: parameters.vocabularyCount,
      contextLength: try parameters.integer("max_position_embeddings") ?? 2048,
      normEpsilon: Float(epsilon), ropePairing: .halves, ropeDimensionCount: 16, ropeBase: 10000,
      tiesOutput: ties && !parameters.hasOutputHead)
    decoder.editLayers { $0.scan = scan }
    try decoder.validate(path: parameters.path)
    return HuggingFaceConfiguration(decoder: decoder)
  }

  private static func scan(
    _ parameters: HuggingFaceHyperparameters, hiddenSize: Int
  ) throws(FormatError) -> ScanSpec {
    let headCount = try parameters.required("num_heads", default: 4)
    guard (1...1 << 10).contains(headCount) else {
      throw parameters.unsupported("num_heads", "\(headCount); 1 to \(1 << 10) is possible")
    }
    if let count = try parameters.integer("num_kv_heads"), count != headCount {
      throw parameters.unsupported(
        "num_kv_heads", "\(count) is not supported, only as many as \"num_heads\", \(headCount)")
    }
    func length(_ key: StaticString, usual: Double) throws(FormatError) -> Int {
      let factor = try parameters.double(key) ?? usual
      guard factor > 0, factor <= 1024 else {
        throw parameters.unsupported(key, "\(factor) is not supported, only above 0 up to 1024")
      }
      let length = (Double(hiddenSize) * factor).rounded()
      guard abs(length - Double(hiddenSize) * factor) <= 1e-9 * length,
        Int(length) % headCount == 0
      else {
        throw parameters.unsupported(
          key, "\(factor) times \(hiddenSize) elements do not divide among \(headCount) heads")
      }
      return Int(length) / headCount
    }
    let scan = ScanSpec(
      keyHeadCount: headCount, valueHeadCount: headCount,
      keyLength: try length("expand_k", usual: 0.5),
      valueLength: try length("expand_v", usual: 1), tapCount: 1, inputs: .gatedLinear)
    if let problem = scan.problem { throw FormatError(.malformed, path: parameters.path, problem) }
    return scan
  }

  /// Where the file states none, the multiple of 256 from two thirds of `hidden_ratio` times the width on.
  private static func feedForwardLength(
    _ parameters: HuggingFaceHyperparameters, hiddenSize: Int
  ) throws(FormatError) -> Int {
    if let length = try parameters.integer("intermediate_size") { return length }
    let ratio = try parameters.double("hidden_ratio") ?? 4
    guard ratio > 0, ratio <= 1024 else {
      throw parameters.unsupported(
        "hidden_ratio", "\(ratio) is not supported, only above 0 up to 1024")
    }
    return (Int(Double(hiddenSize) * ratio * 2 / 3) + 255) / 256 * 256
  }

  /// Options of the layer that no published folder uses.
  private static func refuseOptions(
    _ parameters: HuggingFaceHyperparameters
  ) throws(FormatError) {
    if let found = try parameters.string("hidden_act"), found != "swish", found != "silu" {
      throw parameters.unsupported("hidden_act", "\"\(found)\" is not supported; swish is")
    }
    let flags: [(key: StaticString, usual: Bool)] = [
      ("use_gk", true), ("use_gv", false), ("use_output_gate", true),
      ("elementwise_affine", true), ("use_short_conv", false),
    ]
    for (key, usual) in flags {
      if let found = try parameters.bool(key), found != usual {
        throw parameters.unsupported(key, "\(found) is not supported, only \(usual)")
      }
    }
    for key in ["feature_map", "clamp_min", "attn", "attnres_block_size"] as [StaticString] {
      if let found = parameters.config[key] {
        throw parameters.unsupported(key, "\(found.found) is not supported, only null")
      }
    }
    try parameters.refuse([
      ("gate_logit_normalizer", 16), ("gate_low_rank_dim", Double(ScanSpec.decayRank)),
    ])
  }
}
