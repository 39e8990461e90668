/// MiMo-V2-Flash: values shorter than keys and scaled, of each group of layers one that sees everything and others that slide, which
/// have twice as many KV heads, sinks and a RoPE of their own; dense layers first, then experts as in GLM 4.5.
enum MiMo2: Architecture {
  static let name = "mimo2"
  static let huggingFaceNames = ["MiMoV2FlashForCausalLM"]
  static let skipsPredictionLayers = true
  static var huggingFaceLayerNames: [String: String] {
    expertNames().merging([
      "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
      "self_attn.attention_sink_bias": "attn_sinks.weight", "self_attn.sinks": "attn_sinks.weight",
    ]) { _, new in new }
  }

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves, mayHaveExperts: true)
    let layers = 0..<configuration.layerCount
    let experts = try parameters.requiredExperts(
      configuration, normalisesWeights: true, routing: .biasedSigmoid)
    let denseCount = layers.prefix { parameters.hasTensor("blk.\($0).ffn_gate.weight") }.count
    try configuration.place(experts, after: denseCount, path: parameters.metadata.file.path)
    configuration.slide(
      try parameters.slidingLayers(layerCount: layers.count, usualPeriod: 1),
      window: try parameters.required("attention.sliding_window"))
    configuration.slidingRopeBase =
      try parameters.float("rope.freq_base_swa") ?? configuration.ropeBase
    let scale = try parameters.scale("attention.value_scale") ?? 1
    for layer in layers {
      configuration.layers[layer].attention?.valueScale = Float(scale)
      configuration.layers[layer].attention?.hasSinks =
        parameters.hasTensor("blk.\(layer).attn_sinks.weight")
    }
    try configuration.validate(path: parameters.metadata.file.path)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let hasNewKey = parameters.config["rms_norm_eps"] != nil
    let defaults = HuggingFaceHyperparameters.Defaults(
      queryHeadCount: 64, keyValueHeadCount: 4, headDim: 192, contextLength: 131072,
      normEpsilonKey: hasNewKey ? "rms_norm_eps" : "layernorm_epsilon", normEpsilon: 1e-5,
      ropeBase: 5_000_000)
    let rope = try HuggingFaceRope(
      parameters, defaultBase: defaults.ropeBase, mayBePartial: true, usualPart: rotatedPart)
    var decoder = try parameters.commonConfiguration(defaults, rope: rope, mayHaveExperts: true)
    try refuseOtherGraphs(parameters, decoder)
    let experts = try parameters.experts(
      .init(
        expertCount: 256, expertsPerToken: 8, length: 2048, normalisesWeights: true,
        routing: .biasedSigmoid))
    try decoder.place(
      experts, after: denseCount(parameters, layerCount: decoder.layerCount), path: parameters.path)
    try slide(&decoder, parameters)
    try decoder.validate(path: parameters.path)
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }

  private static let rotatedPart = 0.334

  private static func refuseOtherGraphs(
    _ parameters: HuggingFaceHyperparameters, _ decoder: DecoderConfiguration
  ) throws(FormatError) {
    let valueLength = try parameters.integer("v_head_dim") ?? 128
    try parameters.refuse([
      ("swa_head_dim", Double(decoder.headDim)), ("swa_v_head_dim", Double(valueLength)),
      ("swa_num_attention_heads", Double(decoder.queryHeadCount)), ("n_shared_experts", 0),
    ])
    if let method = try parameters.string("topk_method"), method != "noaux_tc" {
      throw parameters.unsupported(
        "topk_method", "\"\(method)\" is not supported; noaux_tc is")
    }
  }

  /// Which layers slide, and what is different in them.
  private static func slide(
    _ decoder: inout DecoderConfiguration, _ parameters: HuggingFaceHyperparameters
  ) throws(FormatError) {
    let sliding = try HuggingFaceRope(
      parameters, layerType: "sliding_attention", baseKey: "swa_rope_theta", defaultBase: 10000,
      isScaled: false, mayBePartial: true, usualPart: rotatedPart)
    decoder.slidingRopeBase = sliding.base
    let types = try parameters.slidingLayers(layerCount: decoder.layerCount)
    let pattern = try parameters.flags("hybrid_layer_pattern", count: decoder.layerCount)
    let slides =
      types ?? pattern ?? decoder.layers.indices.map { $0 != 0 && ($0 + 1) % 6 != 0 }
    // As transformers reads it: so many before the token, and its own.
    let before = try parameters.integer("sliding_window_size")
    guard before ?? 0 < 1 << 30 else {
      throw parameters.unsupported("sliding_window_size", "\(before ?? 0) positions")
    }
    let stated = try parameters.integer("sliding_window")
    decoder.slide(slides, window: before.map { $0 + 1 } ?? stated ?? 129)
    let slidingCount = try parameters.integer("swa_num_key_value_heads")
    let valueLength = try parameters.integer("v_head_dim") ?? 128
    let hasSinks = try parameters.bool("add_swa_attention_sink_bias") ?? true
    let allHaveSinks = try parameters.bool("add_full_attention_sink_bias") ?? false
    let scale = try parameters.double("attention_value_scale") ?? 1
    for (layer, slides) in slides.enumerated() {
      decoder.layers[layer].attention?.hasSinks = slides ? hasSinks : allHaveSinks
      decoder.layers[layer].attention?.valueScale = Float(scale)
      if valueLength != decoder.headDim {
        decoder.layers[layer].attention?.valueLength = valueLength
      }
      let count = slidingCount ?? 2 * decoder.keyValueHeadCount
      if slides, count != decoder.keyValueHeadCount {
        decoder.layers[layer].attention?.keyValueHeadCount = count
      }
    }
  }

  /// Layers without experts, which come first.
  private static func denseCount(
    _ parameters: HuggingFaceHyperparameters, layerCount: Int
  ) throws(FormatError) -> Int {
    let types = parameters.config["mlp_layer_types"]
    let frequencies = try parameters.flags("moe_layer_freq", count: layerCount)
    guard let sparse = types?.array?.map({ $0.string == "sparse" }) ?? frequencies else { return 1 }
    let count = sparse.prefix { !$0 }.count
    guard sparse.count == layerCount, sparse[count...].allSatisfy({ $0 }) else {
      throw parameters.error(
        .unsupported, types ?? parameters.config["moe_layer_freq"],
        "dense layers after those with experts, or not \(layerCount) in all, are not supported")
    }
    return count
  }
}

extension HuggingFaceHyperparameters {
  /// A list of 0 and 1, one a layer; nil if there is none.
  fileprivate func flags(_ key: StaticString, count: Int) throws(FormatError) -> [Bool]? {
    guard let list = config[key] else { return nil }
    let flags = list.array?.compactMap { $0.integer }.map { $0 != 0 }
    guard let flags, flags.count == count, list.array?.count == count else {
      throw error(.malformed, list, "\"\(key)\" is not a list of \(count) numbers")
    }
    return flags
  }
}
