import TensorBasics

/// What an identity is the checksum of: fields one after the other, the same bytes on every machine and in
/// every version of this program.
///
/// A field is its tag (2 bytes), the length of its content (4 bytes) and the content. All numbers are
/// little-endian: integers of 8 bytes in two's complement, floats as their bit patterns, texts as UTF-8. What
/// a model does not have has no field. Tags are never used again for something else; a new one is for
/// something that no model had before.
struct CanonicalBytes {
  private(set) var bytes = Array("FLASHMID".utf8)

  /// Of the encoding: raised where a model's bytes change.
  static let version: UInt32 = 1

  enum Tag: UInt16 {
    case architecture = 1
    case layerCount, hiddenSize, feedForwardLength, queryHeadCount
    case keyValueHeadCount, headDim, vocabularyCount, contextLength, normEpsilon, ropePairing
    case ropeDimensionCount, ropeBase, ropeLinearScale, slidingRopeBase, slidingWindow
    case slidingLayers, activation, embeddingScale, attentionScale, normalisesHeads
    case normalisesOutputs, hasQueryKeyValueBias, tiesOutput, normalisesProjections
    case positionOffset, isGated, normKind, hasProjectionBiases
    case ropeMagnitude, shortContextLength
    case layerKind, layers, logitScale, sinks, logitSoftCap, attentionSoftCap, gates
    case experts = 64
    case sharedExperts, routing
    case layerSizes = 96
    case tensor = 128
    case tensorShape
    case bundles = 192
    case bundlePart, predictorRanks, thresholds
    case tensorPlace = 256
    case bundlePlace, extent, checksums
    case plusOne = 320
    case derivedValues, partOrder, packed, transposed, everyOther, negatedPower
  }

  /// Encodes everything but weights.
  init(
    _ configuration: DecoderConfiguration, tensors: [TensorRecord], neurons: NeuronLayout?
  ) {
    bytes.appendLittleEndian(Self.version)
    let header = DecoderHeader(configuration)
    shape(configuration)
    arithmetic(configuration, header)
    if let experts = configuration.experts { add(experts) }
    addKinds(header)
    for tensor in ModelIdentity.order(tensors) {
      text(.tensor, tensor.name)
      integers(
        .tensorShape,
        [
          Int(tensor.type.rawValue), tensor.layout == .interleaved ? 1 : 0, tensor.columnCount,
          tensor.rowCount, tensor.byteCount, tensor.stack?.count ?? 0,
        ])
    }
    if let neurons { add(neurons) }
  }

  /// The checksum of the bytes.
  var identity: ModelIdentity { ModelIdentity(bytes.withUnsafeBytes(Checksum.of)) }

  mutating func integers(_ tag: Tag, _ values: [Int]) {
    field(tag, byteCount: 8 * values.count)
    for value in values { bytes.appendLittleEndian(Int64(value)) }
  }

  mutating func checksums(_ values: [UInt64]) {
    field(.checksums, byteCount: 8 * values.count)
    for value in values { bytes.appendLittleEndian(value) }
  }

  /// Of tensors whose parts are scattered, which part each expert has: ``ModelIdentity/order(_:)`` goes by place.
  mutating func addPartOrder(of tensors: [TensorRecord]) {
    for tensor in ModelIdentity.order(tensors) {
      guard let places = tensor.stack?.places else { continue }
      let order = places.indices.sorted {
        (places[$0].fileIndex, places[$0].offset) < (places[$1].fileIndex, places[$1].offset)
      }
      text(.partOrder, tensor.name)
      integers(.partOrder, order)
    }
  }

