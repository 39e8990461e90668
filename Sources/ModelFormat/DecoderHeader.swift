/// A decoder's configuration as an image's header states it (`docs/format.md`, section 3).
///
/// Where all layers are alike but for their windows, flags say how they differ from Llama's: so it was before layers
/// had a description, and so identities are computed. Other models state their layers, each kind once.
struct DecoderHeader: Codable {
  var architecture: String
  var layerCount: Int
  var embeddingLength: Int
  var feedForwardLength: Int
  var queryHeadCount: Int
  var keyValueHeadCount: Int
  var headLength: Int
  var vocabularyCount: Int
  var contextLength: Int
  var normEpsilon: Float
  var ropePairing: DecoderConfiguration.RopePairing
  var ropeDimensionCount: Int
  var ropeBase: Double
  var ropeLinearScale: Double
  var slidingRopeBase: Double?
  var activation: DecoderConfiguration.Activation
  var embeddingScale: Float
  var attentionScale: Float
  var tiesOutput: Bool
  var positionOffset: Int?
  var shortContextLength: Int?
  /// nil = 1
  var ropeMagnitude: Float?

  // Of layers that are alike.
  var slidingWindow: Int?
  /// For each layer whether it slides; empty = none does.
  var slidingLayers: [Bool]?
  var normalisesHeads: Bool?
  var normalisesProjections: Bool?
  var normalisesOutputs: Bool?
  var hasQueryKeyValueBias: Bool?
  var hasProjectionBiases: Bool?
  /// nil = true
  var isGated: Bool?
  /// nil = RMSNorm
  var normKind: NormKind?
  var experts: ExpertConfiguration?

  // Of layers that are not.
  /// Each kind of layer once.
  var layerKinds: [LayerSpec]?
  /// For each layer the number of its kind.
  var layers: [Int]?
  var outputNorm: NormKind?
  /// nil = 1
  var logitScale: Float?
  var logitSoftCap: Float?
  var attentionSoftCap: Float?
}

extension DecoderHeader {
  /// States the layers' kinds only where flags do not say everything.
  init(_ configuration: DecoderConfiguration) {
    self.init(flagsOf: configuration)
    let isOfFirstFamilies = configuration.experts?.isOfFirstFamilies ?? true
    guard makeConfiguration() != configuration || !isOfFirstFamilies else { return }
    (slidingWindow, slidingLayers, experts) = (nil, nil, nil)
    (normalisesHeads, normalisesProjections, normalisesOutputs) = (nil, nil, nil)
    (hasQueryKeyValueBias, hasProjectionBiases, isGated, normKind) = (nil, nil, nil, nil)
    var kinds: [LayerSpec] = []
    layers = configuration.layers.map { layer in
      if let known = kinds.firstIndex(of: layer) { return known }
      kinds.append(layer)
      return kinds.count - 1
    }
    layerKinds = kinds
    outputNorm = configuration.outputNorm
    logitScale = configuration.logitScale == 1 ? nil : configuration.logitScale
    (logitSoftCap, attentionSoftCap) = (configuration.logitSoftCap, configuration.attentionSoftCap)
  }

  /// Whether old readers would take the model for another one.
  var statesLayers: Bool { layerKinds != nil }

  /// Whether readers that know layers would too: they have parts that came later.
  var statesLaterParts: Bool {
    logitSoftCap != nil || attentionSoftCap != nil
      || (layerKinds ?? []).contains { kind in
        kind.attention?.hasSinks == true || kind.experts?.isOfFirstFamilies == false
      } || hasStates
  }

  /// Whether readers that know these would too: some layers have states, or gates on attention.
  var hasStates: Bool {
    (layerKinds ?? []).contains { $0.scan != nil || $0.attention?.hasGate == true }
  }

  /// Whether layers have heads or FFNs of their own sizes, which those readers do not know either.
  var statesSizes: Bool {
    (layerKinds ?? []).contains { kind in
      kind.attention?.hasUsualHeads == false || kind.feedForward?.length != nil
    }
  }

  /// Whether blocks or scans have factors, or lack norms, that those readers would not miss.
  var statesFactors: Bool {
    (layerKinds ?? []).contains { kind in
      kind.blocks.contains { $0.residualScale != nil } || kind.scan?.inputScales != nil
        || kind.scan?.hasNorm == false
    }
  }

