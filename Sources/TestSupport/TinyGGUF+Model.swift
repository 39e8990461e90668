public import ModelFormat
public import TensorBasics

/// A small random model of any supported family, as a GGUF file.
///
/// Dimensions default to the smallest that every element type of 32-wide blocks allows; 256-wide
/// blocks (`Q2_K` … `Q6_K`) need `hiddenSize`, `feedForwardLength` and heads × length in 256s.
public struct TinyModel: Sendable {
  public var architecture = "llama"
  public var layerCount = 2
  public var hiddenSize = 64
  public var feedForwardLength = 96
  public var queryHeadCount = 4
  public var keyValueHeadCount = 2
  public var headDim = 16
  /// At least 300 (the tokenizer needs 256 bytes and some more).
  public var vocabularyCount = 320
  public var contextLength = 512
  /// Type of the matrices in layers; several take turns.
  public var matrixTypes: [ElementType] = [.q8_0]
  /// Type of the embedding table and the output head.
  public var tableType = ElementType.q8_0
  public var tiesOutput = true
  /// Window of layers that slide (gemma3; llama in Mistral's way); 0 = none.
  public var slidingWindow = 0
  /// Divides positions (linear RoPE scaling); 1 = none.
  public var ropeLinearScale: Float = 1
  /// YaRN's factor, over a quarter of ``contextLength``; 1 = none.
  public var yarnFactor: Float = 1
  /// The longest context of longrope's short factors; nil = no longrope.
  public var shortContextLength: Int?
  /// Whether a value head has twice the elements of a key's.
  public var hasLongValues = false
  /// Heads and FFNs of layers, where they differ; those of further layers begin anew.
  public var layerSizes: [LayerSize] = []

  public struct LayerSize: Sendable {
    public var queryHeadCount: Int
    public var keyValueHeadCount: Int
    /// By how much its FFN is longer than ``TinyModel/feedForwardLength``.
    public var lengthFactor: Int
  }
  /// Elements of a head that RoPE rotates; nil = all.
  public var rotatedCount: Int?
  /// Adds `rope_freqs.weight`, as Llama 3 files have it.
  public var hasRopeFactors = false
  /// Adds a factor for each matrix of the layers, one for each expert, as NVFP4 files have them.
  public var hasFactors = false
  /// `llama.hidden_act`, where it is to be stated.
  public var hiddenActivation: String?
  /// Experts in place of each layer's FFN; nil = dense. Where ggml has no key for their width (llama,
  /// olmoe), the file's FFN length is theirs.
  public var experts: ExpertConfiguration?
  /// In place of attention in all layers but each second.
  public var scan: ScanSpec?
  /// Layers after the last one that predict further tokens.
  public var predictionLayerCount = 0

