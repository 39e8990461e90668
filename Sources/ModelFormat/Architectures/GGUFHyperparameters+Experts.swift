extension GGUFHyperparameters {
  /// For families that are always dense.
  func refuseExperts() throws(FormatError) {
    for suffix in ["expert_count", "expert_used_count"] {
      if let value = try integer(suffix), value != 0 {
        throw unsupported(
          suffix, "\(value) is not supported; only dense models are in \(architecture)")
      }
    }
  }

  /// What the file says of its experts; nil if it has none.
  ///
  /// - Parameters:
  ///   - configuration: what the file says otherwise.
  ///   - normalisesWeights: what the family does where the file does not say it.
  ///   - dividesLength: whether a missing length is the dense one divided by the experts used.
  ///   - sharesExpert: whether the family has a gated shared expert.
  ///   - routing: what the family does where the file does not say it, if files of it may differ; dense layers may then
  ///     come first.
  func experts(
    _ configuration: DecoderConfiguration, normalisesWeights: Bool, dividesLength: Bool = false,
    sharesExpert: Bool = false, routing: ExpertRouting? = nil
  ) throws(FormatError) -> ExpertConfiguration? {
    let layerCount = configuration.layerCount
    guard let expertCount = try integer("expert_count"), expertCount != 0 else { return nil }
    if routing == nil { try refuseOtherRouting(normalisesWeights: normalisesWeights) }
    try refuseOtherLayers(layerCount: layerCount, mayBeginDense: routing != nil)
    let usedKey = key("expert_used_count")
    guard let used = try metadata.uniformInteger(usedKey, count: layerCount), used != 0 else {
      throw missing("expert_used_count")
    }
    let dense = configuration.feedForwardLength
    let stated = try metadata.uniformInteger(key("expert_feed_forward_length"), count: layerCount)
    let length = stated ?? 0
    let shared = try integer("expert_shared_feed_forward_length") ?? 0
    guard sharesExpert || shared == 0 || routing != nil else {
      throw unsupported(
        "expert_shared_feed_forward_length", "a shared expert is not supported in \(architecture)")
    }
    var experts = ExpertConfiguration(
      expertCount: expertCount, expertsPerToken: used,
      feedForwardLength: length != 0 ? length : dividesLength ? dense / max(1, used) : dense,
      sharedFeedForwardLength: sharesExpert ? (shared != 0 ? shared : dense) : nil,
      gatesSharedExpert: sharesExpert,
      normalisesWeights: try metadata.bool(key("expert_weights_norm")) ?? normalisesWeights)
    if let routing { experts.routing = try read(routing) }
    try experts.validate(path: metadata.file.path)
    return experts
  }

  /// The same for families that have nothing but experts.
  func requiredExperts(
    _ configuration: DecoderConfiguration, normalisesWeights: Bool, dividesLength: Bool = false,
    sharesExpert: Bool = false, routing: ExpertRouting? = nil
  ) throws(FormatError) -> ExpertConfiguration {
    guard
      let experts = try experts(
        configuration, normalisesWeights: normalisesWeights, dividesLength: dividesLength,
        sharesExpert: sharesExpert, routing: routing)
    else { throw missing("expert_count") }
    return experts
  }

  /// Routing as the file states it, where that differs from the family's.
  private func read(_ usual: ExpertRouting) throws(FormatError) -> ExpertRouting {
    var routing = usual
    switch try integer("expert_gating_func") ?? 0 {
    case 0: break
    case 1: routing.score = .softmax
    case 2: routing.score = .sigmoid
    case let other:
      throw unsupported(
        "expert_gating_func", "\(other) is not supported; softmax (1) and sigmoid (2) are")
    }
    if let scale = try scale("expert_weights_scale") { routing.scale = Float(scale) }
    let used = try integer("expert_group_used_count")
    if let count = try integer("expert_group_count"), count > 1 {
      guard let used else { throw missing("expert_group_used_count") }
      routing.groups = ExpertRouting.Groups(count: count, usedCount: used)
    }
    return routing
  }

  /// Two counts' product, which is known to be small only where each is.
  static func product(_ first: Int, _ second: Int, path: String?) throws(FormatError) -> Int? {
    guard first != 0 else { return nil }
    let (product, overflows) = first.multipliedReportingOverflow(by: second)
    guard !overflows else {
      throw FormatError(.malformed, path: path, "\(first) shared experts of \(second) are too many")
    }
    return product
  }

  /// Ways to choose and weigh experts other than by a softmax over all of them.
  private func refuseOtherRouting(normalisesWeights: Bool) throws(FormatError) {
    // Softmax over all, and over the chosen ones, which is the same once weights are normalised.
    let known = normalisesWeights ? [0, 1, 3] : [0, 1]
    if let function = try integer("expert_gating_func"), !known.contains(function) {
      throw unsupported("expert_gating_func", "\(function) is not supported; softmax (1) is")
    }
    if let scale = try float("expert_weights_scale"), scale != 0, scale != 1 {
      throw unsupported("expert_weights_scale", "\(scale) is not supported")
    }
    for suffix in ["expert_group_count", "expert_group_used_count"] {
      if let value = try integer(suffix), value > 1 {
        throw unsupported(suffix, "\(value) groups of experts are not supported")
      }
    }
  }

  /// Layers without experts, and experts that are not stacked.
  private func refuseOtherLayers(
    layerCount: Int, mayBeginDense: Bool
  ) throws(FormatError) {
    for (suffix, neutral) in [
      ("leading_dense_block_count", 0), ("interleave_moe_layer_step", 1),
      ("moe_every_n_layers", 1), ("decoder_sparse_step", 1),
    ] {
      if mayBeginDense, suffix == "leading_dense_block_count" { continue }
      if let value = try integer(suffix), value != 0, value != neutral {
        throw unsupported(suffix, "\(value) is not supported; every layer must have experts")
      }
    }
    if let layers = metadata.entry(key("mlp_only_layers")), layers.count > 0 {
      throw unsupported("mlp_only_layers", "every layer must have experts")
    }
    for layer in 0..<layerCount {
      let split = "blk.\(layer).ffn_gate.0.weight"
      if hasTensor(split) {
        throw FormatError(
          .unsupported, path: metadata.file.path,
          "tensor \"\(split)\" holds one expert; files with each layer's experts stacked in"
            + " \"blk.\(layer).ffn_gate_exps.weight\" are read: convert the model again")
      }
      let dense = "blk.\(layer).ffn_gate.weight"
      if hasTensor(dense), !mayBeginDense {
        throw FormatError(
          .unsupported, path: metadata.file.path,
          "layer \(layer) is dense (\"\(dense)\"); every layer must have experts")
      }
    }
  }
}
