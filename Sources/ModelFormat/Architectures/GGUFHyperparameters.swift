/// A GGUF file's hyper-parameters under its architecture's prefix (`llama.block_count`).
struct GGUFHyperparameters {
  let metadata: GGUFMetadataReader
  /// What precedes keys.
  let prefix: String
  /// The family's name.
  let architecture: String
  private let tensors: [String: TensorRecord]

  /// - Parameter tensors: those of the whole model, of a split one in all its files.
  init(
    _ metadata: GGUFMetadataReader, tensors: [TensorRecord], prefix: String, architecture: String
  ) {
    self.metadata = metadata
    self.prefix = prefix
    self.architecture = architecture
    self.tensors = Dictionary(tensors.map { ($0.name, $0) }) { first, _ in first }
  }

  func key(_ suffix: String) -> String { "\(prefix).\(suffix)" }
  func hasTensor(_ name: String) -> Bool { tensors[name] != nil }

  func integer(_ suffix: String) throws(FormatError) -> Int? {
    try metadata.integer(key(suffix))
  }

  func float(_ suffix: String) throws(FormatError) -> Double? {
    try metadata.float(key(suffix))
  }

  /// A factor, which is not used where it is 0.
  func scale(_ suffix: String) throws(FormatError) -> Double? {
    try float(suffix).flatMap { $0 == 0 ? nil : $0 }
  }

  func required(_ suffix: String) throws(FormatError) -> Int {
    guard let value = try integer(suffix) else { throw missing(suffix) }
    return value
  }

  func unsupported(_ suffix: String, _ message: String) -> FormatError {
    metadata.error(.unsupported, key: key(suffix), "\(key(suffix)): \(message)")
  }

  func missing(_ suffix: String) -> FormatError {
    metadata.error(.malformed, key: key(suffix), "metadata key \"\(key(suffix))\" is missing")
  }

  /// What all families state in the same words, validated; each adds its own to it.
  ///
  /// - Parameters:
  ///   - hasScales: Whether the family reads its factors on embeddings, residuals and logits itself.
  ///   - hasSoftCaps: Whether it reads its caps on attention scores and logits itself.
  ///   - hasScans: Whether layers with no KV heads scan, and layers may have no FFN.
  func commonConfiguration(
    pairing: DecoderConfiguration.RopePairing, mayHaveExperts: Bool = false,
    epsilonKey: String = "attention.layer_norm_rms_epsilon", hasScales: Bool = false,
    hasSoftCaps: Bool = false, hasScans: Bool = false
  ) throws(FormatError) -> DecoderConfiguration {
    try refuseWhatIsNotModelled(hasScales: hasScales, hasSoftCaps: hasSoftCaps)
    if !mayHaveExperts { try refuseExperts() }
    let blockCount = try required("block_count")
    // Layers that predict further tokens are counted too.
    let predictionCount = try integer("nextn_predict_layers") ?? 0
    guard (0...DecoderConfiguration.layerLimit).contains(predictionCount) else {
      throw unsupported("nextn_predict_layers", "\(predictionCount) layers")
    }
    guard (0...2 * DecoderConfiguration.layerLimit).contains(blockCount) else {
      throw FormatError(
        .malformed, path: metadata.file.path, DecoderConfiguration.layerCountProblem(blockCount))
    }
    let layerCount = blockCount - predictionCount
    try DecoderConfiguration.checkLayerCount(layerCount, path: metadata.file.path)
    let hiddenSize = try required("embedding_length")
    let sizes = try layerSizes(
      layerCount: layerCount, blockCount: blockCount, mayHaveExperts: mayHaveExperts,
      hasScans: hasScans)
    let first = sizes[0]
    guard let epsilon = try float(epsilonKey) else { throw missing(epsilonKey) }
    let headDim = try integer("attention.key_length") ?? hiddenSize / first.queryHeadCount
    let scale = try float("attention.scale").flatMap { $0 == 0 ? nil : Float($0) }
    let ropeDimensionCount = try integer("rope.dimension_count") ?? headDim
    let ropeBase = try float("rope.freq_base") ?? 10000
    let scaling = try ropeScaling(base: ropeBase, dimensionCount: ropeDimensionCount)
    var configuration = DecoderConfiguration(
      architecture: architecture, layerCount: layerCount, hiddenSize: hiddenSize,
      feedForwardLength: first.feedForwardLength, queryHeadCount: first.queryHeadCount,
      keyValueHeadCount: first.keyValueHeadCount,
      headDim: headDim, vocabularyCount: try vocabularyCount(),
      contextLength: try required("context_length"), normEpsilon: Float(epsilon),
      ropePairing: pairing,
      ropeDimensionCount: ropeDimensionCount, ropeBase: ropeBase,
      ropeLinearScale: scaling.linearScale,
      activation: try activation(), attentionScale: scale,
      tiesOutput: !hasTensor("output.weight"))
    if hasTensor("blk.0.attn_q.bias") || hasTensor("blk.0.attn_qkv.bias") {
      configuration.editLayers { $0.attention?.hasBiases = true }
    }
    configuration.state(sizes, valueLength: try integer("attention.value_length"))
    configuration.ropeMagnitude = Float(scaling.magnitude)
    configuration.shortContextLength = scaling.shortContextLength
    try configuration.validate(path: metadata.file.path)
    return configuration
  }