  public init(architecture: String = "llama") {
    self.architecture = architecture
    if architecture == "gemma3" {
      layerCount = 7
      slidingWindow = 8
    }
    switch architecture {
    case "smollm3", "olmo2": layerCount = 5
    case "glm4": rotatedCount = 8
    case "gemma2": (layerCount, slidingWindow) = (3, 7)
    case "gpt-oss":
      (layerCount, slidingWindow, yarnFactor, contextLength) = (3, 7, 8, 64)
      var routing = ExpertRouting()
      routing.hasBias = true
      experts = ExpertConfiguration(
        expertCount: 8, expertsPerToken: 3, feedForwardLength: 32, normalisesWeights: true,
        routing: routing, hasBiases: true)
    case "qwen2moe":
      experts = ExpertConfiguration(
        expertCount: 8, expertsPerToken: 2, feedForwardLength: 64, sharedFeedForwardLength: 96,
        gatesSharedExpert: true, normalisesWeights: false)
    case "qwen3moe":
      experts = ExpertConfiguration(
        expertCount: 8, expertsPerToken: 2, feedForwardLength: 32, normalisesWeights: true)
    case "olmoe":
      experts = ExpertConfiguration(
        expertCount: 8, expertsPerToken: 3, feedForwardLength: 64, normalisesWeights: false)
    case "glm4moe":
      (layerCount, rotatedCount) = (3, 8)
      var routing = ExpertRouting()
      (routing.score, routing.hasSelectionBias, routing.scale) = (.sigmoid, true, 1.5)
      routing.groups = ExpertRouting.Groups(count: 4, usedCount: 2)
      experts = ExpertConfiguration(
        expertCount: 8, expertsPerToken: 2, feedForwardLength: 32, sharedFeedForwardLength: 64,
        normalisesWeights: true, routing: routing)
    case "qwen3next":
      (layerCount, rotatedCount) = (3, 8)
      scan = ScanSpec(
        keyHeadCount: 2, valueHeadCount: 4, keyLength: 16, valueLength: 64, tapCount: 4,
        inputs: .byKind)
      experts = ExpertConfiguration(
        expertCount: 8, expertsPerToken: 2, feedForwardLength: 32, sharedFeedForwardLength: 64,
        gatesSharedExpert: true, normalisesWeights: true)
    case "qwen35":
      (layerCount, rotatedCount) = (3, 8)
      scan = ScanSpec(
        keyHeadCount: 2, valueHeadCount: 4, keyLength: 16, valueLength: 64, tapCount: 4,
        inputs: .apart)
      scan?.takesKeysInTurn = true
    case "granitehybrid":
      layerCount = 3
      scan = ScanSpec(
        keyHeadCount: 2, valueHeadCount: 4, keyLength: 16, valueLength: 64, tapCount: 4,
        inputs: .mamba2)
      scan?.hasTapBias = true
    case "mamba2", "nemotron_h", "lfm2", "falcon-h1": addScan()
    case "minimax-m2":
      rotatedCount = 8
      experts = ExpertConfiguration(
        expertCount: 8, expertsPerToken: 3, feedForwardLength: 32, normalisesWeights: true,
        routing: Self.biasedSigmoid)
    default: addSizes()
    }
  }

  /// Of families whose layers scan by Mamba-2, or convolve.
  private mutating func addScan() {
    layerCount = architecture == "nemotron_h" ? 4 : architecture == "lfm2" ? 3 : 2
    guard architecture != "lfm2" else {
      scan = .gatedConvolution(width: hiddenSize, tapCount: 3)
      return
    }
    scan = ScanSpec(
      keyHeadCount: 2, valueHeadCount: 4, keyLength: 16, valueLength: 64, tapCount: 4,
      inputs: .mamba2)
    scan?.hasTapBias = true
    scan?.hasNorm = architecture != "falcon-h1"
  }

  /// Of families whose layers differ in them.
  private mutating func addSizes() {
    switch architecture {
    case "openelm":
      layerCount = 3
      layerSizes = [
        LayerSize(queryHeadCount: 4, keyValueHeadCount: 2, lengthFactor: 1),
        LayerSize(queryHeadCount: 4, keyValueHeadCount: 1, lengthFactor: 2),
        LayerSize(queryHeadCount: 8, keyValueHeadCount: 4, lengthFactor: 1),
      ]
    case "mimo2":
      (layerCount, slidingWindow, hasLongValues, rotatedCount) = (3, 7, true, 8)
      layerSizes = [1, 2, 1].map {
        LayerSize(queryHeadCount: 4, keyValueHeadCount: $0, lengthFactor: 1)
      }
      experts = ExpertConfiguration(
        expertCount: 8, expertsPerToken: 3, feedForwardLength: 32, normalisesWeights: true,
        routing: Self.biasedSigmoid)
    default: break
    }
  }

  private static var biasedSigmoid: ExpertRouting {
    var routing = ExpertRouting()
    (routing.score, routing.hasSelectionBias) = (.sigmoid, true)
    return routing
  }

  /// llama with experts.
  public static func mixtral() -> TinyModel {
    var model = TinyModel()
    model.experts = ExpertConfiguration(
      expertCount: 8, expertsPerToken: 2, feedForwardLength: 96, normalisesWeights: true)
    return model
  }

  /// One of the families with experts: `mixtral`, `qwen2moe`, `qwen3moe`, `olmoe` or `gpt-oss`.
  public static func withExperts(_ family: String) -> TinyModel {
    family == "mixtral" ? mixtral() : TinyModel(architecture: family)
  }

