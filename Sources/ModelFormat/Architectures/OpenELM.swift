/// OpenELM: layers with heads and FFNs of their own sizes, RMSNorm on heads, the output tied to the embeddings.
enum OpenELM: Architecture {
  static let name = "openelm"
  static let huggingFaceNames = ["OpenELMForCausalLM"]
  static var huggingFaceLayerNames: [String: String] {
    [
      "attn_norm": "attn_norm", "attn.qkv_proj": "attn_qkv", "attn.q_norm": "attn_q_norm",
      "attn.k_norm": "attn_k_norm", "attn.out_proj": "attn_output", "ffn_norm": "ffn_norm",
      "ffn.proj_1": "ffn_gate_up", "ffn.proj_2": "ffn_down",
    ]
  }

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves)
    configuration.editLayers { $0.attention?.headNorm = .heads }
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    for key: StaticString in [
      "normalize_qk_projections", "ffn_with_glu", "share_input_output_layers",
    ] {
      if try parameters.bool(key) == false {
        throw parameters.unsupported(key, "false is not supported")
      }
    }
    if let name = try parameters.string("activation_fn_name"), name != "swish" {
      throw parameters.unsupported("activation_fn_name", "\"\(name)\" is not supported; swish is")
    }
    let layerCount = try parameters.required("num_transformer_layers")
    try DecoderConfiguration.checkLayerCount(layerCount, path: parameters.path)
    let sizes = try layerSizes(parameters, layerCount: layerCount)
    let headDim = try parameters.required("head_dim")
    var decoder = DecoderConfiguration(
      architecture: name, layerCount: layerCount, hiddenSize: try parameters.required("model_dim"),
      feedForwardLength: sizes[0].feedForwardLength, queryHeadCount: sizes[0].queryHeadCount,
      keyValueHeadCount: sizes[0].keyValueHeadCount, headDim: headDim,
      vocabularyCount: parameters.vocabularyCount,
      contextLength: try parameters.integer("max_context_length") ?? 2048, normEpsilon: 1e-6,
      ropePairing: .halves, ropeDimensionCount: headDim,
      ropeBase: try parameters.double("rope_freq_constant") ?? 10000, tiesOutput: true)
    decoder.state(sizes)
    decoder.editLayers { $0.attention?.headNorm = .heads }
    try decoder.validate(path: parameters.path)
    return HuggingFaceConfiguration(decoder: decoder)
  }

  private static func layerSizes(
    _ parameters: HuggingFaceHyperparameters, layerCount: Int
  ) throws(FormatError) -> [LayerSizes] {
    func list(_ key: StaticString) throws(FormatError) -> [Double] {
      let stated = parameters.config[key]
      let values = stated?.array?.compactMap { $0.double } ?? []
      guard values.count == layerCount, values.allSatisfy({ $0 > 0 && $0 <= 0x1p20 }) else {
        throw parameters.error(
          .malformed, stated ?? parameters.config,
          "\"\(key)\" is not a list of \(layerCount) positive numbers")
      }
      return values
    }
    let width = try parameters.required("model_dim")
    let divisor = try parameters.integer("ffn_dim_divisor") ?? 256
    for (key, value): (StaticString, Int) in [("model_dim", width), ("ffn_dim_divisor", divisor)] {
      guard (1...1 << 20).contains(value) else { throw parameters.unsupported(key, "\(value)") }
    }
    let (queries, keys) = (try list("num_query_heads"), try list("num_kv_heads"))
    let factors = try list("ffn_multipliers")
    return (0..<layerCount).map { layer in
      LayerSizes(
        queryHeadCount: Int(queries[layer]), keyValueHeadCount: Int(keys[layer]),
        feedForwardLength: rounded(factors[layer] * Double(width), to: divisor))
    }
  }

  /// The nearest multiple of `divisor`, the next one where it is less by more than a tenth.
  private static func rounded(_ length: Double, to divisor: Int) -> Int {
    let near = max(divisor, Int(length + Double(divisor) / 2) / divisor * divisor)
    return Double(near) < 0.9 * length ? near + divisor : near
  }
}
