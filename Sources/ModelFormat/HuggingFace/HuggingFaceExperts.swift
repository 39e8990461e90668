extension HuggingFaceHyperparameters {
  /// What a family with experts calls them, and what its files may leave out.
  struct ExpertKeys {
    var expertCount: Int
    var expertsPerToken: Int
    /// Key of one expert's length.
    var lengthKey: StaticString = "moe_intermediate_size"
    var length: Int?
    /// Length of the gated shared expert; nil if the family has none.
    var sharedLength: Int?
    /// Whether weights are normalised where the file does not say it.
    var normalisesWeights = false
    /// What the family does, if files of it may differ; dense layers may then come first, and experts that always run
    /// be counted.
    var routing: ExpertRouting?
  }

  /// The experts that `config.json` describes.
  ///
  /// - Throws: ``FormatError``, also where not every layer has experts.
  func experts(_ keys: ExpertKeys) throws(FormatError) -> ExpertConfiguration {
    try refuse([("decoder_sparse_step", 1)])
    if keys.routing == nil { try refuse([("n_shared_experts", 0), ("first_k_dense_replace", 0)]) }
    if let layers = config["mlp_only_layers"], layers.array?.isEmpty != true {
      throw unsupported("mlp_only_layers", "every layer must have experts")
    }
    let (local, routed) = (try integer("num_local_experts"), try integer("n_routed_experts"))
    var shared = keys.sharedLength
    if shared != nil { shared = try integer("shared_expert_intermediate_size") ?? shared }
    var experts = ExpertConfiguration(
      expertCount: try integer("num_experts") ?? local ?? routed ?? keys.expertCount,
      expertsPerToken: try integer("num_experts_per_tok") ?? keys.expertsPerToken,
      feedForwardLength: try required(keys.lengthKey, default: keys.length),
      sharedFeedForwardLength: shared, gatesSharedExpert: shared != nil,
      normalisesWeights: try bool("norm_topk_prob") ?? keys.normalisesWeights)
    if let routing = keys.routing { experts.routing = try read(routing) }
    try experts.validate(path: path)
    return experts
  }
}

extension HuggingFaceHyperparameters {
  /// Routing as `config.json` states it, where that differs from the family's.
  private func read(_ usual: ExpertRouting) throws(FormatError) -> ExpertRouting {
    var routing = usual
    if let score = try string("scoring_func") {
      guard let known = ExpertRouting.Score(rawValue: score) else {
        throw unsupported("scoring_func", "\"\(score)\" is not supported; softmax and sigmoid are")
      }
      routing.score = known
    }
    routing.hasSelectionBias = try bool("use_routing_bias") ?? usual.hasSelectionBias
    if let scale = try double("routed_scaling_factor") { routing.scale = Float(scale) }
    if let count = try integer("n_group"), count > 1 {
      routing.groups = ExpertRouting.Groups(
        count: count, usedCount: try integer("topk_group") ?? count)
    }
    return routing
  }
}

extension Architecture {
  /// GGUF's names of the router's, the shared expert's and the experts' tensors, `*` being a number. Since
  /// transformers 5 a layer's experts may be stacked, gate above up.
  static func expertNames(
    block: String = "mlp", gate: String = "gate_proj", up: String = "up_proj",
    down: String = "down_proj"
  ) -> [String: String] {
    var names = [
      "\(block).experts.*.\(gate)": "ffn_gate_exps", "\(block).experts.*.\(up)": "ffn_up_exps",
      "\(block).experts.*.\(down)": "ffn_down_exps",
      "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
      "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
      "mlp.shared_expert.up_proj": "ffn_up_shexp",
      "mlp.shared_expert.down_proj": "ffn_down_shexp",
    ]
    for block in [block, "mlp"] {
      names["\(block).gate"] = "ffn_gate_inp"
      names["\(block).experts.gate_up_proj"] = "ffn_gate_up_exps"
      names["\(block).experts.down_proj"] = "ffn_down_exps"
    }
    return denseHuggingFaceLayerNames.merging(names) { _, new in new }
  }
}
