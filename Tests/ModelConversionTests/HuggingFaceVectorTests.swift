import Glibc
import ModelConversion
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import Tokenization
import WeightLoader

/// Tiny random models that transformers wrote and ran: `tools/make-vectors`.
@Suite struct HuggingFaceVectorTests {
  private static let names = [
    "llama", "llama-relu", "mistral", "qwen2", "qwen3", "gemma3", "opt",
    "olmo2", "olmo3", "granite", "smollm3", "command-r", "glm4", "gemma2", "qwen3-vl",
    "mistral-small", "phi3", "phi3-long", "phi4-mini", "qwen35", "granitehybrid", "openelm",
    "mamba2",
    "nemotron-h", "lfm2", "falcon-h1", "falcon-h1-norm", "gla", "gla-first",
    "based",
  ]
  private static let expertNames = [
    "mixtral", "qwen2moe", "qwen3moe", "olmoe", "gpt-oss", "glm4moe", "glm4moe-groups",
    "minimax-m2", "qwen3next", "qwen35moe", "granitemoehybrid", "mimo2", "lfm2moe", "minimax",
  ]

  /// The model `name` as an image, while `body` runs.
  private static func withImage(
    of name: String, quantisation: ElementType? = nil, bundling: Bundling? = nil,
    _ body: (ModelSource) throws -> Void
  ) throws {
    var template = Array("/tmp/flashinfer-vector-XXXXXX".utf8CString)
    let target = String(cString: mkdtemp(&template))
    defer {
      unlink(target + "/model.bin")
      rmdir(target)
    }
    let folder = try ModelSource.open(VectorModel.folder(name))
    try Converter(folder, quantisation: quantisation, bundling: bundling)
      .write(to: target + "/model.bin")
    let image = try ModelSource.open(target + "/model.bin")
    try image.verifyExtents()
    try body(image)
  }

  /// Both sides compute in f32 and round keys and values to f16. What is left is the order of sums,
  /// and now and then a key or value that it tips over to the other f16 neighbour. Models are such that this moves
  /// transformers itself by no more than 0.0005 when it computes in f64 or nudges keys by some units in the last place.
  @Test(arguments: names + expertNames)
  func `Logits are those of transformers`(name: String) throws {
    let expected = try VectorModel.expectedLogits(name)
    try Self.withImage(of: name) { image in
      let configuration = try #require(image.description.configuration)
      for promptCount in [VectorModel.tokens.count, 1, 7] {
        let found = try VectorModel.logits(image, configuration, promptCount: promptCount)
        let (worst, mean) = VectorModel.difference(found, expected)
        #expect(worst <= 0.003 && mean <= 0.0003, "prompt of \(promptCount): \(worst), \(mean)")
        let logProbability = VectorModel.logProbabilityDifference(found, expected)
        #expect(logProbability <= 0.001, "\(logProbability)")
      }
    }
  }

  /// Matrices of MXFP4 are multiplied by activations of 8 bits.
  @Test func `Experts in blocks of four bits are near`() throws {
    let expected = try VectorModel.expectedLogits("gpt-oss-mxfp4")
    try Self.withImage(of: "gpt-oss-mxfp4") { image in
      let configuration = try #require(image.description.configuration)
      let (_, mean) = VectorModel.difference(try VectorModel.logits(image, configuration), expected)
      #expect(mean > 0.0003 && mean <= 0.03, "\(mean)")
    }
  }

  /// In bundles of neurons, all of them or those that ReLU lets through are added in another order.
  @Test func `Neurons without gates give the same`() throws {
    let expected = try VectorModel.expectedLogits("opt")
    try Self.withImage(of: "opt", bundling: .neurons) { image in
      let configuration = try #require(image.description.configuration)
      let (worst, mean) = VectorModel.difference(
        try VectorModel.logits(image, configuration), expected)
      #expect(worst <= 0.003 && mean <= 0.0003, "\(worst), \(mean)")
    }
  }