  /// What files imply and do not hold, in the order of names.
  mutating func add(_ derivations: [String: TensorDerivation]) {
    let names = derivations.keys.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    for name in names {
      switch derivations[name] {
      case .plusOne: text(.plusOne, name)
      case .negatedPower: text(.negatedPower, name)
      case .values(let values):
        text(.derivedValues, name)
        integers(.derivedValues, values.map { Int($0.bitPattern) })
      case .packed(let matrix):
        let scales = matrix.scales
        text(.packed, name)
        integers(
          .packed,
          [
            matrix.form.rawValue, matrix.firstRow, scales.type.rawValue, scales.blockRowCount,
            scales.blockColumnCount,
          ] + (matrix.rowStep == 1 ? [] : [matrix.rowStep]))
      case .transposed(let firstColumn, let columnStep, let storedColumnCount):
        text(.transposed, name)
        integers(
          .transposed,
          [firstColumn, storedColumnCount] + (columnStep == 1 ? [] : [columnStep]))
      case .everyOther(let first):
        text(.everyOther, name)
        integers(.everyOther, [first])
      case nil: break
      }
    }
  }

  // MARK: Parts of a description

  private mutating func shape(_ configuration: DecoderConfiguration) {
    text(.architecture, configuration.architecture)
    integers(.layerCount, [configuration.layerCount])
    integers(.hiddenSize, [configuration.hiddenSize])
    integers(.feedForwardLength, [configuration.feedForwardLength])
    integers(.queryHeadCount, [configuration.queryHeadCount])
    integers(.keyValueHeadCount, [configuration.keyValueHeadCount])
    integers(.headDim, [configuration.headDim])
    integers(.vocabularyCount, [configuration.vocabularyCount])
    integers(.contextLength, [configuration.contextLength])
  }

  private mutating func arithmetic(_ configuration: DecoderConfiguration, _ header: DecoderHeader) {
    floats(.normEpsilon, [configuration.normEpsilon])
    text(.ropePairing, configuration.ropePairing.rawValue)
    integers(.ropeDimensionCount, [configuration.ropeDimensionCount])
    double(.ropeBase, configuration.ropeBase)
    double(.ropeLinearScale, configuration.ropeLinearScale)
    if configuration.ropeMagnitude != 1 { floats(.ropeMagnitude, [configuration.ropeMagnitude]) }
    if let length = configuration.shortContextLength { integers(.shortContextLength, [length]) }
    if let base = configuration.slidingRopeBase { double(.slidingRopeBase, base) }
    if let window = header.slidingWindow { integers(.slidingWindow, [window]) }
    integers(.slidingLayers, (header.slidingLayers ?? []).map { $0 ? 1 : 0 })
    text(.activation, configuration.activation.rawValue)
    floats(.embeddingScale, [configuration.embeddingScale])
    floats(.attentionScale, [configuration.attentionScale])
    for (tag, flag) in [
      (Tag.normalisesHeads, header.normalisesHeads),
      (.normalisesOutputs, header.normalisesOutputs),
      (.hasQueryKeyValueBias, header.hasQueryKeyValueBias),
      (.tiesOutput, header.tiesOutput),
      (.normalisesProjections, header.normalisesProjections),
    ] { integers(tag, [flag == true ? 1 : 0]) }
    if let offset = configuration.positionOffset { integers(.positionOffset, [offset]) }
    integers(.isGated, [header.isGated == false ? 0 : 1])
    text(.normKind, configuration.outputNorm.rawValue)
    integers(.hasProjectionBiases, [header.hasProjectionBiases == true ? 1 : 0])
  }

  /// Kinds of layers, where they are stated.
  private mutating func addKinds(_ header: DecoderHeader) {
    guard let layers = header.layers else { return }
    let kinds = header.layerKinds ?? []
    for kind in kinds { integers(.layerKind, kind.canonicalNumbers) }
    integers(.layers, layers)
    let sinks = kinds.map { $0.attention?.hasSinks == true ? 1 : 0 }
    if sinks.contains(1) { integers(.sinks, sinks) }
    let gates = kinds.map { $0.attention?.hasGate == true ? 1 : 0 }
    if gates.contains(1) { integers(.gates, gates) }
    let sizes = kinds.map(\.canonicalSizes)
    if sizes.contains(where: { $0 != LayerSpec.usual.canonicalSizes }) {
      for size in sizes { integers(.layerSizes, size) }
    }
    if let scale = header.logitScale { floats(.logitScale, [scale]) }
    if let cap = header.logitSoftCap { floats(.logitSoftCap, [cap]) }
    if let cap = header.attentionSoftCap { floats(.attentionSoftCap, [cap]) }
  }

