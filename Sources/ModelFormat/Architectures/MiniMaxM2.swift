/// MiniMax-M2: experts that a sigmoid scores and a bias helps to choose, RMSNorm over queries and keys as a whole, a part
/// of each head rotated.
enum MiniMaxM2: Architecture {
  static let name = "minimax-m2"
  static let huggingFaceNames = ["MiniMaxM2ForCausalLM"]
  static let skipsPredictionLayers = true
  static var huggingFaceLayerNames: [String: String] {
    expertNames(block: "block_sparse_moe", gate: "w1", up: "w3", down: "w2").merging([
      "block_sparse_moe.e_score_correction_bias": "exp_probs_b.bias",
      "mlp.e_score_correction_bias": "exp_probs_b.bias",
    ]) { _, new in new }
  }

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves, mayHaveExperts: true)
    try parameters.refuseSlidingWindow()
    configuration.experts = try parameters.requiredExperts(
      configuration, normalisesWeights: true, routing: .biasedSigmoid)
    configuration.editLayers { $0.attention?.headNorm = .projection }
    try configuration.validate(path: parameters.metadata.file.path)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(
      queryHeadCount: 48, keyValueHeadCount: 8, headDim: 128, contextLength: 196608,
      ropeBase: 5_000_000)
    // The first files state how many elements are rotated.
    let headDim = try parameters.integer("head_dim") ?? 128
    let rotated = try parameters.integer("rotary_dim") ?? headDim
    guard headDim > 0, (1...headDim).contains(rotated) else {
      throw parameters.unsupported("rotary_dim", "\(rotated) of heads of \(headDim) elements")
    }
    let rope = try HuggingFaceRope(
      parameters, defaultBase: defaults.ropeBase, mayBePartial: true,
      usualPart: Double(rotated) / Double(headDim))
    var decoder = try parameters.commonConfiguration(defaults, rope: rope, mayHaveExperts: true)
    try parameters.refuseSlidingLayers()
    if let kind = try parameters.string("qk_norm_type"), kind != "per_layer" {
      throw parameters.unsupported("qk_norm_type", "\"\(kind)\" is not supported; per_layer is")
    }
    if try parameters.bool("use_qk_norm") == false {
      throw parameters.unsupported("use_qk_norm", "norms are always there in \(name)")
    }
    try parameters.refuse([("shared_intermediate_size", 0)])
    decoder.experts = try parameters.experts(
      .init(
        expertCount: 256, expertsPerToken: 8, lengthKey: "intermediate_size",
        normalisesWeights: true, routing: .biasedSigmoid))
    decoder.editLayers { $0.attention?.headNorm = .projection }
    try decoder.validate(path: parameters.path)
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }
}