  /// The comparison would notice: each of these changes moves logits far beyond its tolerance.
  @Test func `Every hyper-parameter counts`() throws {
    typealias Change = (inout DecoderConfiguration) -> Void
    let changes: [(name: String, Change)] = [
      ("gemma3", { $0.ropePairing = .adjacent }),
      ("gemma3", { $0.editLayers { $0.attention?.window? += 1 } }),
      ("gemma3", { $0.slidingRopeBase = nil }),
      ("gemma3", { $0.layers[6].attention = $0.layers[5].attention }),
      ("gemma3", { $0.attentionScale = 0.25 }), ("gemma3", { $0.embeddingScale = 1 }),
      ("gemma3", { $0.activation = .silu }), ("llama-relu", { $0.ropeLinearScale = 1 }),
      ("llama-relu", { $0.activation = .silu }),
      ("mistral", { $0.editLayers { $0.attention?.window? -= 1 } }),
      ("opt", { $0.positionOffset = 1 }),
      (
        "opt",
        { $0.editLayers { for block in $0.blocks.indices { $0.blocks[block].preNorm = .rms } } }
      ),
      ("opt", { $0.editLayers { $0.feedForward?.hasBiases = false } }),
      ("opt", { $0.editLayers { $0.attention?.hasBiases = false } }),
      ("opt", { $0.positionOffset = nil }),
      ("olmo2", { $0.editLayers { $0.blocks[1].postNorm = nil } }),
      ("olmo2", { $0.editLayers { $0.attention?.headNorm = nil } }),
      ("olmo3", { $0.slidingRopeBase = nil }),
      ("olmo3", { $0.layers[3].attention = $0.layers[2].attention }),
      ("granite", { $0.logitScale = 1 }), ("granite", { $0.embeddingScale = 1 }),
      ("granite", { $0.editLayers { $0.blocks[0].scale = 1 } }),
      ("granite", { $0.editLayers { $0.blocks[1].scale = 1 } }),
      ("granite", { $0.attentionScale = 0.25 }), ("glm4", { $0.ropePairing = .halves }),
      ("glm4", { $0.ropeDimensionCount = 16 }),
      ("gemma2", { $0.attentionSoftCap = nil }), ("gemma2", { $0.logitSoftCap = nil }),
      ("gemma2", { $0.editLayers { $0.attention?.window? += 1 } }),
      ("smollm3", { $0.layers[3].attention?.rope = .full }), ("command-r", { $0.logitScale = 1 }),
      ("command-r", { $0.ropePairing = .halves }),
      ("command-r", { $0.editLayers { $0.blocks[0].preNorm = .rms } }),
      ("phi3", { $0.editLayers { $0.attention?.window? += 1 } }),
      ("phi3-long", { $0.shortContextLength = 24 }), ("phi3-long", { $0.ropeMagnitude = 1 }),
      ("phi4-mini", { $0.shortContextLength = 16 }), ("phi4-mini", { $0.ropeMagnitude = 1 }),
      ("openelm", { $0.editLayers { $0.attention?.headNorm = nil } }),
      ("mimo2", { $0.editLayers { $0.attention?.valueScale = 1 } }),
      ("mimo2", { $0.editLayers { $0.attention?.window? += 1 } }),
      ("mimo2", { $0.slidingRopeBase = nil }), ("mimo2", { $0.ropeDimensionCount = 24 }),
      ("mamba2", { $0.editLayers { $0.scan?.keyHeadCount = 1 } }),
      ("nemotron-h", { $0.activation = .relu }),
      ("nemotron-h", { $0.layers[3].attention?.rope = .full }),
      ("lfm2", { $0.editLayers { $0.attention?.headNorm = nil } }),
      ("falcon-h1", { $0.editLayers { $0.scan?.inputScales = nil } }),
      (
        "minimax",
        {
          $0.editLayers { for block in $0.blocks.indices { $0.blocks[block].residualScale = nil } }
        }
      ),
      ("minimax", { $0.editLayers { $0.blocks[0].scale = 1 } }),
      ("minimax", { $0.layers[0].blocks[1].residualScale = 1 }),
      ("based", { $0.layers[2].attention?.window? += 1 }),
      ("based", { $0.layers[2].attention?.rope = nil }),
      ("falcon-h1", { $0.embeddingScale = 1 }), ("falcon-h1", { $0.logitScale = 1 }),
      ("qwen3", { $0.ropeBase *= 2 }), ("qwen2", { $0.ropePairing = .adjacent }),
    ]
    for (index, (name, change)) in changes.enumerated() {
      let expected = try VectorModel.expectedLogits(name)
      try Self.withImage(of: name) { image in
        var configuration = try #require(image.description.configuration)
        change(&configuration)
        let (worst, _) = VectorModel.difference(
          try VectorModel.logits(image, configuration), expected)
        #expect(worst > 0.03, "change \(index), \(name): \(worst)")
      }
    }
  }

