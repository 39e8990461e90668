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

  @Test func `Layers that the graph does not have are refused by name`() throws {
    let usual = try #require(try description("llama").configuration)
    typealias Change = (inout LayerSpec) -> Void
    let experts = ExpertConfiguration(
      expertCount: 4, expertsPerToken: 2, feedForwardLength: 32, normalisesWeights: true)
    let changes: [Change] = [
      { $0.blocks.removeLast() }, { $0.blocks.removeFirst() }, { $0.blocks = [] },
      { $0.blocks += $0.blocks }, { $0.blocks[0].branches = [] }, { $0.experts = experts },
      {
        $0.blocks = [BlockSpec(preNorm: .rms, branches: $0.blocks.reversed().flatMap(\.branches))]
      },
      { $0.blocks[0].scale = .nan }, { $0.blocks[1].scale = 0 },
      { $0.blocks[0].postNorm = .layer }, { $0.attention?.window = 0 },
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
        let place = [5: "layer 0", 12: "an FFN without gate"][index] ?? "layer 1"
        #expect(error.description.contains(place), "change \(index): \(error)")
      }
    }
  }
}