  /// llama of three layers, wide enough for every element type and for bundles of neurons.
  ///
  /// Activations are zero half of the time; the weights take several reads.
  public static func wide() -> TinyModel {
    var model = TinyModel()
    model.hiddenActivation = "relu"
    model.hiddenSize = 256
    model.headDim = 64
    model.feedForwardLength = 512
    model.layerCount = 3
    model.tiesOutput = false
    return model
  }

  /// The file with weights drawn from `seed`.
  public func gguf(seed: UInt64) -> TinyGGUF {
    var generator = SeededGenerator(seed: seed)
    var file = TinyGGUF(metadata: hyperparameters + tokenizer)
    for (index, expected) in configuration.expectedTensors.enumerated()
    where !expected.isOptional
      || (expected.name.hasSuffix(".scale") ? hasFactors : hasRopeFactors)
    {
      file.tensors.append(tensor(expected, index: index, &generator))
    }
    for layer in layerCount..<layerCount + predictionLayerCount {
      let prefix = "blk.0."
      for (index, expected) in (configuration.predictor?.expectedTensors ?? []).enumerated()
      where expected.name.hasPrefix(prefix) && !expected.isOptional {
        var tensor = tensor(expected, index: index, &generator)
        tensor.name = "blk.\(layer)." + tensor.name.dropFirst(prefix.count)
        file.tensors.append(tensor)
      }
    }
    return file
  }

  private func tensor(
    _ expected: TensorSpec, index: Int, _ generator: inout SeededGenerator
  ) -> TinyGGUF.Tensor {
    let isTable = ["token_embd.weight", "output.weight"].contains(expected.name)
    let isMatrix = expected.role != .vector
    let isRouter = expected.name.hasSuffix(".ffn_gate_inp.weight")
    let type =
      isTable
      ? tableType : isMatrix && !isRouter ? matrixTypes[index % matrixTypes.count] : .f32
    var data: [UInt8] = []
    if isMatrix {
      let deviation = isTable ? 0.5 : 1 / Double(expected.columnCount).squareRoot()
      data = RandomWeights.bytes(
        type, rowCount: expected.rowCount, columnCount: expected.columnCount,
        deviation: deviation, using: &generator)
    } else {
      // Norm weights and RoPE factors around 1, biases and taps around 0, rates of decay below.
      let isCentred = [".bias", "_shexp.weight", ".ssm_conv1d.weight"].contains {
        expected.name.hasSuffix($0)
      }
      let centre: Double = isCentred ? 0 : expected.name.hasSuffix(".ssm_a") ? -0.5 : 1
      for _ in 0..<expected.columnCount {
        RandomWeights.append(
          Float(centre + 0.4 * (generator.nextUnit() - 0.5)), as: .f32, to: &data)
      }
    }
    let count = expected.expertCount
    let outer = count.map { [expected.rowCount / $0, $0] } ?? (isMatrix ? [expected.rowCount] : [])
    var dimensions = [expected.columnCount] + outer
    if expected.name.hasSuffix(".ssm_conv1d.weight"), let scan = placedScan {
      dimensions = [scan.tapCount, scan.channelCount]
    }
    if let scan, scan.inputs == .mamba2 {
      // Mamba-2's numbers of heads are rows of one, and its norm has a row for each key head.
      if [".ssm_a", ".ssm_d"].contains(where: expected.name.hasSuffix) {
        dimensions = [1, expected.columnCount]
      } else if expected.name.hasSuffix(".ssm_norm.weight") {
        dimensions = [expected.columnCount / scan.keyHeadCount, scan.keyHeadCount]
      }
    }
    if expected.name.hasSuffix("_exps.bias"), let experts {
      dimensions = [expected.columnCount / experts.expertCount, experts.expertCount]
    }
    return TinyGGUF.Tensor(
      name: nameInFile(expected.name), type: type.rawValue, dimensions: dimensions.map(UInt64.init),
      data: data)
  }

  /// What llama.cpp calls a tensor.
  private func nameInFile(_ name: String) -> String {
    if architecture == "falcon-h1" {
      return name.hasSuffix(".ffn_norm.weight") ? String(name.dropLast(7)) : name
    }
    if architecture == "lfm2" {
      return name.replacing(".ssm_in.", with: ".shortconv.in_proj.")
        .replacing(".ssm_conv1d.", with: ".shortconv.conv.")
        .replacing(".ssm_out.", with: ".shortconv.out_proj.")
        .replacing("output_norm.", with: "token_embd_norm.")
    }
    guard ["gpt-oss", "glm4moe", "qwen3next", "qwen35"].contains(architecture) else { return name }
    return name.replacing(".ffn_norm.", with: ".post_attention_norm.")
  }

