import ModelFormat
import TensorBasics
import TestSupport
import Testing

/// What tells one model from another.
@Suite struct ModelIdentityTests {
  private func configuration() -> DecoderConfiguration {
    DecoderConfiguration(
      architecture: "llama", layerCount: 1, hiddenSize: 32, feedForwardLength: 64,
      queryHeadCount: 2, keyValueHeadCount: 1, headDim: 16, vocabularyCount: 300,
      contextLength: 128, normEpsilon: 1e-5, ropePairing: .adjacent, ropeDimensionCount: 16,
      ropeBase: 10000, tiesOutput: true)
  }

  private func description(
    _ configuration: DecoderConfiguration? = nil
  ) -> ModelDescription {
    ModelDescription(
      configuration: configuration ?? self.configuration(), files: ["model"],
      tensors: [
        TensorRecord(
          name: "b", type: .q8_0, columnCount: 32, rowCount: 2, layout: .rowMajor, fileIndex: 0,
          offset: 4096, byteCount: 68),
        TensorRecord(
          name: "a", type: .f32, columnCount: 32, rowCount: 1, layout: .rowMajor, fileIndex: 0,
          offset: 8192, byteCount: 128),
      ])
  }

  @Test func `The encoding is the one that earlier versions wrote`() {
    // Whoever changes a number here makes every stored entry, selector and record another model's: then
    // CanonicalBytes.version goes up as well.
    #expect(description().identity(checksums: [1, 2])?.description == "31f0fe814205d9f2")
    var image = description()
    image.extents = [3, 4].map { number in
      ExtentRecord(offset: (number - 2) * 4096, byteCount: 4096, checksum: UInt64(number))
    }
    #expect(image.imageIdentity?.description == "d722706405f30a2a")
  }