  /// What each layer has of heads, and how wide its FFN is.
  private func layerSizes(
    layerCount: Int, blockCount: Int, mayHaveExperts: Bool, hasScans: Bool
  ) throws(FormatError) -> [LayerSizes] {
    func required(_ suffix: String) throws(FormatError) -> [Int] {
      guard let values = try metadata.integers(key(suffix), count: blockCount) else {
        throw missing(suffix)
      }
      return values
    }
    let queries = try required("attention.head_count")
    let keyHeads = key("attention.head_count_kv")
    var keys: [Int]?
    if hasScans, let found = try metadata.integersOrZeros(keyHeads, count: blockCount) {
      keys = found.value == 0 ? nil : Array(repeating: found.value, count: blockCount)
    } else {
      keys = try metadata.integers(keyHeads, count: blockCount)
    }
    // Where all layers have experts, some converters state only theirs.
    let expert = "expert_feed_forward_length"
    let denseKey = key("feed_forward_length")
    var dense: [Int]?
    if hasScans, let found = try metadata.integersOrZeros(denseKey, count: blockCount) {
      dense = Array(repeating: found.value, count: blockCount)
    } else {
      dense = try metadata.integers(denseKey, count: blockCount)
    }
    let lengths =
      mayHaveExperts && dense == nil
      ? try metadata.integers(key(expert), count: blockCount) : dense
    guard let lengths else { throw missing("feed_forward_length") }
    var sizes: [LayerSizes] = []
    for layer in 0..<layerCount {
      let size = LayerSizes(
        queryHeadCount: queries[layer], keyValueHeadCount: (keys ?? queries)[layer],
        feedForwardLength: lengths[layer])
      for (suffix, value, what) in [
        ("attention.head_count", size.queryHeadCount, "attention"),
        ("attention.head_count_kv", size.keyValueHeadCount, "attention"),
        ("feed_forward_length", size.feedForwardLength, "FFN"),
      ] where value == 0 {
        throw unsupported(suffix, "layer \(layer) has 0: a layer without \(what) is not supported")
      }
      sizes.append(size)
    }
    return sizes
  }

  /// Rows of the embedding table; in a file without tensors what the metadata says.
  func vocabularyCount() throws(FormatError) -> Int {
    if let table = tensors["token_embd.weight"] { return table.rowCount }
    if let tokens = metadata.entry("tokenizer.ggml.tokens"), tokens.isArray { return tokens.count }
    return try required("vocab_size")
  }

  private func activation() throws(FormatError) -> DecoderConfiguration.Activation {
    switch try metadata.string(key("hidden_act")) ?? "silu" {
    case "silu", "swish": return .silu
    case "relu": return .relu
    case "gelu_pytorch_tanh", "gelu_tanh": return .geluTanh
    case let other:
      throw unsupported("hidden_act", "activation \"\(other)\" is not supported")
    }
  }

  /// Keys that change the graph in ways it does not have, unless they hold these neutral values.
  private func refuseWhatIsNotModelled(
    hasScales: Bool, hasSoftCaps: Bool
  ) throws(FormatError) {
    let caps: [(suffix: String, neutral: [Double])] = [
      ("attn_logit_softcapping", [0]), ("final_logit_softcapping", [0]),
    ]
    let floats: [(suffix: String, neutral: [Double])] = [
      ("attention.clamp_kqv", [0]), ("attention.max_alibi_bias", [0]),
      ("attention.temperature_scale", [0]),
    ]
    let scales: [(suffix: String, neutral: [Double])] = [
      ("logit_scale", [0, 1]), ("residual_scale", [0, 1]), ("embedding_scale", [0, 1]),
    ]
    for (suffix, neutral) in floats + (hasScales ? [] : scales) + (hasSoftCaps ? [] : caps) {
      if let value = try float(suffix), !neutral.contains(value) {
        throw unsupported(suffix, "\(value) is not supported")
      }
    }
    if try metadata.bool(key("use_parallel_residual")) == true {
      throw unsupported("use_parallel_residual", "parallel residuals are not supported")
    }
    if try metadata.bool(key("attention.causal")) == false {
      throw unsupported("attention.causal", "attention that is not causal is not supported")
    }
  }
}

/// What a layer has of heads, and how wide its FFN is.
struct LayerSizes {
  var queryHeadCount: Int
  var keyValueHeadCount: Int
  var feedForwardLength: Int
}

extension DecoderConfiguration {
  /// States the sizes of layers where they are not the decoder's.
  ///
  /// - Parameter valueLength: elements of a value head, of all layers; nil = as many as of a key.
  mutating func state(_ sizes: [LayerSizes], valueLength: Int? = nil) {
    for (layer, size) in sizes.enumerated() {
      if size.queryHeadCount != queryHeadCount {
        layers[layer].attention?.queryHeadCount = size.queryHeadCount
      }
      if size.keyValueHeadCount != keyValueHeadCount {
        layers[layer].attention?.keyValueHeadCount = size.keyValueHeadCount
      }
      if size.feedForwardLength != feedForwardLength {
        layers[layer].feedForward?.length = size.feedForwardLength
      }
      if let valueLength, valueLength != headDim {
        layers[layer].attention?.valueLength = valueLength
      }
    }
  }
}