  /// What the file says of its shape; only for the list of tensors.
  private var configuration: DecoderConfiguration {
    var configuration = DecoderConfiguration(
      architecture: architecture, layerCount: layerCount, hiddenSize: hiddenSize,
      feedForwardLength: feedForwardLength, queryHeadCount: queryHeadCount,
      keyValueHeadCount: keyValueHeadCount, headDim: headDim,
      vocabularyCount: vocabularyCount, contextLength: contextLength, normEpsilon: 1e-5,
      ropePairing: architecture == "llama" ? .adjacent : .halves,
      ropeDimensionCount: rotatedCount ?? headDim, ropeBase: 10000,
      tiesOutput: tiesOutput, experts: experts)
    if let placedScan { place(placedScan, in: &configuration) }
    configuration.editLayers { layer in
      layer.attention?.hasGate =
        scan.map { $0.inputs != .mamba2 && $0.inputs != .gatedConvolution } ?? false
      let isGPTOSS = architecture == "gpt-oss"
      layer.attention?.hasBiases =
        architecture.hasPrefix("qwen2") || architecture.hasPrefix("glm4") || isGPTOSS
      layer.attention?.hasOutputBias = isGPTOSS
      layer.attention?.hasSinks = isGPTOSS
      layer.attention?.valueLength = hasLongValues ? 2 * headDim : nil
      let normed = [
        "qwen3", "qwen3moe", "gemma3", "glm4moe", "qwen3next", "qwen35", "openelm", "lfm2",
      ]
      if normed.contains(architecture) {
        layer.attention?.headNorm = .heads
      }
      if ["olmoe", "olmo2", "minimax-m2"].contains(architecture) {
        layer.attention?.headNorm = .projection
      }
      for block in layer.blocks.indices {
        if architecture == "olmo2" { layer.blocks[block].preNorm = nil }
        if ["gemma2", "gemma3", "olmo2", "glm4"].contains(architecture) {
          layer.blocks[block].postNorm = .rms
        }
      }
      // Files of it hold no biases of norms.
      guard architecture == "command-r" else { return }
      layer.blocks = [BlockSpec(preNorm: .rms, branches: layer.blocks.flatMap(\.branches))]
    }
    configuration.shortContextLength = shortContextLength
    for layer in 0..<min(denseLayerCount, layerCount) {
      configuration.layers[layer].feedForward = FeedForwardSpec()
    }
    for (layer, size) in sizes.enumerated() {
      configuration.layers[layer].attention?.queryHeadCount = size.queryHeadCount
      configuration.layers[layer].attention?.keyValueHeadCount = size.keyValueHeadCount
      configuration.layers[layer].attention?.hasSinks = architecture == "mimo2" && layer % 2 == 1
      configuration.layers[layer].feedForward?.length = size.lengthFactor * feedForwardLength
    }
    return configuration
  }

  /// A convolution is as wide as the model.
  private var placedScan: ScanSpec? {
    scan.map {
      $0.scans ? $0 : .gatedConvolution(width: hiddenSize, tapCount: $0.tapCount)
    }
  }

  private func place(_ scan: ScanSpec, in configuration: inout DecoderConfiguration) {
    func alone(_ branch: BranchSpec) -> LayerSpec {
      LayerSpec(blocks: [BlockSpec(preNorm: .rms, branches: [branch])])
    }
    var feedForward = FeedForwardSpec()
    feedForward.isGated = false
    for layer in 0..<layerCount {
      switch architecture {
      case "mamba2": configuration.layers[layer] = alone(.scan(scan))
      case "nemotron_h":
        configuration.layers[layer] = alone(
          [.scan(scan), .feedForward(feedForward), .attention(AttentionSpec())][min(layer, 2)])
      case "falcon-h1": configuration.layers[layer].blocks[0].branches.append(.scan(scan))
      default: if layer % 2 == 0 { configuration.layers[layer].scan = scan }
      }
    }
  }