  @Test func `The bytes are those of the specification`() {
    let found = description().identity(checksums: [1, 2])
    var bytes = Array("FLASHMID".utf8) + [1, 0, 0, 0]
    func field(_ tag: Int, _ content: [UInt8]) {
      bytes += [UInt8(tag & 255), UInt8(tag >> 8), UInt8(content.count), 0, 0, 0] + content
    }
    func number(_ value: UInt64, _ count: Int = 8) -> [UInt8] {
      (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }
    field(1, Array("llama".utf8))
    for (tag, value) in [(2, 1), (3, 32), (4, 64), (5, 2), (6, 1), (7, 16), (8, 300), (9, 128)] {
      field(tag, number(UInt64(value)))
    }
    field(10, number(0x3727_C5AC, 4))
    field(11, Array("adjacent".utf8))
    field(12, number(16))
    field(13, number(0x40C3_8800_0000_0000))
    field(14, number(0x3FF0_0000_0000_0000))
    field(17, [])
    field(18, Array("silu".utf8))
    field(19, number(0x3F80_0000, 4))
    field(20, number(0x3E80_0000, 4))
    // Heads and outputs normalised, QKV biases, tied, projections normalised, gated.
    for (tag, flag) in [(21, 0), (22, 0), (23, 0), (24, 1), (25, 0), (27, 1)] {
      field(tag, number(UInt64(flag)))
    }
    field(28, Array("rms".utf8))
    field(29, number(0))
    for (name, shape) in [("a", [0, 0, 32, 1, 128, 0]), ("b", [8, 0, 32, 2, 68, 0])] {
      field(128, Array(name.utf8))
      field(129, shape.flatMap { number(UInt64($0)) })
    }
    field(259, number(1) + number(2))
    #expect(found?.number == bytes.withUnsafeBytes(Checksum.of))
  }

  /// Each changes one thing of a layer.
  private static let layerChanges: [@Sendable (inout LayerSpec) -> Void] = [
    { $0.blocks.swapAt(0, 1) },
    { $0.blocks = [BlockSpec(preNorm: .rms, branches: $0.blocks.flatMap(\.branches))] },
    { $0.attention?.hasBiases = true }, { $0.attention?.hasOutputBias = true },
    { $0.attention?.headNorm = .heads }, { $0.attention?.headNorm = .projection },
    { $0.attention?.rope = nil }, { $0.attention?.rope = .sliding },
    { $0.attention?.window = 5 }, { $0.attention?.hasSinks = true },
    { $0.attention?.hasGate = true },
    {
      $0.attention?.window = 5
      $0.attention?.rope = .sliding
    },
    { $0.attention?.queryHeadCount = 4 }, { $0.attention?.keyValueHeadCount = 2 },
    { $0.attention?.valueLength = 32 }, { $0.attention?.valueScale = Float(1).nextUp },
    { $0.feedForward?.isGated = false }, { $0.feedForward?.hasBiases = true },
    { $0.feedForward?.length = 128 },
  ]

  /// Each changes one thing of a block.
  private static let blockChanges: [@Sendable (inout BlockSpec) -> Void] = [
    { $0.preNorm = nil }, { $0.preNorm = .layer }, { $0.postNorm = .rms },
    { $0.postNorm = .layer }, { $0.scale = Float(1).nextUp }, { $0.residualScale = 1 },
  ]

  private static let scan = ScanSpec(
    keyHeadCount: 2, valueHeadCount: 4, keyLength: 16, valueLength: 8, tapCount: 4,
    inputs: .byKind)
  /// One, and others that differ from it in one thing.
  private static let scans: [ScanSpec] = {
    let changes: [(inout ScanSpec) -> Void] = [
      { _ in }, { $0.keyHeadCount = 1 }, { $0.valueHeadCount = 2 }, { $0.keyLength = 8 },
      { $0.valueLength = 16 }, { $0.tapCount = 3 }, { $0.inputs = .byKeyHead },
      { $0.takesKeysInTurn = true }, { $0.hasTapBias = true }, { $0.hasNorm = false },
      { $0.inputScales = [1, 1, 1, 1, 1] }, { $0.inputScales = [1, 1, 1, 1, 2] },
    ]
    return changes.map { change in
      var other = scan
      change(&other)
      return other
    }
  }()

  /// Each changes one thing of experts that the first families have in common.
  private static let routingChanges: [@Sendable (inout ExpertConfiguration) -> Void] = [
    { $0.hasBiases = true }, { $0.routing.score = .sigmoid }, { $0.routing.hasBias = true },
    { $0.routing.hasSelectionBias = true }, { $0.routing.scale = Float(1).nextUp },
    { $0.routing.groups = ExpertRouting.Groups(count: 2, usedCount: 1) },
    { $0.routing.groups = ExpertRouting.Groups(count: 2, usedCount: 2) },
    { $0.routing.groups = ExpertRouting.Groups(count: 1, usedCount: 1) },
  ]

  @Test func `Every field of a configuration counts, and floats by their bits`() throws {
    let first = configuration()
    var others: [DecoderConfiguration] = []
    func changed(_ change: (inout DecoderConfiguration) -> Void) {
      var other = first
      change(&other)
      others.append(other)
    }
    changed { $0.architecture = "qwen2" }
    for path in [
      \DecoderConfiguration.hiddenSize, \.feedForwardLength, \.queryHeadCount,
      \.keyValueHeadCount, \.headDim, \.vocabularyCount, \.contextLength, \.ropeDimensionCount,
    ] { changed { $0[keyPath: path] += 1 } }
    // These print alike with six digits, as encoders of JSON once did.
    changed { $0.normEpsilon = $0.normEpsilon.nextUp }
    changed { $0.ropeBase = $0.ropeBase.nextUp }
    changed { $0.ropeLinearScale = $0.ropeLinearScale.nextUp }
    changed { $0.embeddingScale = $0.embeddingScale.nextUp }
    changed { $0.attentionScale = $0.attentionScale.nextDown }
    changed { $0.slidingRopeBase = 10000 }
    changed { $0.layers.append(.usual) }
    changed { $0.ropePairing = .halves }
    changed { $0.activation = .relu }
    changed { $0.outputNorm = .layer }
    for change in Self.layerChanges { changed { change(&$0.layers[0]) } }
    for scan in Self.scans { changed { $0.layers[0].scan = scan } }
    for change in Self.blockChanges {
      for block in 0..<2 { changed { change(&$0.layers[0].blocks[block]) } }
    }
    changed { $0.tiesOutput = false }
    changed { $0.logitScale = Float(1).nextUp }
    changed { $0.logitSoftCap = 30 }
    changed { $0.attentionSoftCap = 30 }
    changed { $0.positionOffset = 0 }
    changed { $0.ropeMagnitude = Float(1).nextUp }
    changed { $0.shortContextLength = 1 }
    for expert in 0..<7 {
      changed {
        $0.experts = ExpertConfiguration(
          expertCount: expert == 1 ? 5 : 4, expertsPerToken: expert == 2 ? 3 : 2,
          feedForwardLength: expert == 3 ? 33 : 32,
          sharedFeedForwardLength: expert == 4 || expert == 5 ? 8 : nil,
          gatesSharedExpert: expert == 5, normalisesWeights: expert == 6)
      }
    }
    for change in Self.routingChanges {
      changed {
        var experts = ExpertConfiguration(
          expertCount: 4, expertsPerToken: 2, feedForwardLength: 32, normalisesWeights: true)
        change(&experts)
        $0.experts = experts
      }
    }
    let identities = ([first] + others).map { description($0).identity(checksums: []) }
    #expect(Set(identities).count == identities.count)
    // One field more has to be encoded, and to be changed above. That hidden states are joined no file says.
    #expect(Mirror(reflecting: first).children.count == 27)
    let layer = first.layers[0]
    #expect(Mirror(reflecting: layer.blocks[0]).children.count == 5)
    #expect(Mirror(reflecting: try #require(layer.attention)).children.count == 11)
    #expect(Mirror(reflecting: Self.scan).children.count == 10)
    #expect(Mirror(reflecting: try #require(layer.feedForward)).children.count == 3)
    let experts = try #require(others.last?.experts)
    #expect(Mirror(reflecting: experts).children.count == 8)
    #expect(Mirror(reflecting: experts.routing).children.count == 5)
  }

  @Test func `Weights, names, types and shapes count; vocabulary and order do not`() throws {
    let first = description()
    let identity = first.identity(checksums: [1, 2])
    #expect(identity != first.identity(checksums: [2, 1]))
    #expect(identity != first.identity(checksums: [1]))
    for change: (inout TensorRecord) -> Void in [
      { $0.name = "c" }, { $0.type = .q8_0 }, { $0.columnCount = 16 }, { $0.rowCount = 2 },
      { $0.layout = .interleaved }, { $0.byteCount = 64 },
      { $0.stack = ExpertStack(count: 1, byteStride: 128) },
    ] {
      var other = first
      change(&other.tensors[1])
      #expect(other.identity(checksums: [1, 2]) != identity)
    }
    var other = first
    other.tensors.reverse()
    other.tensors[0].offset = 1 << 20
    (other.name, other.chatTemplate, other.files) = ("name", "template", ["elsewhere"])
    #expect(other.identity(checksums: [1, 2]) == identity)
  }

  @Test func `Images of one source differ where their data or thresholds do`() throws {
    let gguf = TinyModel().gguf(seed: 1).bytes()
    let image = try ImageBuilder.description(of: try ImageBuilder.image(of: gguf))
    var other = image
    other.extents[0].checksum ^= 1
    #expect(other.sourceIdentity == image.sourceIdentity)
    #expect(other.imageIdentity != image.imageIdentity)
    let identities = [Float(0.25), 0.5].map { value in
      other.neurons = NeuronLayout(
        layers: [], thresholds: NeuronThresholds(values: [value], keptFraction: 0.5))
      return other.imageIdentity
    }
    #expect(identities[0] != identities[1])
  }

  @Test func `Longer headers and other orders of keys make no other image`() throws {
    let image = try ImageBuilder.description(
      of: try ImageBuilder.image(of: TinyModel().gguf(seed: 1).bytes()))
    var other = image
    for index in other.extents.indices { other.extents[index].offset += 8192 }
    for index in other.tensors.indices { other.tensors[index].offset += 8192 }
    other.tensors.reverse()
    #expect(other.imageIdentity == image.imageIdentity)
  }

  @Test func `Texts are sixteen hexadecimal digits`() {
    let identity = ModelIdentity(0xAB)
    #expect(identity.description == "00000000000000ab")
    #expect(ModelIdentity(text: identity.description) == identity)
    for text in ["", "ab", "+0000000000000ab", "00000000000000xy", "000000000000000ab"] {
      #expect(ModelIdentity(text: text) == nil)
    }
  }
}