  private init(flagsOf configuration: DecoderConfiguration) {
    architecture = configuration.architecture
    layerCount = configuration.layerCount
    embeddingLength = configuration.hiddenSize
    feedForwardLength = configuration.feedForwardLength
    queryHeadCount = configuration.queryHeadCount
    keyValueHeadCount = configuration.keyValueHeadCount
    headLength = configuration.headDim
    vocabularyCount = configuration.vocabularyCount
    contextLength = configuration.contextLength
    normEpsilon = configuration.normEpsilon
    ropePairing = configuration.ropePairing
    ropeDimensionCount = configuration.ropeDimensionCount
    ropeBase = configuration.ropeBase
    ropeLinearScale = configuration.ropeLinearScale
    slidingRopeBase = configuration.slidingRopeBase
    activation = configuration.activation
    embeddingScale = configuration.embeddingScale
    attentionScale = configuration.attentionScale
    tiesOutput = configuration.tiesOutput
    positionOffset = configuration.positionOffset
    shortContextLength = configuration.shortContextLength
    ropeMagnitude = configuration.ropeMagnitude == 1 ? nil : configuration.ropeMagnitude
    let first = configuration.layers.first
    let attention = first?.attention
    let windows = configuration.layers.map { $0.attention?.window }
    slidingWindow = windows.lazy.compactMap { $0 }.first
    slidingLayers = slidingWindow == nil ? [] : windows.map { $0 != nil }
    normalisesHeads = attention?.headNorm == .heads
    normalisesProjections = attention?.headNorm == .projection ? true : nil
    normalisesOutputs = first?.blocks.first?.postNorm != nil
    hasQueryKeyValueBias = attention?.hasBiases ?? false
    hasProjectionBiases = attention?.hasOutputBias == true ? true : nil
    isGated = configuration.isGated ? nil : false
    normKind = configuration.outputNorm == .rms ? nil : configuration.outputNorm
    experts = configuration.experts
  }

  /// What is stated; not validated.
  func makeConfiguration() -> DecoderConfiguration {
    var configuration = DecoderConfiguration(
      architecture: architecture, layerCount: layerCount, hiddenSize: embeddingLength,
      feedForwardLength: feedForwardLength, queryHeadCount: queryHeadCount,
      keyValueHeadCount: keyValueHeadCount, headDim: headLength,
      vocabularyCount: vocabularyCount, contextLength: contextLength, normEpsilon: normEpsilon,
      ropePairing: ropePairing, ropeDimensionCount: ropeDimensionCount, ropeBase: ropeBase,
      ropeLinearScale: ropeLinearScale, slidingRopeBase: slidingRopeBase, activation: activation,
      embeddingScale: embeddingScale, attentionScale: attentionScale, tiesOutput: tiesOutput)
    configuration.positionOffset = positionOffset
    configuration.shortContextLength = shortContextLength
    configuration.ropeMagnitude = ropeMagnitude ?? 1
    if let layers, let layerKinds {
      configuration.layers = layers.map { layerKinds[$0] }
      configuration.outputNorm = outputNorm ?? .rms
      configuration.logitScale = logitScale ?? 1
      configuration.logitSoftCap = logitSoftCap
      configuration.attentionSoftCap = attentionSoftCap
    } else {
      applyFlags(to: &configuration)
    }
    return configuration
  }

  private func applyFlags(to configuration: inout DecoderConfiguration) {
    let norm = normKind ?? .rms
    configuration.outputNorm = norm
    configuration.experts = experts
    configuration.editLayers { layer in
      for index in layer.blocks.indices {
        layer.blocks[index].preNorm = norm
        layer.blocks[index].postNorm = normalisesOutputs == true ? .rms : nil
      }
      layer.attention?.hasBiases = hasQueryKeyValueBias ?? false
      layer.attention?.hasOutputBias = hasProjectionBiases ?? false
      layer.attention?.headNorm =
        normalisesHeads == true ? .heads : normalisesProjections == true ? .projection : nil
      if positionOffset != nil { layer.attention?.rope = nil }
      layer.feedForward?.isGated = isGated ?? true
      layer.feedForward?.hasBiases = hasProjectionBiases ?? false
    }
    if let slidingWindow { configuration.slide(slidingLayers ?? [], window: slidingWindow) }
  }
}

extension DecoderConfiguration: Codable {
  public init(from decoder: any Decoder) throws {
    let header = try DecoderHeader(from: decoder)
    if let problem = header.problem {
      throw DecodingError.dataCorrupted(
        .init(codingPath: decoder.codingPath, debugDescription: problem))
    }
    self = header.makeConfiguration()
  }

  public func encode(to encoder: any Encoder) throws { try DecoderHeader(self).encode(to: encoder) }
}

extension DecoderHeader {
  /// Why layers cannot be made of what is stated; nil if they can.
  fileprivate var problem: String? {
    guard (1...DecoderConfiguration.layerLimit).contains(layerCount) else {
      return DecoderConfiguration.layerCountProblem(layerCount)
    }
    let slides = slidingLayers ?? []
    if !slides.isEmpty, slides.count != layerCount {
      return "\(slides.count) sliding-window entries for \(layerCount) layers"
    }
    if slidingWindow == nil, slides.contains(true) {
      return "layers slide, but there is no sliding window"
    }
    if normalisesHeads == true, normalisesProjections == true {
      return "queries and keys are normalised by head or as a whole, not both"
    }
    guard (layers == nil) == (layerKinds == nil) else { return "layers are stated in part" }
    guard let layers, let layerKinds else { return nil }
    guard layers.count == layerCount else {
      return "\(layers.count) layers are stated, not \(layerCount)"
    }
    return layers.allSatisfy(layerKinds.indices.contains) ? nil : "a layer is of no stated kind"
  }
}