  /// Of each layer; empty where all are alike.
  private var sizes: [LayerSize] {
    layerSizes.isEmpty ? [] : (0..<layerCount).map { layerSizes[$0 % layerSizes.count] }
  }

  /// Whether ggml has a key for the width of the family's experts.
  private var statesExpertLength: Bool {
    architecture.hasPrefix("qwen")
      || ["gpt-oss", "glm4moe", "minimax-m2", "mimo2"].contains(architecture)
  }

  /// Layers before the first one with experts.
  private var denseLayerCount: Int {
    ["glm4moe", "mimo2"].contains(architecture) && layerCount > 1 ? 1 : 0
  }

  private func expertMetadata(
    _ experts: ExpertConfiguration
  ) -> [(key: String, value: TinyGGUF.Value)] {
    var integers = [
      ("expert_count", experts.expertCount), ("expert_used_count", experts.expertsPerToken),
    ]
    if let groups = experts.routing.groups {
      integers += [
        ("expert_group_count", groups.count), ("expert_group_used_count", groups.usedCount),
      ]
    }
    if statesExpertLength {
      integers.append(("expert_feed_forward_length", experts.feedForwardLength))
    }
    if architecture == "glm4moe" {
      let length = experts.sharedFeedForwardLength ?? 0
      integers += [
        ("expert_shared_count", length / experts.feedForwardLength),
        ("leading_dense_block_count", denseLayerCount),
      ]
    } else if let length = experts.sharedFeedForwardLength {
      integers.append(("expert_shared_feed_forward_length", length))
    }
    var metadata = integers.map {
      (key: "\(architecture).\($0.0)", value: TinyGGUF.Value.uint32(UInt32($0.1)))
    }
    if experts.routing.scale != 1 {
      metadata.append(
        ("\(architecture).expert_weights_scale", .float32(experts.routing.scale)))
    }
    // Stated only where it is not the family's own way.
    let normalising = [
      "llama", "qwen3moe", "qwen3next", "gpt-oss", "glm4moe", "minimax-m2", "mimo2",
    ]
    if experts.normalisesWeights != normalising.contains(architecture) {
      metadata.append(("\(architecture).expert_weights_norm", .bool(experts.normalisesWeights)))
    }
    return metadata
  }

  /// Factors that the family has, none of them 1.
  private var scales: [(String, Float)] {
    switch architecture {
    case "granite", "granitehybrid":
      [
        ("embedding_scale", 3), ("residual_scale", 0.4), ("logit_scale", 5),
        ("attention.scale", 0.3),
      ]
    case "command-r": [("logit_scale", 0.25)]
    case "mimo2": [("attention.value_scale", 0.7), ("rope.freq_base_swa", 1000)]
    // Where scores and logits of such models are bent.
    case "gemma2": [("attn_logit_softcapping", 2), ("final_logit_softcapping", 5)]
    default: []
    }
  }

