/// Qwen 3 Next: of four layers three scan by the gated delta rule and one attends, with gates on its output and a part of each
/// head rotated; experts everywhere, beside a gated one that always runs.
enum Qwen3Next: Architecture {
  static let name = "qwen3next"
  static let huggingFaceNames = ["Qwen3NextForCausalLM"]
  static let skipsPredictionLayers = true
  static let huggingFaceNormsAreFromOne = true
  /// What llama.cpp calls the norm in front of the FFN.
  static let ggufLayerNames = ["post_attention_norm": "ffn_norm"]
  static var huggingFaceLayerNames: [String: String] {
    expertNames().merging(scanNames) { _, new in new }
  }
  /// Of the parts of a scan, in one matrix or in several.
  static let scanNames = [
    "linear_attn.in_proj_qkvz": "ssm_in", "linear_attn.in_proj_ba": "ssm_ba",
    "linear_attn.in_proj_qkv": "attn_qkv", "linear_attn.in_proj_z": "attn_gate",
    "linear_attn.in_proj_b": "ssm_beta", "linear_attn.in_proj_a": "ssm_alpha",
    "linear_attn.conv1d": "ssm_conv1d", "linear_attn.dt_bias": "ssm_dt.bias",
    "linear_attn.A_log": "ssm_a", "linear_attn.norm": "ssm_norm",
    "linear_attn.out_proj": "ssm_out",
  ]

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves, mayHaveExperts: true)
    try parameters.refuseSlidingWindow()
    try configuration.placeScans(parameters, inputs: .byKind)
    for layer in 0..<configuration.layerCount
    where parameters.hasTensor("blk.\(layer).ssm_in.weight") {
      configuration.layers[layer].scan?.inputs = .byKeyHead
    }
    configuration.experts = try parameters.requiredExperts(
      configuration, normalisesWeights: true, dividesLength: true, sharesExpert: true)
    try configuration.validate(path: parameters.metadata.file.path)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    try configuration(
      parameters, .init(queryHeadCount: 16, keyValueHeadCount: 2, headDim: 256), .byKeyHead,
      experts: .init(
        expertCount: 512, expertsPerToken: 10, length: 512, sharedLength: 512,
        normalisesWeights: true))
  }

  /// What folders of the families with such layers say.
  ///
  /// - Parameters:
  ///   - inputs: how the scans' lie.
  ///   - experts: nil in a dense family.
  static func configuration(
    _ parameters: HuggingFaceHyperparameters, _ defaults: HuggingFaceHyperparameters.Defaults,
    _ inputs: ScanSpec.Inputs, experts: HuggingFaceHyperparameters.ExpertKeys? = nil
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let rope = try HuggingFaceRope(
      parameters, defaultBase: defaults.ropeBase, mayBePartial: true, usualPart: 0.25)
    var decoder = try parameters.commonConfiguration(
      defaults, rope: rope, mayHaveExperts: experts != nil)
    let scan = ScanSpec(
      keyHeadCount: try parameters.required("linear_num_key_heads", default: 16),
      valueHeadCount: try parameters.required("linear_num_value_heads", default: 32),
      keyLength: try parameters.required("linear_key_head_dim", default: 128),
      valueLength: try parameters.required("linear_value_head_dim", default: 128),
      tapCount: try parameters.required("linear_conv_kernel_dim", default: 4), inputs: inputs)
    try decoder.place(
      scan, try parameters.scanningLayers(layerCount: decoder.layerCount), path: parameters.path)
    if let experts { decoder.experts = try parameters.experts(experts) }
    try decoder.validate(path: parameters.path)
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }
}

extension DecoderConfiguration {
  /// Has the layers scan that a GGUF file says, as it says.
  mutating func placeScans(
    _ parameters: GGUFHyperparameters, inputs: ScanSpec.Inputs, takesKeysInTurn: Bool = false
  ) throws(FormatError) {
    var scan = try parameters.scan(inputs: inputs)
    scan.takesKeysInTurn = takesKeysInTurn
    try place(
      scan, try parameters.scanningLayers(layerCount: layerCount),
      path: parameters.metadata.file.path)
  }

  /// Has layers scan, and the others attend with gates and normalised heads.
  ///
  /// - Throws: ``FormatError`` for a scan that is not possible.
  fileprivate mutating func place(
    _ scan: ScanSpec, _ scanning: [Bool], path: String?
  ) throws(FormatError) {
    if let problem = scan.problem { throw FormatError(.malformed, path: path, problem) }
    for (layer, scans) in zip(layers.indices, scanning) {
      if scans { layers[layer].scan = scan }
      layers[layer].attention?.headNorm = .heads
      layers[layer].attention?.hasGate = true
    }
  }
}

extension GGUFHyperparameters {
  /// A scan as the file states it, in Mamba's words.
  func scan(inputs: ScanSpec.Inputs) throws(FormatError) -> ScanSpec {
    let heads = try required("ssm.time_step_rank")
    let length = try required("ssm.inner_size")
    guard heads > 0, length % heads == 0 else {
      throw unsupported("ssm.inner_size", "\(length) does not divide among \(heads) heads")
    }
    return ScanSpec(
      keyHeadCount: try required("ssm.group_count"), valueHeadCount: heads,
      keyLength: try required("ssm.state_size"), valueLength: length / heads,
      tapCount: try required("ssm.conv_kernel"), inputs: inputs)
  }

  /// For each layer whether it scans: as is stated for each, or of each four all but the last.
  fileprivate func scanningLayers(layerCount: Int) throws(FormatError) -> [Bool] {
    if let stated = try metadata.bools(key("attention.recurrent_layers")) {
      guard stated.count >= layerCount else {
        throw unsupported(
          "attention.recurrent_layers", "\(stated.count) entries, not \(layerCount)")
      }
      return Array(stated.prefix(layerCount))
    }
    let period = try integer("full_attention_interval") ?? 4
    guard period > 0 else { throw unsupported("full_attention_interval", "\(period) layers") }
    return DecoderConfiguration.slidingLayers(layerCount: layerCount, period: period)
  }
}

extension HuggingFaceHyperparameters {
  /// For each layer whether it scans: as `layer_types` says, or of each four all but the last.
  fileprivate func scanningLayers(layerCount: Int) throws(FormatError) -> [Bool] {
    guard let types = config["layer_types"] else {
      let period = try integer("full_attention_interval") ?? 4
      guard period > 0 else { throw unsupported("full_attention_interval", "\(period) layers") }
      return DecoderConfiguration.slidingLayers(layerCount: layerCount, period: period)
    }
    var scans: [Bool] = []
    for type in types.array ?? [] {
      switch type.string {
      case "full_attention": scans.append(false)
      case "linear_attention": scans.append(true)
      case let other:
        throw error(
          .unsupported, type,
          "layer_types: \"\(other ?? "?")\" is not supported; full_attention and linear_attention are"
        )
      }
    }
    guard scans.count == layerCount else {
      throw error(.malformed, types, "layer_types has \(scans.count) entries, not \(layerCount)")
    }
    return scans
  }
}
