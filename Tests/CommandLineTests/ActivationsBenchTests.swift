import TestSupport
import Testing

/// `flashinfer-bench activations` on tiny models.
@Suite(
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
struct ActivationsBenchTests {
  private let folder = TemporaryFolder()

  private func run(_ arguments: [String]) throws -> Program.Result {
    try Program.run("flashinfer-bench", ["activations"] + arguments)
  }

  /// The header of a safetensors file, and how many bytes follow it.
  private func file(_ name: String) throws -> (header: String, dataByteCount: Int) {
    let bytes = folder.read(name)
    try #require(bytes.count > 8)
    let length = bytes[..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
    try #require(bytes.count >= 8 + length)
    return (String(decoding: bytes[8..<(8 + length)], as: UTF8.self), bytes.count - 8 - length)
  }

  @Test func `Every layer's inputs, gates and shares are written`() throws {
    let model = folder.write("model", TinyModel().gguf(seed: 1).bytes())
    let text = folder.write("text", Array("the quick brown fox".utf8))
    let output = folder.path + "/activations"
    let result = try run([model, text, "--tokens", "7", "--output", output, "--context", "4"])
    #expect(result.status == 0, "\(result.errors)")
    let (header, dataByteCount) = try file("activations")
    #expect(header.contains("\"__metadata__\":{\"activation\":\"silu\",\"model_identity\":\""))
    #expect(header.contains("\"source\":\"text\""))
    let shape = TinyModel()
    for layer in 0..<shape.layerCount {
      for name in ["input", "gate", "share"] {
        #expect(header.contains("\"blk.\(layer).ffn_\(name)\""), "\(header)")
      }
    }
    let rowByteCount = 2 * shape.hiddenSize + 2 * shape.feedForwardLength + 4
    #expect(dataByteCount == 7 * shape.layerCount * rowByteCount)
  }

  @Test func `The file does not depend on threads`() throws {
    let model = folder.write("model", TinyModel().gguf(seed: 1).bytes())
    let text = folder.write("text", Array("the quick brown fox".utf8))
    for name in ["one", "two"] {
      let result = try run(
        [model, text, "--tokens", "9", "--output", folder.path + "/" + name, "--threads"]
          + [name == "one" ? "1" : "3"])
      #expect(result.status == 0, "\(result.errors)")
    }
    #expect(folder.read("one") == folder.read("two") && !folder.read("one").isEmpty)
  }

  @Test func `Experts and empty texts are refused`() throws {
    let dense = folder.write("dense", TinyModel().gguf(seed: 1).bytes())
    let experts = folder.write("experts", TinyModel.withExperts("qwen3moe").gguf(seed: 1).bytes())
    let text = folder.write("text", Array("the quick brown fox".utf8))
    let output = ["--output", folder.path + "/activations"]
    #expect(try run([experts, text] + output).status == 65)
    #expect(try run([dense, text, "--tokens", "0"] + output).status == 64)
    #expect(try run([dense, folder.path + "/missing"] + output).status == 66)
    #expect(!folder.entries.contains { $0.hasPrefix("activations") })
  }
}
