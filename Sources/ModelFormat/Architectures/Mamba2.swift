/// Mamba-2 alone: layers of one block that scans, without attention and FFN.
enum Mamba2: Architecture {
  static let name = "mamba2"
  static let huggingFaceNames = ["Mamba2ForCausalLM"]
  static let huggingFaceLayerNames = mixerNames
  /// Names that Nemotron-H has too.
  static let mixerNames = [
    "norm": "attn_norm", "mixer.in_proj": "ssm_in", "mixer.conv1d": "ssm_conv1d",
    "mixer.dt_bias": "ssm_dt.bias", "mixer.A_log": "ssm_a", "mixer.D": "ssm_d",
    "mixer.norm": "ssm_norm", "mixer.out_proj": "ssm_out",
  ]
  /// Nothing in such a model depends on how far it is read; this is what llama.cpp's converter writes.
  private static let contextLength = 1 << 20

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    let epsilonKey = "attention.layer_norm_rms_epsilon"
    guard let epsilon = try parameters.float(epsilonKey) else {
      throw parameters.missing(epsilonKey)
    }
    return try decoder(
      layerCount: parameters.required("block_count"),
      hiddenSize: parameters.required("embedding_length"),
      vocabularyCount: parameters.vocabularyCount(),
      contextLength: parameters.integer("context_length") ?? contextLength, epsilon: epsilon,
      tiesOutput: !parameters.hasTensor("output.weight"), scan: parameters.mamba2(seenIn: 0),
      path: parameters.metadata.file.path)
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    if let activation = try parameters.string("hidden_act"), activation != "silu" {
      throw parameters.unsupported("hidden_act", "\"\(activation)\" is not supported; silu is")
    }
    let scan = try parameters.mamba2(
      .init(
        heads: ("num_heads", 128), length: ("head_dim", 64), groups: ("n_groups", 8),
        keyLength: ("state_size", 128), taps: ("conv_kernel", 4), tapBias: "use_conv_bias",
        biases: ["use_bias"]))
    let ties = try parameters.bool("tie_word_embeddings") ?? false
    return HuggingFaceConfiguration(
      decoder: try decoder(
        layerCount: parameters.required("num_hidden_layers"),
        hiddenSize: parameters.required("hidden_size"),
        vocabularyCount: parameters.vocabularyCount, contextLength: contextLength,
        epsilon: parameters.double("layer_norm_epsilon") ?? 1e-5,
        tiesOutput: ties && !parameters.hasOutputHead, scan: scan, path: parameters.path))
  }

  private static func decoder(
    layerCount: Int, hiddenSize: Int, vocabularyCount: Int, contextLength: Int, epsilon: Double,
    tiesOutput: Bool, scan: ScanSpec, path: String?
  ) throws(FormatError) -> DecoderConfiguration {
    try DecoderConfiguration.checkLayerCount(layerCount, path: path)
    // Heads of attention are those of none.
    var decoder = DecoderConfiguration(
      architecture: name, layerCount: layerCount, hiddenSize: hiddenSize, feedForwardLength: 0,
      queryHeadCount: 1, keyValueHeadCount: 1, headDim: 16, vocabularyCount: vocabularyCount,
      contextLength: contextLength, normEpsilon: Float(epsilon), ropePairing: .halves,
      ropeDimensionCount: 16, ropeBase: 10000, tiesOutput: tiesOutput)
    decoder.editLayers {
      $0 = LayerSpec(blocks: [BlockSpec(preNorm: .rms, branches: [.scan(scan)])])
    }
    try decoder.validate(path: path)
    return decoder
  }
}

extension GGUFHyperparameters {
  /// Mamba-2 as the file states it; whether there are biases on its convolution is seen in a layer's tensors.
  func mamba2(seenIn layer: Int) throws(FormatError) -> ScanSpec {
    var scan = try scan(inputs: .mamba2)
    scan.hasTapBias = hasTensor("blk.\(layer).ssm_conv1d.bias")
    if let problem = scan.problem {
      throw FormatError(.malformed, path: metadata.file.path, problem)
    }
    return scan
  }
}

extension HuggingFaceHyperparameters {
  /// What a family calls the parts of Mamba-2, each with what its files may leave out.
  struct MambaKeys {
    typealias Number = (key: StaticString, usual: Int)
    var heads: Number
    /// Elements of a value head; nil = they follow from those of all.
    var length: Number?
    var groups: Number
    var keyLength: Number
    var taps: Number
    /// Whether the convolution has a bias, which it has where nothing is said.
    var tapBias: StaticString
    /// Flags of biases on its products, which are not supported.
    var biases: [StaticString]
  }

  /// Mamba-2 as `config.json` states it.
  ///
  /// - Parameter valuesLength: elements of all value heads, where `keys` has no key of a head's.
  func mamba2(_ keys: MambaKeys, valuesLength: Int = 0) throws(FormatError) -> ScanSpec {
    if let limit = config["time_step_limit"]?.array,
      limit.first?.double != 0 || limit.last?.double.map({ $0.isFinite }) == true
    {
      throw unsupported("time_step_limit", "bounds on steps are not supported")
    }
    for key in keys.biases where try bool(key) == true {
      throw unsupported(key, "biases on Mamba-2's products are not supported")
    }
    func number(_ number: MambaKeys.Number) throws(FormatError) -> Int {
      try required(number.key, default: number.usual)
    }
    let heads = try number(keys.heads)
    guard heads > 0, keys.length != nil || valuesLength % heads == 0 else {
      throw unsupported(keys.heads.key, "\(heads) heads of \(valuesLength) elements")
    }
    var scan = ScanSpec(
      keyHeadCount: try number(keys.groups), valueHeadCount: heads,
      keyLength: try number(keys.keyLength),
      valueLength: try keys.length.map(number) ?? valuesLength / heads,
      tapCount: try number(keys.taps), inputs: .mamba2)
    scan.hasTapBias = try bool(keys.tapBias) ?? true
    if let problem = scan.problem { throw FormatError(.malformed, path: path, problem) }
    return scan
  }
}