  private mutating func add(_ experts: ExpertConfiguration) {
    integers(.experts, experts.canonicalNumbers)
    if !experts.isOfFirstFamilies {
      let routing = experts.routing
      integers(
        .routing,
        [
          place(routing.score), routing.hasBias ? 1 : 0, routing.hasSelectionBias ? 1 : 0,
          routing.groups?.count ?? 0, routing.groups?.usedCount ?? 0,
          Int(routing.scale.bitPattern), experts.hasBiases ? 1 : 0,
        ])
    }
    guard let length = experts.sharedFeedForwardLength else { return }
    integers(.sharedExperts, [length, experts.gatesSharedExpert ? 1 : 0])
  }

  /// What was measured of predictors and thresholds decides nothing and is left out.
  private mutating func add(_ neurons: NeuronLayout) {
    for layer in neurons.layers {
      integers(.bundles, [layer.neuronsPerBundle, layer.bundleCount])
      for part in layer.parts {
        text(.bundlePart, "\(part.role.rawValue) \(part.type.rawValue) \(part.byteCount)")
      }
    }
    if let predictor = neurons.predictor { integers(.predictorRanks, predictor.ranks) }
    if let thresholds = neurons.thresholds { floats(.thresholds, thresholds.values) }
  }

  // MARK: Contents

  private mutating func text(_ tag: Tag, _ text: String) {
    field(tag, byteCount: text.utf8.count)
    bytes.append(contentsOf: text.utf8)
  }

  private mutating func floats(_ tag: Tag, _ values: [Float]) {
    field(tag, byteCount: 4 * values.count)
    for value in values { bytes.appendLittleEndian(value.bitPattern) }
  }

  private mutating func double(_ tag: Tag, _ value: Double) {
    field(tag, byteCount: 8)
    bytes.appendLittleEndian(value.bitPattern)
  }

  private mutating func field(_ tag: Tag, byteCount: Int) {
    bytes.appendLittleEndian(tag.rawValue)
    bytes.appendLittleEndian(UInt32(byteCount))
  }
}

// MARK: - Kinds of layers as numbers; a value of an enumeration is its place, and 0 where there is none.

extension LayerSpec {
  fileprivate var canonicalNumbers: [Int] {
    blocks.flatMap { block -> [Int] in
      [
        place(block.preNorm), place(block.postNorm), Int(block.scale.bitPattern),
        block.branches.count,
      ]
        + block.branches.flatMap(\.canonicalNumbers)
        + (block.residualScale.map { [5, Int($0.bitPattern)] } ?? [])
    }
  }
}

extension LayerSpec {
  /// What it states in the place of the decoder's values.
  fileprivate var canonicalSizes: [Int] {
    [
      attention?.queryHeadCount ?? 0, attention?.keyValueHeadCount ?? 0,
      attention?.valueLength ?? 0, Int((attention?.valueScale ?? 1).bitPattern),
      feedForward?.length ?? 0,
    ]
  }
}

extension BranchSpec {
  fileprivate var canonicalNumbers: [Int] {
    switch self {
    case .attention(let spec):
      [
        1, spec.hasBiases ? 1 : 0, spec.hasOutputBias ? 1 : 0, place(spec.headNorm),
        place(spec.rope), spec.window ?? 0,
      ]
    case .feedForward(let spec): [2, spec.isGated ? 1 : 0, spec.hasBiases ? 1 : 0]
    case .experts(let spec): [3] + spec.canonicalNumbers
    case .scan(let spec): [4] + spec.canonicalNumbers
    }
  }
}

extension ExpertConfiguration {
  fileprivate var canonicalNumbers: [Int] {
    [expertCount, expertsPerToken, feedForwardLength, normalisesWeights ? 1 : 0]
  }
}

private func place<Value: CaseIterable & Equatable>(_ value: Value?) -> Int {
  value.flatMap { Array(Value.allCases).firstIndex(of: $0) }.map { $0 + 1 } ?? 0
}
