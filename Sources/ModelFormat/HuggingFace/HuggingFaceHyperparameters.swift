/// A Hugging Face folder's hyper-parameters (`config.json`), and what its tensors imply.
struct HuggingFaceHyperparameters {
  /// The object that describes the text decoder.
  let config: JSONValue
  let path: String
  /// The class of transformers.
  let name: String
  /// ggml's name of the family.
  let architecture: String
  /// Rows of the embedding table.
  let vocabularyCount: Int
  /// Whether there is an output head beside the embedding table.
  let hasOutputHead: Bool

  /// What a family's files may leave out.
  struct Defaults {
    var queryHeadCount: Int?
    /// nil = as many as query heads.
    var keyValueHeadCount: Int?
    /// nil = the width divided among the query heads.
    var headDim: Int?
    var contextLength = 32768
    var normEpsilonKey: StaticString = "rms_norm_eps"
    var normEpsilon = 1e-6
    var ropeBase = 10000.0
    var feedForwardLengthKey: StaticString = "intermediate_size"
    var activationKey: StaticString = "hidden_act"
    var activation = "silu"
    var tiesOutput = false
  }

  func error(_ kind: FormatError.Kind, _ value: JSONValue?, _ message: String) -> FormatError {
    FormatError(kind, at: value?.offset, path: path, message)
  }

  func unsupported(_ key: StaticString, _ message: String) -> FormatError {
    error(.unsupported, config[key], "\(key): \(message)")
  }

  func integer(_ key: StaticString) throws(FormatError) -> Int? {
    guard let value = config[key] else { return nil }
    guard let integer = value.integer else {
      throw error(.malformed, value, "\"\(key)\" should be an integer and is \(value.found)")
    }
    return integer
  }

  func double(
    _ key: StaticString, in object: JSONValue? = nil
  ) throws(FormatError) -> Double? {
    guard let value = (object ?? config)[key] else { return nil }
    guard let number = value.double else {
      throw error(.malformed, value, "\"\(key)\" should be a number and is \(value.found)")
    }
    return number
  }

  func bool(
    _ key: StaticString, in object: JSONValue? = nil
  ) throws(FormatError) -> Bool? {
    guard let value = (object ?? config)[key] else { return nil }
    guard let bool = value.bool else {
      throw error(.malformed, value, "\"\(key)\" should be true or false and is \(value.found)")
    }
    return bool
  }

  func string(_ key: StaticString) throws(FormatError) -> String? {
    guard let value = config[key] else { return nil }
    guard let string = value.string else {
      throw error(.malformed, value, "\"\(key)\" should be a string and is \(value.found)")
    }
    return string
  }

  /// What an object of the file states; nil if there is none under the key.
  func nested(_ key: StaticString) -> HuggingFaceHyperparameters? {
    guard let object = config[key], object.members != nil else { return nil }
    return HuggingFaceHyperparameters(
      config: object, path: path, name: name, architecture: architecture,
      vocabularyCount: vocabularyCount, hasOutputHead: hasOutputHead)
  }

  func required(_ key: StaticString, default: Int? = nil) throws(FormatError) -> Int {
    guard let value = try integer(key) ?? `default` else {
      throw error(.malformed, config, "\"\(key)\" is missing")
    }
    return value
  }

  /// What all families state in the same words, validated; each adds its own to it.
  ///
  /// - Parameters:
  ///   - rope: The RoPE of layers that see everything.
  ///   - mayHaveBiases: Whether the family reads `attention_bias` itself.
  ///   - hasScales: Whether it reads its factors on embeddings, residuals and logits itself.
  ///   - hasSoftCaps: Whether it reads its caps on attention scores and logits itself.
  ///   - layerCount: what holds where the file does not count layers.
  func commonConfiguration(
    _ defaults: Defaults, rope: HuggingFaceRope, mayHaveExperts: Bool = false,
    mayHaveBiases: Bool = false, hasScales: Bool = false, hasSoftCaps: Bool = false,
    layerCount statedCount: Int? = nil
  ) throws(FormatError) -> DecoderConfiguration {
    try refuseWhatIsNotModelled(
      mayHaveBiases: mayHaveBiases, hasScales: hasScales, hasSoftCaps: hasSoftCaps)
    if !mayHaveExperts { try refuse([("num_experts", 0), ("num_local_experts", 0)]) }
    let layerCount = try required("num_hidden_layers", default: statedCount)
    try DecoderConfiguration.checkLayerCount(layerCount, path: path)
    let hiddenSize = try required("hidden_size")
    let queryHeadCount = try required("num_attention_heads", default: defaults.queryHeadCount)
    guard queryHeadCount > 0 else { throw unsupported("num_attention_heads", "zero heads") }
    let headDim =
      try integer("head_dim") ?? defaults.headDim ?? hiddenSize / queryHeadCount
    // Bounded before anything is computed with it; the configuration knows what is possible.
    guard headDim <= 1 << 16 else { throw unsupported("head_dim", "heads of \(headDim) elements") }
    let ties = try bool("tie_word_embeddings") ?? defaults.tiesOutput
    var configuration = DecoderConfiguration(
      architecture: architecture, layerCount: layerCount,
      hiddenSize: hiddenSize,
      feedForwardLength: try required(defaults.feedForwardLengthKey),
      queryHeadCount: queryHeadCount,
      keyValueHeadCount: try integer("num_key_value_heads") ?? defaults.keyValueHeadCount
        ?? queryHeadCount,
      headDim: headDim, vocabularyCount: vocabularyCount,
      contextLength: try integer("max_position_embeddings") ?? defaults.contextLength,
      normEpsilon: Float(try double(defaults.normEpsilonKey) ?? defaults.normEpsilon),
      ropePairing: .halves,
      ropeDimensionCount: Int(Double(headDim) * rope.partialFactor), ropeBase: rope.base,
      ropeLinearScale: rope.scaling.linearScale,
      activation: try activation(defaults), tiesOutput: ties && !hasOutputHead)
    configuration.ropeMagnitude = Float(rope.scaling.magnitude)
    configuration.shortContextLength = rope.scaling.shortContextLength
    try configuration.validate(path: path)
    return configuration
  }