  private var hyperparameters: [(key: String, value: TinyGGUF.Value)] {
    func named(_ suffix: String) -> String { "\(architecture).\(suffix)" }
    let denseLength =
      statesExpertLength ? feedForwardLength : experts?.feedForwardLength ?? feedForwardLength
    let integers = [
      ("block_count", layerCount + predictionLayerCount), ("context_length", contextLength),
      ("embedding_length", hiddenSize), ("feed_forward_length", denseLength),
      ("attention.head_count", queryHeadCount), ("attention.head_count_kv", keyValueHeadCount),
      ("attention.key_length", headDim),
      ("attention.value_length", hasLongValues ? 2 * headDim : headDim),
      ("rope.dimension_count", rotatedCount ?? headDim),
    ]
    var metadata: [(key: String, value: TinyGGUF.Value)] = [
      ("general.architecture", .string(architecture)), ("general.name", .string("tiny")),
    ]
    metadata += integers.map { (named($0.0), .uint32(UInt32($0.1))) }
    for (suffix, counts) in layerCounts {
      metadata.removeAll { $0.key == named(suffix) }
      metadata.append((named(suffix), .int32s(counts.map(Int32.init))))
    }
    if architecture == "granitehybrid" {
      metadata.append((named("rope.scaling.finetuned"), .bool(false)))
    }
    if architecture == "mamba2" {
      for suffix in ["attention.head_count", "feed_forward_length"] {
        metadata.removeAll { $0.key == named(suffix) }
        metadata.append((named(suffix), .uint32(0)))
      }
    }
    let epsilonKey = architecture == "command-r" ? "layer_norm_epsilon" : "layer_norm_rms_epsilon"
    metadata.append((named("attention.\(epsilonKey)"), .float32(1e-5)))
    metadata += scales.map { (named($0.0), .float32($0.1)) }
    metadata.append((named("rope.freq_base"), .float32(architecture == "gemma3" ? 1e6 : 1e4)))
    if slidingWindow > 0 {
      metadata.append((named("attention.sliding_window"), .uint32(UInt32(slidingWindow))))
    }
    if ropeLinearScale != 1 {
      metadata.append((named("rope.scaling.type"), .string("linear")))
      metadata.append((named("rope.scaling.factor"), .float32(ropeLinearScale)))
    }
    if yarnFactor != 1 {
      metadata.append((named("rope.scaling.type"), .string("yarn")))
      metadata.append((named("rope.scaling.factor"), .float32(yarnFactor)))
      let original = UInt32(contextLength / 4)
      metadata.append((named("rope.scaling.original_context_length"), .uint32(original)))
    }
    if let shortContextLength {
      let original = UInt32(shortContextLength)
      metadata.append((named("rope.scaling.original_context_length"), .uint32(original)))
      metadata.append((named("rope.scaling.attn_factor"), .float32(1.25)))
    }
    if !sizes.isEmpty {
      let lists = [
        ("attention.head_count", sizes.map(\.queryHeadCount)),
        ("attention.head_count_kv", sizes.map(\.keyValueHeadCount)),
        ("feed_forward_length", sizes.map { $0.lengthFactor * feedForwardLength }),
      ]
      metadata.removeAll { entry in lists.contains { named($0.0) == entry.key } }
      metadata += lists.map { (named($0.0), .uint32s($0.1.map(UInt32.init))) }
    }
    if architecture == "mimo2" {
      metadata.append(
        (
          named("attention.sliding_window_pattern"),
          .uint32s((0..<layerCount).map { UInt32($0 % 2) })
        ))
    }
    if predictionLayerCount > 0 {
      metadata.append((named("nextn_predict_layers"), .uint32(UInt32(predictionLayerCount))))
    }
    if let experts { metadata += expertMetadata(experts) }
    if let scan, !scan.scans {
      metadata.append((named("shortconv.l_cache"), .uint32(UInt32(scan.tapCount))))
    } else if let scan {
      metadata += [
        ("ssm.conv_kernel", scan.tapCount), ("ssm.state_size", scan.keyLength),
        ("ssm.group_count", scan.keyHeadCount), ("ssm.time_step_rank", scan.valueHeadCount),
        ("ssm.inner_size", scan.valueHeadCount * scan.valueLength),
        ("full_attention_interval", 2),
      ].map { (named($0.0), .uint32(UInt32($0.1))) }
    }
    if let hiddenActivation { metadata.append((named("hidden_act"), .string(hiddenActivation))) }
    return metadata
  }

  /// What is 0 in layers that do not have it.
  private var layerCounts: [(suffix: String, counts: [Int])] {
    let heads = "attention.head_count_kv"
    func counts(_ count: Int, where has: (Int) -> Bool) -> [Int] {
      (0..<layerCount).map { has($0) ? count : 0 }
    }
    switch architecture {
    case "granitehybrid", "lfm2":
      return [(heads, counts(keyValueHeadCount) { $0 % 2 == 1 })]
    case "nemotron_h":
      return [
        (heads, counts(keyValueHeadCount) { $0 >= 2 }),
        ("feed_forward_length", counts(feedForwardLength) { $0 == 1 }),
      ]
    default: return []
    }
  }

  /// gemma3: SentencePiece with byte tokens; the rest: byte-level BPE with the `gpt-2` pre-tokenizer.
  private var tokenizer: [(key: String, value: TinyGGUF.Value)] {
    architecture.hasPrefix("gemma")
      ? TinyVocabulary.sentencePiece(count: vocabularyCount)
      : TinyVocabulary.byteLevel(count: vocabularyCount)
  }
}
