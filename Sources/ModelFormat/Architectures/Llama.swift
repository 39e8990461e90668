/// Llama 2 and 3, Mistral, Mixtral, SmolLM2 and whatever else ggml files as `llama`.
///
/// GGUF files hold query and key rows permuted, so that RoPE rotates neighbours. Llama 3's RoPE
/// scaling arrives as the tensor `rope_freqs.weight`. Hugging Face files hold rows in their order,
/// and scaling as parameters.
enum Llama: Architecture {
  static let name = "llama"
  /// The second is Mistral Small from 3.1 on, whose graph is the same.
  static let ggufNames = [name, "mistral3"]
  static let mistralName = "MistralForCausalLM"
  static let mixtralName = "MixtralForCausalLM"
  /// Mistral Small 3 from 3.1 on, of which the text part is read.
  static let mistral3Name = "Mistral3ForConditionalGeneration"
  static let huggingFaceNames = ["LlamaForCausalLM", mistralName, mistral3Name, mixtralName]
  static var huggingFaceLayerNames: [String: String] {
    expertNames(block: "block_sparse_moe", gate: "w1", up: "w3", down: "w2")
  }

  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration {
    var configuration = try parameters.commonConfiguration(
      pairing: .adjacent, mayHaveExperts: true)
    configuration.experts = try parameters.experts(configuration, normalisesWeights: true)
    if let window = try parameters.integer("attention.sliding_window"), window > 0 {
      // Mistral: every layer slides.
      guard configuration.ropeLinearScale == 1 else {
        throw parameters.unsupported(
          "attention.sliding_window", "not supported together with RoPE scaling")
      }
      configuration.slide(
        Array(repeating: true, count: configuration.layerCount), window: window)
    }
    return configuration
  }

  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration {
    let isMistral = [mistralName, mistral3Name].contains(parameters.name)
    let isMixtral = parameters.name == mixtralName
    var defaults = HuggingFaceHyperparameters.Defaults(contextLength: 2048)
    if isMistral || isMixtral {
      (defaults.keyValueHeadCount, defaults.contextLength) = (8, 131072)
    }
    if isMixtral { (defaults.ropeBase, defaults.normEpsilon) = (1_000_000, 1e-5) }
    let rope = try HuggingFaceRope(parameters, defaultBase: defaults.ropeBase)
    var decoder = try parameters.commonConfiguration(
      defaults, rope: rope, mayHaveExperts: isMixtral)
    try parameters.refuseSlidingLayers()
    if isMixtral {
      decoder.experts = try parameters.experts(
        .init(
          expertCount: 8, expertsPerToken: 2, lengthKey: "intermediate_size",
          normalisesWeights: true))
    }
    let window =
      isMistral
      ? try parameters.mistralWindow() : isMixtral ? try parameters.integer("sliding_window") : nil
    if let window {
      guard decoder.ropeLinearScale == 1 else {
        throw parameters.unsupported("sliding_window", "not supported together with RoPE scaling")
      }
      decoder.slide(Array(repeating: true, count: decoder.layerCount), window: window)
      try decoder.validate(path: parameters.path)
    }
    return HuggingFaceConfiguration(decoder: decoder, derivedValues: rope.scaling.factors)
  }
}

extension HuggingFaceHyperparameters {
  /// Mistral's window: 4096 unless the file says otherwise; null = none.
  fileprivate func mistralWindow() throws(FormatError) -> Int? {
    let isStated = config.members?.contains { $0.key == "sliding_window" } ?? false
    return isStated ? try integer("sliding_window") : 4096
  }
}
