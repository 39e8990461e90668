import TensorBasics

/// MiniMax-01: of eight layers seven with lightning attention and one that attends, experts everywhere; the residual stream is what
/// norms make of it. There are no GGUF files of it.
enum MiniMax: Architecture {
  static let name = "minimax"
  static let ggufNames: [String] = []
  static let huggingFaceNames = ["MiniMaxForCausalLM", "MiniMaxText01ForCausalLM"]
  static var huggingFaceLayerNames: [String: String] {
    expertNames(block: "block_sparse_moe", gate: "w1", up: "w3", down: "w2").merging([
      "self_attn.out_proj": "ssm_out", "self_attn.norm": "ssm_norm",
      "self_attn.output_gate": "attn_gate",
    ]) { _, new in new }
  }

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    throw parameters.metadata.error(
      .unsupported, key: "general.architecture",
      "MiniMax-01 is supported as a Hugging Face folder, not as GGUF")
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(
      queryHeadCount: 32, keyValueHeadCount: 8, contextLength: 4096 * 32, normEpsilon: 1e-5,
      ropeBase: 1_000_000)
    let rope = try HuggingFaceRope(
      parameters, defaultBase: defaults.ropeBase, mayBePartial: true,
      usualPart: rotatedPart(parameters))
    var decoder = try parameters.commonConfiguration(defaults, rope: rope, mayHaveExperts: true)
    try parameters.refuse([("shared_intermediate_size", 0), ("sliding_window", 0)])
    if try parameters.bool("postnorm") == false {
      throw parameters.unsupported("postnorm", "false is not supported")
    }
    decoder.experts = try parameters.experts(
      .init(
        expertCount: 8, expertsPerToken: 2, lengthKey: "intermediate_size", length: 14336,
        normalisesWeights: true))
    let heads = decoder.queryHeadCount
    let scan = ScanSpec(
      keyHeadCount: heads, valueHeadCount: heads, keyLength: decoder.headDim,
      valueLength: decoder.headDim, tapCount: 1, inputs: .lightning)
    if let problem = scan.problem { throw FormatError(.malformed, path: parameters.path, problem) }
    var derived = rope.scaling.factors
    let attends = try attends(parameters, layerCount: decoder.layerCount)
    for (layer, attends) in attends.enumerated() {
      let kind = attends ? "full" : "linear"
      try scale(&decoder.layers[layer].blocks[0], parameters, kind + "_attn", kind + "_attention")
      try scale(&decoder.layers[layer].blocks[1], parameters, "mlp", "mlp")
      guard !attends else { continue }
      decoder.layers[layer].scan = scan
      derived["blk.\(layer).ssm_a"] = decays(layer, of: decoder)
      // SiLU without a convolution.
      derived["blk.\(layer).ssm_conv1d.weight"] = Array(repeating: 1, count: scan.channelCount)
    }
    try decoder.validate(path: parameters.path)
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: derived)
  }

  /// The part of a head that is rotated where `partial_rotary_factor` is not stated.
  private static func rotatedPart(
    _ parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> Double {
    guard let count = try parameters.integer("rotary_dim"),
      let length = try parameters.integer("head_dim"), length > 0, count < length
    else { return 1 }
    return Double(count) / Double(length)
  }

  /// For each layer whether it attends.
  private static func attends(
    _ parameters: HuggingFaceHyperparameters, layerCount: Int
  ) throws(FormatError) -> [Bool] {
    let types = parameters.config["layer_types"] ?? parameters.config["attn_type_list"]
    guard let types else { return (0..<layerCount).map { $0 % 2 == 0 } }
    var attends: [Bool] = []
    for type in types.array ?? [] {
      switch (type.string, type.integer) {
      case ("full_attention", _), (_, 1): attends.append(true)
      case ("linear_attention", _), (_, 0): attends.append(false)
      default:
        throw parameters.error(
          .unsupported, type,
          "layers of other kinds than full_attention and linear_attention are not supported")
      }
    }
    guard attends.count == layerCount else {
      throw parameters.error(
        .malformed, types, "\(attends.count) kinds of layers are stated, not \(layerCount)")
    }
    return attends
  }

  /// Factors on what a block adds and on what it adds to, under the names of both spellings.
  private static func scale(
    _ block: inout BlockSpec, _ parameters: HuggingFaceHyperparameters, _ name: String,
    _ old: String
  ) throws(FormatError) {
    func factor(_ part: String) throws(FormatError) -> Float {
      for key in ["\(name)_\(part)_factor", "layernorm_\(old)_\(part)"] {
        guard let value = parameters.config.members?.last(where: { $0.key == key })?.value else {
          continue
        }
        guard let number = value.double else {
          throw parameters.error(
            .malformed, value, "\"\(key)\" should be a number and is \(value.found)")
        }
        return Float(number)
      }
      return 1
    }
    block.residualScale = try factor("alpha")
    block.scale = try factor("beta")
  }

  /// Logarithms of what heads keep from token to token: less of it in later heads, and more in later layers.
  private static func decays(_ layer: Int, of decoder: DecoderConfiguration) -> [Float] {
    let base = CanonicalMath.exp(-8 / Double(decoder.queryHeadCount) * CanonicalMath.log(2))
    let factor = 1 - Double(layer) / (Double(decoder.layerCount - 1) + 1e-5) + 1e-5
    var (decays, power): ([Float], Double) = ([], 1)
    for _ in 0..<decoder.queryHeadCount {
      power *= base
      decays.append(Float(-power * factor))
    }
    return decays
  }
}
