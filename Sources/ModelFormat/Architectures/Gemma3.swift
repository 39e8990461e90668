/// Gemma 3 (text): sandwich norms, normalised heads, sliding windows, two RoPE bases, scaled embeddings.
///
/// GGUF files store norm weights with Gemma's "+1" folded in.
enum Gemma3: Architecture {
  static let name = "gemma3"
  /// Five sliding layers, then one that sees everything.
  static let slidingPattern = 6
  static let slidingRopeBase = 10000.0
  /// The 27B model, alone in scaling scores by its width per head.
  static let largestLayerCount = 62

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(pairing: .halves)
    configuration.ropeBase = try parameters.float("rope.freq_base") ?? 1_000_000
    if let window = try parameters.integer("attention.sliding_window"), window > 0 {
      configuration.slidingWindow = window
      configuration.slidingLayers = try slidingLayers(parameters, configuration.layerCount)
      configuration.slidingRopeBase =
        try parameters.float("rope.freq_base_swa") ?? slidingRopeBase
    }
    adjust(&configuration)
    return configuration
  }

  /// What follows from the family and the shape, whatever the file format.
  static func adjust(_ configuration: inout DecoderConfiguration) {
    configuration.activation = .geluTanh
    configuration.normalisesHeads = true
    configuration.normalisesOutputs = true
    configuration.embeddingScale = Float(configuration.embeddingLength).squareRoot()
    if configuration.layerCount == largestLayerCount {
      let width = Double(configuration.embeddingLength) / Double(configuration.queryHeadCount)
      configuration.attentionScale = Float(1 / width.squareRoot())
    }
  }

  /// For each layer whether it slides under a pattern of `period` layers whose last one does not.
  static func slidingLayers(layerCount: Int, period: Int) -> [Bool] {
    (0..<layerCount).map { $0 % period < period - 1 }
  }

  private static func slidingLayers(
    _ parameters: GGUFHyperparameters, _ layerCount: Int
  ) throws(FormatError) -> [Bool] {
    let suffix = "attention.sliding_window_pattern"
    if parameters.metadata.entry(parameters.key(suffix))?.isArray == true,
      let layers = try parameters.metadata.bools(parameters.key(suffix))
    {
      guard layers.count == layerCount else {
        throw parameters.unsupported(suffix, "\(layers.count) entries for \(layerCount) layers")
      }
      return layers
    }
    let period = try parameters.integer(suffix) ?? slidingPattern
    guard period > 0, layerCount <= DecoderConfiguration.layerLimit else {
      throw parameters.unsupported(suffix, "a period of \(period) over \(layerCount) layers")
    }
    return slidingLayers(layerCount: layerCount, period: period)
  }
}
