import TensorBasics

extension DecoderConfiguration {
  /// What a bundle of neurons of this decoder holds, in its order.
  public var neuronRoles: [NeuronBundles.Role] { NeuronBundles.roles(isGated: isGated) }

  /// Why its FFNs cannot be in bundles of neurons; nil if they can.
  package var neuronProblem: String? {
    guard layers.allSatisfy({ $0.feedForward != nil }) else {
      return "a model of which a layer has no dense FFN is not put in bundles of neurons"
    }
    guard layers.allSatisfy({ $0.feedForward?.length == nil }) else {
      return "FFNs of different widths are not put in bundles of neurons"
    }
    return activation == .reluSquared
      ? "FFNs with the square of ReLU are not put in bundles of neurons" : nil
  }
}

extension NeuronBundles {
  /// What a bundle holds, in its order: what decides whether a neuron is active comes last.
  public static func roles(isGated: Bool) -> [Role] {
    isGated ? [.up, .down, .gate] : [.down, .up]
  }

  /// Bytes that a part has in a bundle of `neuronsPerBundle` neurons; nil if the type cannot hold
  /// its rows.
  ///
  /// Lengths must be within the bounds of ``DecoderConfiguration/validate(path:)``.
  static func partByteCount(
    _ role: Role, _ type: ElementType, neuronsPerBundle: Int, hiddenSize: Int
  ) -> Int? {
    if role == .down, neuronsPerBundle > 1 {
      guard type.isQuantised, neuronsPerBundle == type.blockElementCount else { return nil }
      return RowGroup.groupCount(rows: hiddenSize)
        * RowGroup.byteCount(type, columnCount: neuronsPerBundle)
    }
    guard let rowByteCount = type.rowByteCount(columnCount: hiddenSize) else { return nil }
    if neuronsPerBundle == 1 { return rowByteCount }
    return RowGroup.groupCount(rows: neuronsPerBundle)
      * RowGroup.byteCount(type, columnCount: hiddenSize)
  }

  /// Where the layer's checksums and bundles lie together, up to a multiple of 4096.
  public var byteSpan: Range<Int> { checksumOffset..<offset + bundleCount * byteStride }

  /// Checks everything but the place in the file.
  fileprivate func validate(
    _ configuration: DecoderConfiguration, path: String?
  ) throws(FormatError) {
    func error(_ message: String) -> FormatError {
      FormatError(.malformed, at: offset, path: path, message)
    }
    if let problem = configuration.neuronProblem { throw error(problem) }
    guard parts.map(\.role) == configuration.neuronRoles, let down = part(.down)?.part.type else {
      throw error("the parts of a bundle of neurons are not those of its FFN")
    }
    guard neuronsPerBundle == 1 || neuronsPerBundle == down.blockElementCount, bundleCount > 0,
      configuration.feedForwardLength % neuronsPerBundle == 0,
      configuration.feedForwardLength / neuronsPerBundle == bundleCount
    else {
      throw error(
        "\(bundleCount) bundles of \(neuronsPerBundle) neurons do not make an FFN of"
          + " \(configuration.feedForwardLength)")
    }
    for part in parts {
      let expected = Self.partByteCount(
        part.role, part.type, neuronsPerBundle: neuronsPerBundle,
        hiddenSize: configuration.hiddenSize)
      guard let expected, part.byteCount == expected else {
        throw error(
          "the part \"\(part.role.rawValue)\" of a bundle of neurons has \(part.byteCount) bytes,"
            + " which does not match its shape")
      }
    }
    guard byteStride % FlashImage.alignment == 0, byteStride >= byteCount else {
      throw error("bundles of \(byteCount) bytes cannot be \(byteStride) bytes apart")
    }
  }
}

extension NeuronLayout {
  /// Checks everything but the places in the file against a configuration that is valid.
  func validate(_ configuration: DecoderConfiguration, path: String?) throws(FormatError) {
    func require(_ holds: Bool, _ message: String) throws(FormatError) {
      guard holds else { throw FormatError(.malformed, path: path, message) }
    }
    let count = configuration.layerCount
    try require(configuration.experts == nil, "a model with experts is not in bundles of neurons")
    try require(
      configuration.layers.allSatisfy { layer in
        layer.blocks.count == 2 && layer.blocks.allSatisfy { $0.preNorm != nil }
      }, "an FFN beside attention, or without a norm before it, is not in bundles of neurons")
    try require(
      layers.count == count, "\(layers.count) layers in bundles of neurons, not \(count)")
    for layer in layers {
      try layer.validate(configuration, path: path)
      try require(
        layer.neuronsPerBundle == layers[0].neuronsPerBundle
          && layer.byteStride == layers[0].byteStride,
        "the layers' bundles of neurons are not equally long")
    }
    if let predictor {
      try require(
        predictor.ranks.count == count
          && predictor.ranks.allSatisfy { (1...configuration.hiddenSize).contains($0) },
        "the predictor's ranks are not one for each of \(count) layers, from 1 to"
          + " \(configuration.hiddenSize)")
      let fractions = [
        predictor.recalls, predictor.predictedFractions, predictor.activeFractions,
      ]
      try require(
        fractions.allSatisfy { $0.count == count && $0.allSatisfy((0...1).contains) },
        "the predictor's recalls and fractions are not one for each layer, from 0 to 1")
    }
    if let thresholds {
      try require(
        thresholds.values.count == count
          && thresholds.values.allSatisfy { $0.isFinite && $0 >= 0 },
        "the thresholds are not one for each layer, from 0 on")
      try require(
        (0...1).contains(thresholds.keptFraction),
        "the fraction kept by thresholds is \(thresholds.keptFraction)")
    }
  }
}
