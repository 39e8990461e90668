import FoundationEssentials
import ModelFormat
import TestSupport
import Testing

/// Layers as headers state them, and those that cannot be.
@Suite struct LayerSpecTests {
  private func description(_ architecture: String) throws -> ModelDescription {
    try ImageBuilder.description(of: TinyModel(architecture: architecture).gguf(seed: 1).bytes())
  }

  /// An old reader would take the model for another one.
  @Test(arguments: ["olmo2", "granite", "smollm3", "command-r"])
  func `Layers that flags cannot describe are stated, and a flag says so`(family: String) throws {
    let model = try description(family)
    let configuration = try #require(model.configuration)
    let bytes = try JSONEncoder().encode(configuration)
    let text = String(decoding: bytes, as: UTF8.self)
    #expect(text.contains("layerKinds") && !text.contains("normalisesHeads"))
    #expect(try JSONDecoder().decode(DecoderConfiguration.self, from: bytes) == configuration)
    let layout = try FlashImage.Layout(for: model)
    let preamble = try layout.preamble(checksums: layout.description.extents.map { _ in 0 })
    #expect(Array(preamble[12..<16]) == [2, 0, 0, 0])
  }

  /// A reader of layers that knows no sinks and no other routing would leave them out.
  @Test(arguments: ["gpt-oss", "glm4moe", "minimax-m2", "gemma2"])
  func `Parts that came later have a flag of their own`(family: String) throws {
    let model = try description(family)
    let configuration = try #require(model.configuration)
    let bytes = try JSONEncoder().encode(configuration)
    #expect(try JSONDecoder().decode(DecoderConfiguration.self, from: bytes) == configuration)
    let layout = try FlashImage.Layout(for: model)
    let preamble = try layout.preamble(checksums: layout.description.extents.map { _ in 0 })
    #expect(preamble[12] & 6 == 6)
  }

  /// A reader that knows no sizes of layers' own would compute another model.
  @Test(arguments: ["mimo2", "openelm"])
  func `Sizes of layers' own have a flag of their own`(family: String) throws {
    let model = try description(family)
    let configuration = try #require(model.configuration)
    let bytes = try JSONEncoder().encode(configuration)
    #expect(try JSONDecoder().decode(DecoderConfiguration.self, from: bytes) == configuration)
    let layout = try FlashImage.Layout(for: model)
    let preamble = try layout.preamble(checksums: layout.description.extents.map { _ in 0 })
    #expect(preamble[12] & 18 == 18)
    var other = model
    other.configuration?.layers[1].attention?.valueScale = 2
    #expect(other.graphChecksum != model.graphChecksum)
  }

