/// Nemotron-H: each layer is one block, which scans by Mamba-2, attends without positions, or is an FFN of ReLU's square.
enum NemotronH: Architecture {
  static let name = "nemotron_h"
  static let huggingFaceNames = ["NemotronHForCausalLM"]
  static var huggingFaceLayerNames: [String: String] {
    Mamba2.mixerNames.merging([
      "mixer.q_proj": "attn_q", "mixer.k_proj": "attn_k", "mixer.v_proj": "attn_v",
      "mixer.o_proj": "attn_output", "mixer.up_proj": "ffn_up", "mixer.down_proj": "ffn_down",
    ]) { _, new in new }
  }

  /// What a layer is.
  private enum Kind: String {
    case scan = "M"
    case attention = "*"
    case feedForward = "-"
  }

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    let epsilonKey = "attention.layer_norm_rms_epsilon"
    let isUsual = try parameters.float(epsilonKey) != nil
    var configuration = try parameters.commonConfiguration(
      pairing: .halves, epsilonKey: isUsual ? epsilonKey : "attention.layer_norm_epsilon",
      hasScans: true)
    let (metadata, count) = (parameters.metadata, configuration.layerCount)
    func lacks(_ suffix: String) throws(FormatError) -> [Bool] {
      try metadata.integersOrZeros(parameters.key(suffix), count: count)?.areZero
        ?? Array(repeating: false, count: count)
    }
    let (noHeads, noNeurons) = (
      try lacks("attention.head_count_kv"), try lacks("feed_forward_length")
    )
    let kinds = zip(noHeads, noNeurons).map { noHeads, noNeurons -> Kind in
      noNeurons ? (noHeads ? .scan : .attention) : .feedForward
    }
    try make(
      &configuration, kinds, scan: kinds.firstIndex(of: .scan).map(parameters.mamba2),
      path: metadata.file.path)
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(
      queryHeadCount: 32, keyValueHeadCount: 8,
      headDim: try parameters.integer("attention_head_dim") ?? 128, contextLength: 4096,
      normEpsilonKey: "layer_norm_epsilon", normEpsilon: 1e-5, activationKey: "mlp_hidden_act",
      activation: "relu2")
    let kinds = try kinds(parameters)
    let rope = try HuggingFaceRope(parameters, defaultBase: defaults.ropeBase)
    var decoder = try parameters.commonConfiguration(
      defaults, rope: rope, layerCount: kinds.count)
    guard decoder.layerCount == kinds.count else {
      throw parameters.unsupported(
        "num_hidden_layers", "\(decoder.layerCount) layers, but kinds of \(kinds.count)")
    }
    guard decoder.activation == .reluSquared || decoder.activation == .relu else {
      throw parameters.unsupported("mlp_hidden_act", "relu2 and relu are supported")
    }
    let scan = try parameters.mamba2(
      .init(
        heads: ("mamba_num_heads", 128), length: ("mamba_head_dim", 64), groups: ("n_groups", 8),
        keyLength: ("ssm_state_size", 128), taps: ("conv_kernel", 4), tapBias: "use_conv_bias",
        biases: ["use_bias", "mamba_proj_bias"]))
    let activation = decoder.activation
    try make(&decoder, kinds, scan: scan, path: parameters.path)
    decoder.activation = activation
    return HuggingFaceConfiguration(decoder: decoder)
  }

  private static func make(
    _ decoder: inout DecoderConfiguration, _ kinds: [Kind], scan: ScanSpec?, path: String?
  ) throws(FormatError) {
    decoder.activation = .reluSquared
    var (attention, feedForward) = (AttentionSpec(), FeedForwardSpec())
    attention.rope = nil
    feedForward.isGated = false
    for (layer, kind) in kinds.enumerated() {
      let branch: BranchSpec
      switch kind {
      case .scan:
        guard let scan else { continue }
        branch = .scan(scan)
      case .attention: branch = .attention(attention)
      case .feedForward: branch = .feedForward(feedForward)
      }
      decoder.layers[layer] = LayerSpec(blocks: [BlockSpec(preNorm: .rms, branches: [branch])])
    }
    try decoder.validate(path: path)
  }

  /// Of each layer, as a list or a line of letters says.
  private static func kinds(
    _ parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> [Kind] {
    let list = parameters.config["layers_block_type"] ?? parameters.config["layer_types"]
    let letters = try parameters.string("hybrid_override_pattern") ?? ""
    let words = list?.array?.map { $0.string ?? "?" } ?? letters.map(String.init)
    try DecoderConfiguration.checkLayerCount(words.count, path: parameters.path)
    var kinds: [Kind] = []
    for (layer, word) in words.enumerated() {
      switch word {
      case "M", "mamba", "linear_attention": kinds.append(.scan)
      case "*", "attention", "full_attention": kinds.append(.attention)
      case "-", "mlp": kinds.append(.feedForward)
      default:
        throw parameters.error(
          .unsupported, list,
          "layer \(layer) is \"\(word)\", which is not supported; mamba, attention and mlp are")
      }
    }
    return kinds
  }
}
