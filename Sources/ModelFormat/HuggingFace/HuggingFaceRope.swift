import Glibc

/// RoPE as `config.json` states it: `rope_theta` and `rope_scaling`, or since transformers 5
/// `rope_parameters`, where families with two kinds of layers have one entry for each.
struct HuggingFaceRope {
  var base: Double
  var linearScale = 1.0
  /// Divisors of the frequencies, one a rotated pair (Llama 3's scaling); nil without.
  var factors: [Float]?

  /// - Parameters:
  ///   - layerType: The entry of `rope_parameters` to read where there are several.
  ///   - baseKey: The old spelling's key of the base.
  ///   - isScaled: Whether the old spelling's `rope_scaling` applies to these layers.
  init(
    _ parameters: HuggingFaceHyperparameters, layerType: StaticString = "full_attention",
    baseKey: StaticString = "rope_theta", defaultBase: Double, isScaled: Bool = true
  ) throws(FormatError) {
    var entry = parameters.config["rope_parameters"]
    if let typed = entry?[layerType] { entry = typed }
    var stated = try parameters.double(baseKey)
    if let entry, let base = try parameters.double("rope_theta", in: entry) { stated = base }
    base = stated ?? defaultBase
    guard base.isFinite, base > 0 else {
      throw parameters.error(.malformed, entry ?? parameters.config, "RoPE's base is \(base)")
    }
    let legacy = isScaled ? parameters.config["rope_scaling"] : nil
    guard let scaling = entry ?? legacy else { return }
    if let partial = try parameters.double("partial_rotary_factor", in: scaling), partial != 1 {
      throw parameters.error(
        .unsupported, scaling, "partial_rotary_factor: \(partial) is not supported")
    }
    switch (scaling["rope_type"] ?? scaling["type"])?.string ?? "default" {
    case "none", "default": break
    case "linear": linearScale = try Self.number("factor", scaling, parameters)
    case "llama3": factors = try Self.llama3(scaling, parameters, base: base)
    case let other:
      throw parameters.error(
        .unsupported, scaling,
        "RoPE scaling \"\(other)\" is not supported; default, linear and llama3 are")
    }
  }

  private static func number(
    _ key: StaticString, _ scaling: JSONValue, _ parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> Double {
    guard let value = try parameters.double(key, in: scaling), value.isFinite, value > 0 else {
      throw parameters.error(.malformed, scaling, "RoPE scaling has no positive \"\(key)\"")
    }
    return value
  }

  /// transformers' `_compute_llama3_parameters`: long waves are slowed by `factor`, short ones left
  /// alone, those between blended.
  private static func llama3(
    _ scaling: JSONValue, _ parameters: HuggingFaceHyperparameters, base: Double
  ) throws(FormatError) -> [Float] {
    let factor = try number("factor", scaling, parameters)
    let low = try number("low_freq_factor", scaling, parameters)
    let high = try number("high_freq_factor", scaling, parameters)
    let context = try number("original_max_position_embeddings", scaling, parameters)
    guard high > low else {
      throw parameters.error(.malformed, scaling, "high_freq_factor is not above low_freq_factor")
    }
    let dimensionCount = try headDim(parameters)
    return (0..<dimensionCount / 2).map { pair in
      let frequency = pow(base, -2 * Double(pair) / Double(dimensionCount))
      let waveLength = 2 * Double.pi / frequency
      if waveLength > context / low { return Float(factor) }
      if waveLength < context / high { return 1 }
      let smooth = (context / waveLength - low) / (high - low)
      return Float(1 / ((1 - smooth) / factor + smooth))
    }
  }

  /// Elements of a head, known before the configuration is; bounded like there.
  private static func headDim(
    _ parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> Int {
    let stated = try parameters.integer("head_dim")
    if let stated, (2...4096).contains(stated) { return stated }
    guard let width = try parameters.integer("hidden_size"),
      let heads = try parameters.integer("num_attention_heads"), heads > 0,
      (2...4096).contains(width / heads)
    else { throw parameters.error(.malformed, parameters.config, "the head length is not known") }
    return width / heads
  }
}
