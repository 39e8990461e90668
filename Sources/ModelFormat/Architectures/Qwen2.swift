/// Qwen 2 and 2.5: llama with biases on query, key and value, RoPE over halves.
enum Qwen2: Architecture {
  static let name = "qwen2"
  static let huggingFaceNames = ["Qwen2ForCausalLM"]

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves)
    try parameters.refuseSlidingWindow()
    configuration.editLayers { $0.attention?.hasBiases = true }
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(keyValueHeadCount: 32)
    let rope = try HuggingFaceRope(parameters, defaultBase: defaults.ropeBase)
    var decoder = try parameters.commonConfiguration(defaults, rope: rope)
    try parameters.refuseSlidingLayers()
    decoder.editLayers { $0.attention?.hasBiases = true }
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }
}

extension GGUFHyperparameters {
  /// For families whose files may name a window that their graph does not have.
  func refuseSlidingWindow() throws(FormatError) {
    let suffix = "attention.sliding_window"
    if let window = try integer(suffix), window > 0 {
      throw unsupported(suffix, "a sliding window is not supported in \(architecture)")
    }
  }

  /// For families whose models that see have positions of three numbers.
  func refuseImagePositions() throws(FormatError) {
    let suffix = "rope.dimension_sections"
    if metadata.entry(key(suffix)) != nil {
      throw unsupported(suffix, "positions of images are not supported in \(architecture)")
    }
  }

  /// For each layer whether it slides: as the file says layer by layer, or of each `usualPeriod` layers, where it states
  /// no other number, all but the last.
  func slidingLayers(layerCount: Int, usualPeriod: Int) throws(FormatError) -> [Bool] {
    let suffix = "attention.sliding_window_pattern"
    if metadata.entry(key(suffix))?.isArray == true, let layers = try metadata.bools(key(suffix)) {
      // Layers that predict further tokens may be counted too, after the others.
      let blockCount = try required("block_count")
      guard layers.count == layerCount || layers.count == blockCount, layers.count >= layerCount
      else {
        throw unsupported(suffix, "\(layers.count) entries for \(layerCount) layers")
      }
      return Array(layers.prefix(layerCount))
    }
    let period = try integer(suffix) ?? usualPeriod
    guard period > 0, layerCount <= DecoderConfiguration.layerLimit else {
      throw unsupported(suffix, "a period of \(period) over \(layerCount) layers")
    }
    return DecoderConfiguration.slidingLayers(layerCount: layerCount, period: period)
  }
}