  /// Rounding weights to 8 bits moves logits by a few percent; nothing may break.
  @Test(arguments: names)
  func `Quantised, logits stay near`(name: String) throws {
    let expected = try VectorModel.expectedLogits(name)
    try Self.withImage(of: name, quantisation: .q8_0) { image in
      let configuration = try #require(image.description.configuration)
      let (_, mean) = VectorModel.difference(try VectorModel.logits(image, configuration), expected)
      // A state carries what rounding made of a token to all that follow.
      #expect(mean <= (configuration.scans.isEmpty ? 0.1 : 0.3))
    }
  }

  @Test(arguments: names + expertNames)
  func `Texts become the tokens of the tokenizers library`(name: String) throws {
    try Self.withImage(of: name) { image in
      #expect(image.description.tokenizerProblem == nil)
      let tokenizer = try Tokenizer(try #require(image.description.tokenizer))
      let lines = String(
        decoding: try VectorModel.read(VectorModel.folder(name) + "/encodings.txt"), as: UTF8.self)
      var count = 0
      for line in lines.split(separator: "\n") {
        let parts = line.split(separator: " ")
        let digits = Array(parts[0])
        let text = stride(from: 0, to: digits.count, by: 2).compactMap {
          UInt8(String(digits[$0..<$0 + 2]), radix: 16)
        }
        let ids = parts[1].split(separator: ",").compactMap { Int32($0) }
        #expect(try tokenizer.encodePrompt(text) == ids, "\(String(decoding: text, as: UTF8.self))")
        count += 1
      }
      #expect(count >= 3)
    }
  }

  @Test(arguments: names + expertNames)
  func `An image keeps all that a folder says of its tokenizer`(name: String) throws {
    let folder = try #require(try ModelSource.describe(VectorModel.folder(name)).tokenizer)
    try Self.withImage(of: name) { image in
      let kept = try #require(image.description.tokenizer)
      #expect(kept.model == folder.model && kept.pipeline == folder.pipeline)
      #expect(kept.pipeline != nil && kept.addedFlags == folder.addedFlags)
      #expect(kept.stopTokens == folder.stopTokens && !kept.stopTokens.isEmpty)
      #expect(kept.kinds == folder.kinds && kept.merges.bytes == folder.merges.bytes)
      let ends = try Tokenizer(kept).endTokens
      #expect(folder.stopTokens.allSatisfy { ends.contains(Int32($0)) })
    }
  }

  @Test func `Folders without a model say what is missing`() {
    let target = TemporaryFolder()
    func error() -> String {
      do throws(LoaderError) {
        _ = try ModelSource.open(target.path)
        return "opened"
      } catch { return error.description }
    }
    #expect(error().contains("a folder without config.json is not a model"))
    target.write("config.json", Array("{}".utf8))
    #expect(error().contains("neither model.safetensors nor model.safetensors.index.json"))
    let index = #"{"weight_map":{"a":"model-00001-of-00002.safetensors"}}"#
    target.write("model.safetensors.index.json", Array(index.utf8))
    #expect(error().contains("model-00001-of-00002.safetensors: the file is missing"))
  }
}
