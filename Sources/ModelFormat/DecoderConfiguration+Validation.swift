extension DecoderConfiguration {
  /// More layers than any model has; bounds what a header can make readers build.
  static let layerLimit = 1024
  /// More rows than any table of positions has in front of position 0.
  static let positionOffsetLimit = 1 << 16

  /// Checks that the values describe a decoder that can run, and are small enough for products of
  /// shapes to stay far from overflow.
  ///
  /// - Throws: ``FormatError`` naming the value.
  public func validate(path: String? = nil) throws(FormatError) {
    let bounded: [(name: String, value: Int, limit: Int)] = [
      ("layer count", layerCount, Self.layerLimit),
      ("embedding length", hiddenSize, 1 << 20),
      ("feed-forward length", feedForwardLength, 1 << 22),
      ("query head count", queryHeadCount, 1 << 12),
      ("key-value head count", keyValueHeadCount, 1 << 12),
      ("head length", headDim, 1 << 12),
      ("vocabulary count", vocabularyCount, 1 << 24),
      ("context length", contextLength, 1 << 30),
      ("RoPE dimension count", ropeDimensionCount, headDim),
      ("sliding window", slidingWindow ?? 1, 1 << 30),
      ("context length of RoPE's short factors", shortContextLength ?? 1, 1 << 30),
    ]
    for (name, value, limit) in bounded where value < 1 || value > limit {
      throw FormatError(.malformed, path: path, "\(name) is \(value); 1 to \(limit) is possible")
    }
    guard (0...Self.positionOffsetLimit).contains(positionOffset ?? 0) else {
      throw FormatError(
        .malformed, path: path,
        "position offset is \(positionOffset ?? 0); 0 to \(Self.positionOffsetLimit) is possible")
    }
    let problems: [(holds: Bool, message: String)] = [
      (
        queryHeadCount % keyValueHeadCount == 0,
        "\(queryHeadCount) query heads do not divide among \(keyValueHeadCount) key-value heads"
      ),
      (ropeDimensionCount % 2 == 0, "RoPE dimension count \(ropeDimensionCount) is odd"),
      (
        slidingLayers.isEmpty || slidingLayers.count == layerCount,
        "\(slidingLayers.count) sliding-window entries for \(layerCount) layers"
      ),
      (
        slidingWindow != nil || !slidingLayers.contains(true),
        "layers slide, but there is no sliding window"
      ),
      (
        !(normalisesHeads && normalisesProjections),
        "queries and keys are normalised by head or as a whole, not both"
      ),
      (
        normKind == .rms || !(normalisesHeads || normalisesProjections || normalisesOutputs),
        "LayerNorm on heads, projections or outputs is not supported"
      ),
      (isGated || experts == nil, "experts without gates are not supported"),
      (isGated || activation == .relu, "an FFN without gate has ReLU, not \(activation.rawValue)"),
      (!(isGated && hasProjectionBiases), "an FFN with a gate has no biases"),
    ]
    for (holds, message) in problems where !holds {
      throw FormatError(.unsupported, path: path, message)
    }
    try experts?.validate(path: path)
    try validateNumbers(path)
  }

  private func validateNumbers(_ path: String?) throws(FormatError) {
    let numbers: [(name: String, value: Double)] = [
      ("norm epsilon", Double(normEpsilon)), ("RoPE base", ropeBase),
      ("RoPE scale", ropeLinearScale), ("RoPE magnitude", Double(ropeMagnitude)),
      ("sliding RoPE base", slidingRopeBase ?? 1),
      ("embedding scale", Double(embeddingScale)), ("attention scale", Double(attentionScale)),
    ]
    for (name, value) in numbers where !(value.isFinite && value > 0) {
      throw FormatError(.malformed, path: path, "\(name) is \(value), not a positive number")
    }
  }
}
