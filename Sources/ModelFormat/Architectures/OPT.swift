/// OPT, with the norms in front of attention and FFN: LayerNorm, biases everywhere, learned positions,
/// an FFN of ReLU without gate.
///
/// The 350M model, which normalises after them and projects its embeddings, is another graph. There
/// are no GGUF files of it.
enum OPT: Architecture {
  static let name = "opt"
  static let huggingFaceNames = ["OPTForCausalLM"]
  static var huggingFaceLayerNames: [String: String] {
    [
      "self_attn_layer_norm": "attn_norm", "self_attn.q_proj": "attn_q",
      "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
      "self_attn.out_proj": "attn_output", "final_layer_norm": "ffn_norm", "fc1": "ffn_up",
      "fc2": "ffn_down",
    ]
  }

  /// The table's rows 0 and 1 stand for no position.
  private static let positionOffset = 2

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    throw parameters.metadata.error(
      .unsupported, key: "general.architecture",
      "OPT is supported as a Hugging Face folder, not as GGUF")
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let defaults = HuggingFaceHyperparameters.Defaults(
      contextLength: 2048, normEpsilon: 1e-5, feedForwardLengthKey: "ffn_dim",
      activationKey: "activation_function", activation: "relu", tiesOutput: true)
    let rope = try HuggingFaceRope(parameters, defaultBase: defaults.ropeBase)
    var decoder = try parameters.commonConfiguration(defaults, rope: rope)
    try refuseOtherGraphs(parameters, decoder)
    let hasBiases = try parameters.bool("enable_bias") ?? true
    decoder.outputNorm = .layer
    decoder.editLayers { layer in
      for block in layer.blocks.indices { layer.blocks[block].preNorm = .layer }
      layer.attention?.hasBiases = hasBiases
      layer.attention?.hasOutputBias = hasBiases
      layer.attention?.rope = nil
      layer.feedForward?.isGated = false
      layer.feedForward?.hasBiases = hasBiases
    }
    decoder.positionOffset = positionOffset
    return HuggingFaceConfiguration(decoder: decoder)
  }

  private static func refuseOtherGraphs(
    _ parameters: HuggingFaceHyperparameters, _ decoder: DecoderConfiguration
  ) throws(FormatError) {
    for key: StaticString in ["do_layer_norm_before", "layer_norm_elementwise_affine"] {
      if try parameters.bool(key) == false {
        throw parameters.unsupported(key, "false is not supported")
      }
    }
    if try parameters.bool("_remove_final_layer_norm") == true {
      throw parameters.unsupported("_remove_final_layer_norm", "true is not supported")
    }
    if let width = try parameters.integer("word_embed_proj_dim"), width != decoder.hiddenSize {
      throw parameters.unsupported(
        "word_embed_proj_dim", "embeddings of another width than the layers are not supported")
    }
    guard decoder.activation == .relu else {
      throw parameters.unsupported(
        "activation_function", "\(decoder.activation.rawValue) is not supported; relu is")
    }
  }
}
