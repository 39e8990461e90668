extension GGUFHyperparameters {
  /// How the file's positions are stretched.
  ///
  /// Files of longrope hold its factors as tensors; YaRN's follow from the metadata.
  func ropeScaling(base: Double, dimensionCount: Int) throws(FormatError) -> RopeScaling {
    var scaling = RopeScaling()
    let stated = try float("rope.scaling.attn_factor") ?? 0
    if stated != 0 { scaling.magnitude = stated }
    if hasTensor(RopeScaling.longFactorsName) {
      let key = "rope.scaling.original_context_length"
      guard let original = try integer(key) else { throw missing(key) }
      scaling.shortContextLength = original
      return scaling
    }
    let type = try metadata.string(key("rope.scaling.type")) ?? "linear"
    let legacyFactor = try float("rope.scale_linear")
    let factor = try float("rope.scaling.factor") ?? legacyFactor ?? 1
    guard type != "none", factor != 0, factor != 1 else { return scaling }
    guard factor.isFinite, factor > 0 else {
      throw unsupported("rope.scaling.factor", "\(factor) is not a positive number")
    }
    switch type {
    case "linear": scaling.linearScale = factor
    case "yarn": try addYaRN(factor, base: base, dimensionCount: dimensionCount, to: &scaling)
    default:
      throw unsupported(
        "rope.scaling.type", "RoPE scaling \"\(type)\" is not supported; none, linear and yarn are")
    }
    return scaling
  }

  /// The magnitude is the paper's, unless the file states another; a factor on it may come beside.
  ///
  /// `yarn_attn_factor` is what Hugging Face calls `attention_factor`, the whole magnitude. llama.cpp writes the key and takes the
  /// paper's magnitude all the same.
  private func addYaRN(
    _ factor: Double, base: Double, dimensionCount: Int, to scaling: inout RopeScaling
  ) throws(FormatError) {
    if let weight = try float("rope.scaling.yarn_ext_factor"), weight != 1, weight >= 0 {
      throw unsupported("rope.scaling.yarn_ext_factor", "\(weight) is not supported; 1 is")
    }
    if let multiplier = try float("rope.scaling.yarn_log_multiplier"), multiplier != 0 {
      throw unsupported("rope.scaling.yarn_log_multiplier", "\(multiplier) is not supported")
    }
    guard factor >= 1 else {
      throw unsupported("rope.scaling.factor", YaRN.refusal(of: factor))
    }
    let context = try required("context_length")
    var yarn = YaRN(
      factor: factor,
      originalContextLength: Double(
        try integer("rope.scaling.original_context_length") ?? context))
    func positive(_ suffix: String, _ value: Double) throws(FormatError) -> Double {
      guard let stated = try float(suffix), stated != 0 else { return value }
      guard stated.isFinite, stated > 0 else {
        throw unsupported(suffix, "\(stated) is not a positive number")
      }
      return stated
    }
    yarn.betaFast = try positive("rope.scaling.yarn_beta_fast", yarn.betaFast)
    yarn.betaSlow = try positive("rope.scaling.yarn_beta_slow", yarn.betaSlow)
    guard yarn.originalContextLength > 0, base.isFinite, base > 1,
      (2...4096).contains(dimensionCount)
    else {
      throw unsupported(
        "rope.scaling.type",
        "YaRN over \(dimensionCount) elements of base \(base) and an original context of "
          + "\(yarn.originalContextLength) is not possible")
    }
    scaling.magnitude *= try positive("rope.scaling.yarn_attn_factor", YaRN.magnitude(factor))
    scaling.factors[RopeScaling.factorsName] = yarn.divisors(
      base: base, dimensionCount: dimensionCount)
  }
}