  private func activation(
    _ defaults: Defaults
  ) throws(FormatError) -> DecoderConfiguration.Activation {
    switch try string(defaults.activationKey) ?? defaults.activation {
    case "silu", "swish": return .silu
    case "relu": return .relu
    case "relu2": return .reluSquared
    case "gelu_pytorch_tanh": return .geluTanh
    case let other:
      throw unsupported(
        defaults.activationKey,
        "activation \"\(other)\" is not supported; silu, relu, relu2 and gelu_pytorch_tanh are")
    }
  }

  /// For each layer whether `layer_types` says that it slides; nil if there is no such list.
  func slidingLayers(layerCount: Int) throws(FormatError) -> [Bool]? {
    guard let types = config["layer_types"] else { return nil }
    var slides: [Bool] = []
    for type in types.array ?? [] {
      switch type.string {
      case "full_attention": slides.append(false)
      case "sliding_attention": slides.append(true)
      case let other:
        throw error(
          .unsupported, type,
          "layer_types: \"\(other ?? "?")\" is not supported; full_attention"
            + " and sliding_attention are")
      }
    }
    guard slides.count == layerCount else {
      throw error(.malformed, types, "layer_types has \(slides.count) entries, not \(layerCount)")
    }
    return slides
  }

  /// As ``slidingLayers(layerCount:)``, and without a list, of each `usualPeriod` layers all but the last.
  func slidingLayers(layerCount: Int, usualPeriod: Int) throws(FormatError) -> [Bool] {
    try slidingLayers(layerCount: layerCount)
      ?? DecoderConfiguration.slidingLayers(layerCount: layerCount, period: usualPeriod)
  }

  /// For families whose files may name a window that their graph does not have here.
  func refuseSlidingLayers() throws(FormatError) {
    if try bool("use_sliding_window") == true {
      throw unsupported("use_sliding_window", "not supported in \(architecture)")
    }
    if let types = config["layer_types"]?.array,
      types.contains(where: {
        $0.string != "full_attention"
      })
    {
      throw unsupported("layer_types", "only full_attention is supported in \(architecture)")
    }
  }

  /// Keys that change the graph in ways it does not have, unless they hold these neutral values.
  private func refuseWhatIsNotModelled(
    mayHaveBiases: Bool, hasScales: Bool, hasSoftCaps: Bool
  ) throws(FormatError) {
    let flags: [StaticString] = ["mlp_bias", "use_bidirectional_attention"]
    for key in flags + (mayHaveBiases ? [] : ["attention_bias"]) {
      if let value = config[key], value.bool != false { throw unsupported(key, "not supported") }
    }
    if !hasSoftCaps {
      try refuse([("attn_logit_softcapping", 0), ("final_logit_softcapping", 0)])
    }
    guard !hasScales else { return }
    try refuse([
      ("logit_scale", 1), ("logits_scaling", 1), ("residual_multiplier", 1),
      ("embedding_multiplier", 1), ("attention_multiplier", 1),
    ])
  }

  /// Refuses numbers that are stated and not neutral.
  func refuse(_ numbers: [(key: StaticString, neutral: Double)]) throws(FormatError) {
    for (key, neutral) in numbers {
      if let value = try double(key), value != neutral {
        throw unsupported(key, "\(value) is not supported")
      }
    }
  }
}
