extension DecoderConfiguration {
  /// More layers than any model has; bounds what a header can make readers build.
  static let layerLimit = 1024
  /// More heads, and more elements of one, than any model has.
  static let headLimit = 1 << 12
  static let feedForwardLengthLimit = 1 << 22
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
      ("feed-forward length", hasFeedForward ? feedForwardLength : 1, Self.feedForwardLengthLimit),
      ("query head count", queryHeadCount, Self.headLimit),
      ("key-value head count", keyValueHeadCount, Self.headLimit),
      ("head length", headDim, Self.headLimit),
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
      (ropeDimensionCount % 2 == 0, "RoPE dimension count \(ropeDimensionCount) is odd"),
      (
        isGated || activation == .relu || activation == .reluSquared,
        "an FFN without gate has ReLU or its square, not \(activation.rawValue)"
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
    guard layers.contains(where: { $0.attention != nil || $0.scan != nil }) else {
      throw FormatError(.unsupported, path: path, "no layer attends or scans")
    }
    try experts?.validate(path: path)
    try validateNumbers(path)
  }

  private func validate(
    _ layer: LayerSpec, _ refuse: (_ message: String) -> FormatError
  ) throws(FormatError) {
    try validateBlocks(of: layer, refuse)
    if let problem = layer.scan?.problem { throw refuse(problem) }
    let attention = layer.attention
    if let attention, let problem = headProblem(attention) { throw refuse(problem) }
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
      guard block.residualScale == nil || block.preNorm == .rms else {
        throw refuse("a residual stream that a norm replaces has an RMSNorm in front of the block")
      }
      guard let scale = block.residualScale ?? 1 as Float?, scale.isFinite, scale > 0 else {
        throw refuse("the factor on the residual stream is not a positive number")
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
      let length = length(of: feedForward)
      guard (1...Self.feedForwardLengthLimit).contains(length) else {
        throw refuse("an FFN of \(length); 1 to \(Self.feedForwardLengthLimit) is possible")
      }
      guard feedForward.isGated == isGated, !(feedForward.isGated && feedForward.hasBiases) else {
        throw refuse("an FFN with a gate has no biases, and all FFNs have gates or none has")
      }
    }
  }

  private func validateBlocks(
    of layer: LayerSpec, _ refuse: (_ message: String) -> FormatError
  ) throws(FormatError) {
    guard (1...2).contains(layer.blocks.count),
      layer.blocks.allSatisfy({ (1...2).contains($0.branches.count) })
    else { throw refuse("a layer has one or two blocks of one or two branches") }
    let branches = layer.blocks.flatMap(\.branches)
    let counts = [
      ("attention", branches.count { $0.attention != nil }),
      ("a scan", branches.count { $0.scan != nil }),
      ("an FFN or experts", branches.count { !$0.isMixer }),
    ]
    for (name, count) in counts where count > 1 {
      throw refuse("\(name) \(count) times; once is possible")
    }
    for block in layer.blocks where block.branches.count == 2 {
      guard block.branches[0].attention != nil, block.branches[1].experts == nil else {
        throw refuse("of two branches, the first is attention and the other a scan or a dense FFN")
      }
    }
  }

  /// What is wrong with the heads of an attention; nil if nothing is.
  private func headProblem(_ spec: AttentionSpec) -> String? {
    let heads = heads(of: spec)
    let bounded = [
      ("query heads", heads.queryHeadCount), ("key-value heads", heads.keyValueHeadCount),
      ("elements of a value head", heads.valueLength),
    ]
    for (name, value) in bounded where !(1...Self.headLimit).contains(value) {
      return "\(value) \(name); 1 to \(Self.headLimit) are possible"
    }
    guard heads.queryHeadCount % heads.keyValueHeadCount == 0 else {
      return "\(heads.queryHeadCount) query heads do not divide among \(heads.keyValueHeadCount)"
        + " key-value heads"
    }
    guard heads.valueLength == heads.headDim || !spec.hasGate else {
      return "gates on attention with values of another length than keys are not supported"
    }
    guard spec.valueScale.isFinite, spec.valueScale > 0 else {
      return "the factor \(spec.valueScale) on values is not a positive number"
    }
    return nil
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
