import Glibc

/// RoPE as `config.json` states it: `rope_theta` and `rope_scaling`, or since transformers 5
/// `rope_parameters`, where families with two kinds of layers have one entry for each.
struct HuggingFaceRope {
  var base: Double
  /// The part of a head that is rotated.
  var partialFactor = 1.0
  var scaling = RopeScaling()

  /// - Parameters:
  ///   - layerType: The entry of `rope_parameters` to read where there are several.
  ///   - baseKey: The old spelling's key of the base.
  ///   - isScaled: Whether the old spelling's `rope_scaling` applies to these layers.
  ///   - mayBePartial: Whether the family can rotate a part of a head.
  ///   - usualPart: The part where the file does not state it.
  init(
    _ parameters: HuggingFaceHyperparameters, layerType: StaticString = "full_attention",
    baseKey: StaticString = "rope_theta", defaultBase: Double, isScaled: Bool = true,
    mayBePartial: Bool = false, usualPart: Double = 1
  ) throws(FormatError) {
    let isOwnBase = parameters.config[baseKey] != nil && !isScaled
    var entry = parameters.config["rope_parameters"]
    let isTyped = entry?[layerType] != nil
    if let typed = entry?[layerType] { entry = typed }
    var stated = try parameters.double(baseKey)
    // A base of its own key is not that of an entry for all layers.
    if let entry, isTyped || !isOwnBase, let base = try parameters.double("rope_theta", in: entry) {
      stated = base
    }
    base = stated ?? defaultBase
    guard base.isFinite, base > 0 else {
      throw parameters.error(.malformed, entry ?? parameters.config, "RoPE's base is \(base)")
    }
    let legacy = isScaled ? parameters.config["rope_scaling"] : nil
    let key: StaticString = "partial_rotary_factor"
    var partial = try parameters.double(key)
    if let scaling = entry ?? legacy {
      partial = try parameters.double(key, in: scaling) ?? partial
    }
    let part = partial ?? usualPart
    if part != 1 {
      guard mayBePartial, part > 0, part < 1 else {
        throw parameters.error(
          .unsupported, entry ?? parameters.config[key], "\(key): \(part) is not supported")
      }
      partialFactor = part
    }
    guard let values = entry ?? legacy else { return }
    scaling = try RopeScalingReader(
      values: values, parameters: parameters, base: base, partialFactor: partialFactor
    ).scaling()
  }
}

extension HuggingFaceHyperparameters {
  /// Rotated elements of a head, known before the configuration is; bounded like there.
  fileprivate func rotatedCount(_ partialFactor: Double) throws(FormatError) -> Int {
    var headDim = try integer("head_dim")
    if headDim == nil, let width = try integer("hidden_size"),
      let heads = try integer("num_attention_heads"), heads > 0
    {
      headDim = width / heads
    }
    guard let headDim, (2...4096).contains(headDim) else {
      throw error(.malformed, config, "the head length is not known")
    }
    return max(2, Int(Double(headDim) * partialFactor))
  }
}

/// `rope_scaling`, or an entry of `rope_parameters`, after transformers' `modeling_rope_utils`.
private struct RopeScalingReader {
  let values: JSONValue
  let parameters: HuggingFaceHyperparameters
  let base: Double
  let partialFactor: Double

  func scaling() throws(FormatError) -> RopeScaling {
    let stated = values["rope_type"] ?? values["type"]
    guard values.members != nil, stated == nil || stated?.string != nil else {
      throw parameters.error(
        .malformed, values, "RoPE scaling is not an object with a \"rope_type\"")
    }
    let type = stated?.string ?? "default"
    switch type {
    case "none", "default": return RopeScaling()
    case "linear": return RopeScaling(linearScale: try required("factor"))
    case "llama3": return try llama3()
    case "yarn": return try yarn()
    case "longrope", "su": return try longRope()
    // It only differs beyond the context that the model was trained for.
    case "dynamic" where try optional("factor") == 1: return RopeScaling()
    default:
      throw parameters.error(
        .unsupported, values,
        "RoPE scaling \"\(type)\" is not supported; default, linear, llama3, yarn and longrope are")
    }
  }

  /// A positive number; nil if it is not stated.
  private func optional(_ key: StaticString) throws(FormatError) -> Double? {
    guard let value = try parameters.double(key, in: values) else { return nil }
    guard value.isFinite, value > 0 else {
      throw parameters.error(.malformed, values, "RoPE scaling has no positive \"\(key)\"")
    }
    return value
  }

  private func required(_ key: StaticString) throws(FormatError) -> Double {
    guard let value = try optional(key) else {
      throw parameters.error(.malformed, values, "RoPE scaling has no positive \"\(key)\"")
    }
    return value
  }