  @Test(arguments: ["llama", "qwen2", "qwen3", "gemma3", "glm4", "qwen2moe", "olmoe"])
  func `What flags can describe needs no new reader`(family: String) throws {
    let model = try description(family)
    let bytes = try JSONEncoder().encode(try #require(model.configuration))
    #expect(!String(decoding: bytes, as: UTF8.self).contains("layerKinds"))
    let layout = try FlashImage.Layout(for: model)
    let preamble = try layout.preamble(checksums: layout.description.extents.map { _ in 0 })
    #expect(Array(preamble[12..<16]) == [0, 0, 0, 0])
  }

  @Test(arguments: [
    ("\"layers\":[0,0,0,1,0]", "\"layers\":[0,0,0,2,0]"),
    ("\"layers\":[0,0,0,1,0]", "\"layers\":[0,0,0,-1,0]"),
    ("\"layers\":[0,0,0,1,0]", "\"layers\":[0,0,0,1]"),
    ("\"layerCount\":5", "\"layerCount\":1000000000000"), ("\"layerCount\":5", "\"layerCount\":-1"),
    ("\"layerKinds\":", "\"kinds\":"), ("\"layers\":", "\"other\":"),
  ])
  func `Headers whose layers do not fit are refused`(old: String, new: String) throws {
    let configuration = try #require(try description("smollm3").configuration)
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys]
    let text = String(decoding: try encoder.encode(configuration), as: UTF8.self)
    #expect(text.contains(old))
    let damaged = text.replacing(old, with: new)
    #expect(throws: (any Error).self) {
      try JSONDecoder().decode(DecoderConfiguration.self, from: Data(damaged.utf8)).validate()
    }
  }

  private static let scan = ScanSpec(
    keyHeadCount: 2, valueHeadCount: 4, keyLength: 16, valueLength: 8, tapCount: 4,
    inputs: .byKind)

  /// What a reader of layers in pairs refuses by itself.
  @Test(arguments: ["mamba2", "nemotron_h", "lfm2", "falcon-h1"])
  func `Layers of one block or two branches are stated and read`(family: String) throws {
    var configuration = try #require(try description(family).configuration)
    for layer in configuration.layers.indices
    where configuration.layers[layer].scan?.hasNorm == false {
      configuration.layers[layer].scan?.inputScales = [1, 2, 3, 4, 0.5]
    }
    let bytes = try JSONEncoder().encode(configuration)
    let read = try JSONDecoder().decode(DecoderConfiguration.self, from: bytes)
    try read.validate()
    #expect(read == configuration)
  }

  @Test func `Layers that the graph does not have are refused by name`() throws {
    let usual = try #require(try description("llama").configuration)
    typealias Change = (inout LayerSpec) -> Void
    let changes: [Change] = [
      { $0.blocks = [] }, { $0.blocks += $0.blocks }, { $0.blocks += $0.blocks.prefix(1) },
      { $0.blocks[0] = $0.blocks[1] }, { $0.blocks[1] = $0.blocks[0] },
      { $0.blocks[0].branches = [] }, { $0.blocks[0].branches += $0.blocks[0].branches },
      { $0.blocks[0].branches.insert(.scan(Self.scan), at: 0) },
      { $0.blocks[0].branches += [.scan(Self.scan), .scan(Self.scan)] },
      { layer in
        layer.scan = Self.scan
        layer.blocks[1].branches.append(.scan(Self.scan))
      },
      { layer in
        layer.scan = Self.scan
        layer.scan?.hasNorm = false
      },
      { layer in
        layer.scan = .gatedConvolution(width: 1 << 30, tapCount: 3)
      },
      { layer in
        layer.scan = .gatedConvolution(width: 64, tapCount: 9)
      },
      { layer in
        layer.scan = Self.scan
        layer.scan?.inputs = .mamba2
        layer.scan?.inputScales = [1, 1, 1, 1]
      },
      { layer in
        layer.scan = Self.scan
        layer.scan?.inputs = .mamba2
        layer.scan?.inputScales = [1, 1, 1, 1, .nan]
      },
      {
        $0.blocks = [BlockSpec(preNorm: .rms, branches: $0.blocks.reversed().flatMap(\.branches))]
      },
      { $0.blocks[0].residualScale = 0 }, { $0.blocks[0].residualScale = .nan },
      { $0.blocks[0].scale = .nan }, { $0.blocks[1].scale = 0 },
      { $0.blocks[0].postNorm = .layer }, { $0.attention?.window = 0 },
      { $0.attention?.queryHeadCount = 3 }, { $0.attention?.keyValueHeadCount = 0 },
      { $0.attention?.queryHeadCount = 1 << 40 }, { $0.attention?.valueLength = 0 },
      { $0.attention?.valueLength = .max }, { $0.attention?.valueScale = .nan },
      { $0.feedForward?.length = 0 }, { $0.feedForward?.length = .max },
      { $0.feedForward?.hasBiases = true }, { $0.feedForward?.isGated = false },
    ]
    for (index, change) in changes.enumerated() {
      var configuration = usual
      change(&configuration.layers[1])
      do throws(FormatError) {
        try configuration.validate()
        Issue.record("change \(index) is accepted")
      } catch {
        // What layers must have in common is missed at the first of them, or of the whole.
        let place = index == changes.count - 1 ? "an FFN without gate" : "layer 1"
        #expect(error.description.contains(place), "change \(index): \(error)")
      }
    }
  }

  /// Of as many key heads as value heads, without a convolution, and where elements are multiplied few of them.
  @Test func `Linear attention without a convolution has its shapes`() throws {
    for (inputs, keyHeadCount, keyLength, tapCount, isPossible) in [
      (.gatedLinear, 4, 16, 1, true), (.gatedLinear, 2, 16, 1, false),
      (.gatedLinear, 4, 16, 4, false), (.gatedLinear, 4, 65, 1, true), (.taylor, 4, 16, 1, true),
      (.taylor, 4, 64, 1, true), (.taylor, 4, 65, 1, false), (.taylor, 2, 16, 1, false),
    ] as [(ScanSpec.Inputs, Int, Int, Int, Bool)] {
      var configuration = try #require(try description("llama").configuration)
      configuration.layers[1].scan = ScanSpec(
        keyHeadCount: keyHeadCount, valueHeadCount: 4, keyLength: keyLength, valueLength: 8,
        tapCount: tapCount, inputs: inputs)
      do throws(FormatError) {
        try configuration.validate()
        #expect(isPossible, "\(inputs)")
      } catch { #expect(!isPossible && error.description.contains("layer 1"), "\(error)") }
      let bytes = try JSONEncoder().encode(configuration)
      #expect(try JSONDecoder().decode(DecoderConfiguration.self, from: bytes) == configuration)
    }
  }

  @Test func `Some layers may have experts, all the same ones`() throws {
    var experts = ExpertConfiguration(
      expertCount: 4, expertsPerToken: 2, feedForwardLength: 32, normalisesWeights: true)
    var configuration = try #require(try description("llama").configuration)
    configuration.layers[1].experts = experts
    try configuration.validate()
    experts.expertsPerToken = 3
    configuration.layers[0].experts = experts
    let error = #expect(throws: FormatError.self) { try configuration.validate() }
    #expect(error?.description.contains("layer 1: layers with other experts") == true)
  }

  @Test func `Routing that cannot be is refused with the number`() {
    typealias Change = (inout ExpertConfiguration) -> Void
    let changes: [(words: String, change: Change)] = [
      ("expert group count is 0", { $0.routing.groups = .init(count: 0, usedCount: 1) }),
      ("expert group count is 5", { $0.routing.groups = .init(count: 5, usedCount: 1) }),
      ("used expert group count is 3", { $0.routing.groups = .init(count: 2, usedCount: 3) }),
      ("used expert group count is 0", { $0.routing.groups = .init(count: 2, usedCount: 0) }),
      ("3 of 8 experts cannot", { $0.routing.groups = .init(count: 4, usedCount: 1) }),
      ("3 of 8 experts cannot", { $0.routing.groups = .init(count: 3, usedCount: 3) }),
      ("weights is 0", { $0.routing.scale = 0 }),
      ("weights is inf", { $0.routing.scale = .infinity }),
      ("weights is -1", { $0.routing.scale = -1 }),
    ]
    for (words, change) in changes {
      var experts = ExpertConfiguration(
        expertCount: 8, expertsPerToken: 3, feedForwardLength: 32, normalisesWeights: true)
      change(&experts)
      var configuration = DecoderConfiguration(
        architecture: "llama", layerCount: 1, hiddenSize: 32, feedForwardLength: 32,
        queryHeadCount: 2, keyValueHeadCount: 1, headDim: 16, vocabularyCount: 300,
        contextLength: 64, normEpsilon: 1e-5, ropePairing: .halves, ropeDimensionCount: 16,
        ropeBase: 1e4, tiesOutput: true)
      configuration.experts = experts
      let error = #expect(throws: FormatError.self) { try configuration.validate() }
      #expect(error?.description.contains(words) == true, "\(words): \(error as Any)")
    }
  }
}
