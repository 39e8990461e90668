extension DecoderConfiguration {
  /// More layers than any model has; bounds what a header can make readers build.
  static let layerLimit = 1024
  /// More rows than any table of positions has in front of position 0.
  static let positionOffsetLimit = 1 << 16

  /// What is wrong with a number of layers that is not possible.
  static func layerCountProblem(_ count: Int) -> String {
    "layer count is \(count); 1 to \(layerLimit) is possible"
  }

  /// For readers, before they make layers.
  static func checkLayerCount(_ count: Int, path: String?) throws(FormatError) {
    guard (1...layerLimit).contains(count) else {
      throw FormatError(.malformed, path: path, layerCountProblem(count))
    }
  }

  /// Checks that the values describe a decoder that can run, and are small enough for products of
  /// shapes to stay far from overflow.
  ///
  /// - Throws: ``FormatError`` naming the value.
  public func validate(path: String? = nil) throws(FormatError) {
    try Self.checkLayerCount(layerCount, path: path)
    let bounded: [(name: String, value: Int, limit: Int)] = [
      ("embedding length", hiddenSize, 1 << 20),
      ("feed-forward length", feedForwardLength, 1 << 22),
      ("query head count", queryHeadCount, 1 << 12),
      ("key-value head count", keyValueHeadCount, 1 << 12),
      ("head length", headDim, 1 << 12),
      ("vocabulary count", vocabularyCount, 1 << 24),
      ("context length", contextLength, 1 << 30),
      ("RoPE dimension count", ropeDimensionCount, headDim),
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
        isGated || activation == .relu,
        "an FFN without gate has ReLU, not \(activation.rawValue)"
      ),
    ]
    for (holds, message) in problems where !holds {
      throw FormatError(.unsupported, path: path, message)
    }
    for (number, layer) in layers.enumerated() {
      try validate(layer) { message in
        FormatError(.unsupported, path: path, "layer \(number): \(message)")
      }
    }
    guard layers.contains(where: { $0.attention != nil }) else {
      throw FormatError(
        .unsupported, path: path, "no layer attends; a model of scans alone is not supported")
    }
    try experts?.validate(path: path)
    try validateNumbers(path)
  }

  private func validate(
    _ layer: LayerSpec, _ refuse: (_ message: String) -> FormatError
  ) throws(FormatError) {
    let branches = layer.blocks.flatMap(\.branches)
    let attentions = branches.compactMap(\.attention)
    let mixerCount = branches.count { $0.isMixer }
    guard mixerCount == 1 else {
      throw refuse("attention or a scan \(mixerCount) times; once is possible")
    }
    guard branches.count == 2, layer.blocks.allSatisfy({ !$0.branches.isEmpty }) else {
      throw refuse("a layer has attention or a scan, and one FFN or its experts")
    }
    guard layer.blocks.count == 2 || (branches[0].attention != nil && layer.experts == nil) else {
      throw refuse("of two branches, the first is attention and the other a dense FFN")
    }
    if let problem = layer.scan?.problem { throw refuse(problem) }
    let attention = attentions.first
    let window = attention?.window ?? 1
    guard (1...1 << 30).contains(window) else {
      throw refuse("sliding window is \(window); 1 to \(1 << 30) is possible")
    }
    guard attention?.rope == nil || positionOffset == nil else {
      throw refuse("positions are learned, and RoPE rotates too")
    }
    for block in layer.blocks {
      guard block.preNorm != nil || layer.experts == nil else {
        throw refuse("experts without a norm before them are not supported")
      }
      guard block.scale.isFinite, block.scale > 0 else {
        throw refuse("the scale \(block.scale) of a block is not a positive number")
      }
      guard block.preNorm != .layer || (attention?.headNorm == nil && block.postNorm == nil) else {
        throw refuse("LayerNorm on heads, projections or outputs is not supported")
      }
      guard block.postNorm != .layer else { throw refuse("LayerNorm on outputs is not supported") }
    }
    guard layer.experts == nil || layer.experts == experts else {
      throw refuse("layers with other experts")
    }
    if let feedForward = layer.feedForward {
      guard feedForward.isGated == isGated, !(feedForward.isGated && feedForward.hasBiases) else {
        throw refuse("an FFN with a gate has no biases, and all FFNs have gates or none has")
      }
    }
  }

  private func validateNumbers(_ path: String?) throws(FormatError) {
    let numbers: [(name: String, value: Double)] = [
      ("norm epsilon", Double(normEpsilon)), ("RoPE base", ropeBase),
      ("RoPE scale", ropeLinearScale), ("RoPE magnitude", Double(ropeMagnitude)),
      ("sliding RoPE base", slidingRopeBase ?? 1),
      ("embedding scale", Double(embeddingScale)), ("attention scale", Double(attentionScale)),
      ("logit scale", Double(logitScale)),
      ("cap of attention scores", Double(attentionSoftCap ?? 1)),
      ("cap of logits", Double(logitSoftCap ?? 1)),
    ]
    for (name, value) in numbers where !(value.isFinite && value > 0) {
      throw FormatError(.malformed, path: path, "\(name) is \(value), not a positive number")
    }
  }
}