  /// Long waves are slowed by `factor`, short ones left alone, those between blended.
  private func llama3() throws(FormatError) -> RopeScaling {
    let factor = try required("factor")
    let low = try required("low_freq_factor")
    let high = try required("high_freq_factor")
    let context = try required("original_max_position_embeddings")
    guard high > low else {
      throw parameters.error(.malformed, values, "high_freq_factor is not above low_freq_factor")
    }
    guard factor != 1 else { return RopeScaling() }
    let dimensionCount = try parameters.rotatedCount(partialFactor)
    let factors = (0..<dimensionCount / 2).map { pair -> Float in
      let frequency = pow(base, -2 * Double(pair) / Double(dimensionCount))
      let waveLength = 2 * Double.pi / frequency
      if waveLength > context / low { return Float(factor) }
      if waveLength < context / high { return 1 }
      let smooth = (context / waveLength - low) / (high - low)
      return Float(1 / ((1 - smooth) / factor + smooth))
    }
    return RopeScaling(factors: [RopeScaling.factorsName: factors])
  }

  /// The context before scaling, and how much longer it became.
  private func contexts() throws(FormatError) -> (original: Double, factor: Double?) {
    let whole = try parameters.double("max_position_embeddings")
    let outer = try parameters.double("original_max_position_embeddings")
    let original = try optional("original_max_position_embeddings") ?? outer ?? whole
    guard let original, original > 1, original <= 0x1p30 else {
      throw parameters.error(
        .malformed, values, "RoPE scaling has no \"original_max_position_embeddings\"")
    }
    return (original, whole.map { $0 / original })
  }

  private func yarn() throws(FormatError) -> RopeScaling {
    let (original, ratio) = try contexts()
    guard let factor = try optional("factor") ?? ratio else {
      throw parameters.error(.malformed, values, "RoPE scaling has no positive \"factor\"")
    }
    guard factor >= 1 else {
      throw parameters.error(.malformed, values["factor"] ?? values, YaRN.refusal(of: factor))
    }
    var yarn = YaRN(factor: factor, originalContextLength: original)
    yarn.betaFast = try optional("beta_fast") ?? yarn.betaFast
    yarn.betaSlow = try optional("beta_slow") ?? yarn.betaSlow
    yarn.truncates = try parameters.bool("truncate", in: values) ?? true
    var scaling = RopeScaling()
    let scales = (
      try parameters.double("mscale", in: values),
      try parameters.double("mscale_all_dim", in: values)
    )
    if let stated = try optional("attention_factor") {
      scaling.magnitude = stated
    } else if case (let scale?, let all?) = scales, scale != 0, all != 0 {
      scaling.magnitude = YaRN.magnitude(factor, scale) / YaRN.magnitude(factor, all)
    } else {
      scaling.magnitude = YaRN.magnitude(factor)
    }
    if factor != 1 {
      guard base > 1 else {
        throw parameters.error(.unsupported, values, "YaRN over the base \(base)")
      }
      scaling.factors[RopeScaling.factorsName] = yarn.divisors(
        base: base, dimensionCount: try parameters.rotatedCount(partialFactor))
    }
    return scaling
  }

  private func longRope() throws(FormatError) -> RopeScaling {
    let (original, ratio) = try contexts()
    // Where config.json itself states the original context, its ratio counts (Phi 3).
    let isStated = try parameters.double("original_max_position_embeddings") != nil
    let stated = try optional("factor")
    guard let factor = isStated ? ratio : stated ?? ratio else {
      throw parameters.error(.malformed, values, "RoPE scaling has no positive \"factor\"")
    }
    var scaling = RopeScaling(shortContextLength: Int(original))
    scaling.magnitude =
      try optional("attention_factor")
      ?? LongRope.magnitude(factor, originalContextLength: original)
    scaling.factors = [
      RopeScaling.shortFactorsName: try factors("short_factor"),
      RopeScaling.longFactorsName: try factors("long_factor"),
    ]
    return scaling
  }

  private func factors(_ key: StaticString) throws(FormatError) -> [Float] {
    let dimensionCount = try parameters.rotatedCount(partialFactor)
    let stated = values[key]?.array ?? []
    let factors = stated.compactMap { $0.double.map(Float.init) }
    guard factors.count == dimensionCount / 2, stated.count == factors.count,
      factors.allSatisfy({ $0.isFinite && $0 > 0 })
    else {
      throw parameters.error(
        .malformed, values[key] ?? values,
        "\(key) should be \(dimensionCount / 2) positive numbers, one for each rotated pair")
    }
    return factors
  }
}
