/// Falcon-H1: in every layer attention and Mamba-2 side by side, then an FFN, with factors on nearly everything, which GGUF files have in
/// their weights.
enum FalconH1: Architecture {
  static let name = "falcon-h1"
  static let huggingFaceNames = ["FalconH1ForCausalLM"]
  static var huggingFaceLayerNames: [String: String] {
    denseHuggingFaceLayerNames.merging([
      "mamba.in_proj": "ssm_in", "mamba.conv1d": "ssm_conv1d", "mamba.dt_bias": "ssm_dt.bias",
      "mamba.A_log": "ssm_a", "mamba.D": "ssm_d", "mamba.norm": "ssm_norm",
      "mamba.out_proj": "ssm_out", "pre_ff_layernorm": "ffn_norm",
      "feed_forward.gate_proj": "ffn_gate", "feed_forward.up_proj": "ffn_up",
      "feed_forward.down_proj": "ffn_down",
    ]) { _, new in new }
  }

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves)
    var scan = try parameters.mamba2(seenIn: 0)
    scan.hasNorm = parameters.hasTensor("blk.0.ssm_norm.weight")
    configuration.editLayers { $0.blocks[0].branches.append(.scan(scan)) }
    try configuration.validate(path: parameters.metadata.file.path)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(
      keyValueHeadCount: 8, contextLength: 8192, normEpsilon: 1e-5)
    let rope = try HuggingFaceRope(parameters, defaultBase: defaults.ropeBase)
    var decoder = try parameters.commonConfiguration(defaults, rope: rope, hasScales: true)
    let expand = try parameters.required("mamba_expand", default: 2)
    guard (1...1 << 10).contains(expand) else {
      throw parameters.unsupported("mamba_expand", "\(expand)")
    }
    var scan = try parameters.mamba2(
      .init(
        heads: ("mamba_n_heads", 128), groups: ("mamba_n_groups", 1),
        keyLength: ("mamba_d_state", 256), taps: ("mamba_d_conv", 4), tapBias: "mamba_conv_bias",
        biases: ["mamba_proj_bias", "projectors_bias"]),
      valuesLength: parameters.integer("mamba_d_ssm") ?? expand * decoder.hiddenSize)
    scan.hasNorm = try parameters.bool("mamba_rms_norm") ?? false
    if scan.hasNorm, try parameters.bool("mamba_norm_before_gate") ?? true {
      throw parameters.unsupported("mamba_norm_before_gate", "true is not supported")
    }
    let scales = try parameters.factors("ssm_multipliers", count: ScanSpec.inputScaleCount)
    if scales.contains(where: { $0 != 1 }) { scan.inputScales = scales }
    decoder.editLayers { $0.blocks[0].branches.append(.scan(scan)) }
    decoder.embeddingScale = Float(try parameters.double("embedding_multiplier") ?? 1)
    decoder.logitScale = Float(try parameters.double("lm_head_multiplier") ?? 1)
    try decoder.validate(path: parameters.path)
    return HuggingFaceConfiguration(
      decoder: decoder,
      derivedValues: try productFactors(parameters, layerCount: decoder.layerCount)
        .merging(rope.scaling.factors) { first, _ in first })
  }

  /// Factors of products, where they are not 1, as tensors that files could have.
  private static func productFactors(
    _ parameters: HuggingFaceHyperparameters, layerCount: Int
  ) throws(FormatError) -> [String: [Float]] {
    func factor(_ key: StaticString) throws(FormatError) -> Double {
      let value = try parameters.double(key) ?? 1
      guard value.isFinite else { throw parameters.unsupported(key, "\(value)") }
      return value
    }
    let attention = try factor("attention_in_multiplier")
    let ffn = try parameters.factors("mlp_multipliers", count: 2)
    let factors: [(name: String, value: Float)] = [
      ("attn_q", Float(attention)), ("attn_k", Float(attention * (try factor("key_multiplier")))),
      ("attn_v", Float(attention)), ("attn_output", Float(try factor("attention_out_multiplier"))),
      ("ssm_in", Float(try factor("ssm_in_multiplier"))),
      ("ssm_out", Float(try factor("ssm_out_multiplier"))), ("ffn_gate", ffn[0]),
      ("ffn_down", ffn[1]),
    ]
    var result: [String: [Float]] = [:]
    for layer in 0..<layerCount {
      for factor in factors where factor.value != 1 {
        result["blk.\(layer).\(factor.name).scale"] = [factor.value]
      }
    }
    return result
  }
}

extension HuggingFaceHyperparameters {
  /// A list of finite numbers; ones where there is none.
  fileprivate func factors(_ key: StaticString, count: Int) throws(FormatError) -> [Float] {
    guard let list = config[key] else { return Array(repeating: 1, count: count) }
    let values = list.array?.compactMap { $0.double }.map { Float($0) } ?? []
    guard values.count == count, values.allSatisfy(\.isFinite), list.array?.count == count else {
      throw error(.malformed, list, "\"\(key)\" is not a list of \(count) numbers")
    }
    return values
  }
}
