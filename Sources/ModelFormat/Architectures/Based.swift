/// Based (arXiv:2402.18668): layers that convolve, layers of linear attention whose keys are products of two elements, and layers
/// that attend to a short window. There are no GGUF files of it, and folders are read that somebody saved as safetensors.
enum Based: Architecture {
  static let name = "based"
  static let ggufNames: [String] = []
  static let huggingFaceNames = ["GPTLMHeadModel"]
  static let huggingFaceTableIsHead = true
  /// Of layers that do not attend, the output projection is renamed (`FusedTensors`).
  static let huggingFaceLayerNames = [
    "norm1": "attn_norm", "norm2": "ffn_norm", "mlp.fc1": "ffn_up_gate", "mlp.fc2": "ffn_down",
    "mixer.in_proj": "ssm_in", "mixer.conv.conv": "ssm_conv1d", "mixer.proj_q": "attn_q",
    "mixer.proj_k": "attn_k", "mixer.proj_v": "attn_v", "mixer.Wqkv": "attn_qkv",
    "mixer.out_proj": "attn_output",
  ]

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    throw parameters.metadata.error(
      .unsupported, key: "general.architecture",
      "Based is supported as a Hugging Face folder, not as GGUF")
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    try refuseOptions(parameters)
    let layerCount = try parameters.required("n_layer")
    try DecoderConfiguration.checkLayerCount(layerCount, path: parameters.path)
    let width = try parameters.required("n_embd")
    guard (1...1 << 20).contains(width) else {
      throw parameters.unsupported("n_embd", "\(width); 1 to \(1 << 20) is possible")
    }
    let headCount = try parameters.required("n_head")
    let headDim = try headLength(parameters, "n_head", headCount, of: width)
    var decoder = DecoderConfiguration(
      architecture: name, layerCount: layerCount, hiddenSize: width,
      feedForwardLength: try parameters.required("n_inner"), queryHeadCount: headCount,
      keyValueHeadCount: headCount, headDim: headDim,
      vocabularyCount: parameters.vocabularyCount,
      contextLength: try parameters.integer("n_positions") ?? 2048,
      normEpsilon: Float(try parameters.double("layer_norm_epsilon") ?? 1e-5),
      ropePairing: .halves, ropeDimensionCount: headDim,
      ropeBase: try parameters.double("rotary_emb_base") ?? 10000, tiesOutput: true)
    let (linear, sliding) = (
      try layers(parameters, "alt_mixer_layers", of: layerCount),
      try layers(parameters, "alt_mixer_2_layers", of: layerCount)
    )
    guard linear.isDisjoint(with: sliding) else {
      throw parameters.unsupported("alt_mixer_2_layers", "a layer is in \"alt_mixer_layers\" too")
    }
    let convolution = try convolution(parameters, width: width)
    let attention = try attention(parameters, width: width)
    let window = try window(parameters)
    for layer in 0..<layerCount {
      if sliding.contains(layer) {
        decoder.layers[layer].attention?.window = window
      } else {
        decoder.layers[layer].scan = linear.contains(layer) ? attention : convolution
      }
    }
    try decoder.validate(path: parameters.path)
    return HuggingFaceConfiguration(decoder: decoder)
  }

  private static func headLength(
    _ parameters: HuggingFaceHyperparameters, _ key: StaticString, _ count: Int, of width: Int
  ) throws(FormatError) -> Int {
    guard (1...1 << 10).contains(count), width % count == 0 else {
      throw parameters.unsupported(
        key, "\(width) elements do not divide among \(count) heads")
    }
    return width / count
  }

  private static func layers(
    _ parameters: HuggingFaceHyperparameters, _ key: StaticString, of layerCount: Int
  ) throws(FormatError) -> Set<Int> {
    let stated = parameters.config[key]
    let numbers = stated?.array?.map { $0.integer ?? -1 } ?? [-1]
    guard numbers.allSatisfy((0..<layerCount).contains) else {
      throw parameters.error(
        .malformed, stated ?? parameters.config,
        "\"\(key)\" is not a list of numbers of the \(layerCount) layers")
    }
    return Set(numbers)
  }

  /// The object under a key, whose class has to be one whose name begins with `kind`.
  private static func mixer(
    _ parameters: HuggingFaceHyperparameters, _ key: StaticString, kind: String
  ) throws(FormatError) -> HuggingFaceHyperparameters {
    guard let mixer = parameters.nested(key) else {
      throw parameters.error(.malformed, parameters.config, "\"\(key)\" is missing")
    }
    let target = try mixer.string("_target_")?.split(separator: ".").last ?? Substring(kind)
    guard target.hasPrefix(kind) else {
      throw parameters.unsupported(key, "\"\(target)\" is not supported, only \(kind)")
    }
    return mixer
  }

  private static func convolution(
    _ parameters: HuggingFaceHyperparameters, width: Int
  ) throws(FormatError) -> ScanSpec {
    let mixer = try mixer(parameters, "mixer", kind: "BaseConv")
    if try mixer.bool("use_bias") == false {
      throw mixer.unsupported("use_bias", "false is not supported")
    }
    let factor = try mixer.integer("expand_proj") ?? 2
    guard (1...1 << 8).contains(factor), width * factor % 2 == 0 else {
      throw mixer.unsupported("expand_proj", "\(factor) is not supported, with \(width) elements")
    }
    // What published folders state as "kernel_sizes" nothing reads.
    let convolution = ScanSpec.gatedConvolution(
      width: width * factor / 2, tapCount: try mixer.integer("kernel_size") ?? 3,
      inputs: .activatedConvolution)
    return try checked(convolution, parameters)
  }

  private static func attention(
    _ parameters: HuggingFaceHyperparameters, width: Int
  ) throws(FormatError) -> ScanSpec {
    let mixer = try mixer(parameters, "alt_mixer", kind: "LinearAttention")
    let headCount = try mixer.integer("num_heads") ?? 16
    let keyLength = try mixer.integer("feature_dim") ?? 16
    if let map = mixer.nested("feature_map") {
      if let target = try map.string("_target_"), !target.hasSuffix("TaylorExp") {
        throw mixer.unsupported("feature_map", "\(target) is not supported, only TaylorExp")
      }
      if let length = try map.integer("input_dim"), length != keyLength {
        throw map.unsupported("input_dim", "\(length) is not supported, only \"feature_dim\"")
      }
    }
    let usual = try headLength(mixer, "num_heads", headCount, of: width)
    let attention = ScanSpec(
      keyHeadCount: headCount, valueHeadCount: headCount, keyLength: keyLength,
      valueLength: try mixer.integer("head_dim") ?? usual, tapCount: 1, inputs: .taylor)
    return try checked(attention, parameters)
  }

  private static func checked(
    _ scan: ScanSpec, _ parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> ScanSpec {
    if let problem = scan.problem { throw FormatError(.malformed, path: parameters.path, problem) }
    return scan
  }

  /// Half of what is stated, and the token itself.
  private static func window(
    _ parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> Int {
    let mixer = try mixer(parameters, "alt_mixer_2", kind: "Sliding")
    let length = try mixer.integer("window_size") ?? 128
    guard (0...1 << 30).contains(length) else {
      throw mixer.unsupported("window_size", "\(length); 0 to \(1 << 30) is possible")
    }
    return length / 2 + 1
  }

  /// Options of the training code that published folders do not use.
  private static func refuseOptions(
    _ parameters: HuggingFaceHyperparameters
  ) throws(FormatError) {
    let fraction = try parameters.double("rotary_emb_fraction")
    guard fraction == 1 else {
      throw parameters.unsupported(
        "rotary_emb_fraction", "\(fraction.map { "\($0)" } ?? "none") is not supported, only 1")
    }
    if let activation = try parameters.string("activation_function"), activation != "swiglu" {
      throw parameters.unsupported(
        "activation_function", "\"\(activation)\" is not supported; swiglu is")
    }
    let flags: [(key: StaticString, usual: Bool)] = [
      ("rms_norm", true), ("prenorm", true), ("scale_attn_weights", true),
      ("tie_word_embeddings", true), ("parallel_block", false), ("fixed_decay", false),
      ("qkv_proj_bias", false), ("out_proj_bias", false), ("mlp_fc1_bias", false),
      ("mlp_fc2_bias", false), ("lm_head_bias", false), ("rotary_emb_interleaved", false),
      ("scale_attn_by_inverse_layer_idx", false),
    ]
    for (key, usual) in flags {
      if let found = try parameters.bool(key), found != usual {
        throw parameters.unsupported(key, "\(found) is not supported, only \(usual)")
      }
    }
    for key in ["rotary_emb_scale_base", "n_head_kv"] as [StaticString] {
      if let found = parameters.config[key] {
        throw parameters.unsupported(key, "\(found.found) is not supported, only null")
      }
    }
    try parameters.refuse([("max_position_embeddings", 0)])
  }
}
