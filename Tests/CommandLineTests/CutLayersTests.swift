import TestSupport
import Testing

/// `tools/cut-layers` on tiny models: what is kept is what the larger model has there.
@Suite(
  .enabled(
    if: Program.isBuilt, "the executables are not built beside the tests: swift build first"),
  .enabled(if: PythonTool.hasPython, "there is no python3")
)
struct CutLayersTests {
  private let folder = TemporaryFolder()

  /// The logits of a file after some tokens.
  private func logits(_ model: String) throws -> [UInt8] {
    let output = "\(folder.path)/logits"
    let result = try Program.run(
      "flashinfer-bench", ["logits", model, "--tokens", "5,6,7,260,9,5", "--output", output])
    #expect(result.status == 0, "\(result.errors)")
    return folder.read("logits")
  }

  /// A model of five layers as a file, and without those that are not kept.
  private func models(keeping kept: [Int]) throws -> (whole: String, expected: String) {
    var model = TinyModel()
    model.layerCount = 5
    var file = model.gguf(seed: 6)
    let whole = folder.write("whole", file.bytes())
    file["llama.block_count"] = .uint32(UInt32(kept.count))
    file.tensors = file.tensors.compactMap { tensor in
      var parts = tensor.name.split(separator: ".").map(String.init)
      guard parts[0] == "blk" else { return tensor }
      guard let place = kept.firstIndex(of: Int(parts[1]) ?? -1) else { return nil }
      parts[1] = "\(place)"
      var renamed = tensor
      renamed.name = parts.joined(separator: ".")
      return renamed
    }
    return (whole, folder.write("expected", file.bytes()))
  }

  @Test(arguments: [
    (["--keep", "3"], [0, 1, 4]), (["--keep", "4"], [0, 1, 3, 4]),
    (["--layers", "1-2,4"], [1, 2, 4]), (["--keep", "5"], [0, 1, 2, 3, 4]),
  ])
  func `The layers asked for are kept as they are, in their order`(
    options: [String], kept: [Int]
  ) throws {
    let (whole, expected) = try models(keeping: kept)
    let cut = folder.path + "/cut"
    let result = try PythonTool.run("cut-layers", [whole, cut] + options)
    #expect(result.status == 0, "\(result.errors)")
    #expect(try logits(cut) == logits(expected))
    #expect(try (logits(cut) == logits(whole)) == (kept.count == 5))
  }

  @Test func `What cannot be cut is refused with the reason, and nothing is written`() throws {
    folder.write("model", TinyModel().gguf(seed: 1).bytes())
    folder.write("gemma3", TinyModel(architecture: "gemma3").gguf(seed: 1).bytes())
    folder.write("text", Array("no model".utf8))
    let before = folder.entries
    for (name, options, status, reason) in [
      ("gemma3", ["--keep", "1"], 65, "its architecture is gemma3"),
      ("text", ["--keep", "1"], 65, "does not begin with GGUF"),
      ("model", ["--keep", "0"], 64, "between 1 and 2"),
      ("model", ["--keep", "3"], 64, "between 1 and 2"),
      ("model", ["--layers", "0,2"], 64, "layers 0 to 1"),
      ("model", ["--layers", "1,0"], 64, "does not ascend"),
      ("model", ["--layers", "a"], 64, "no list of layers"),
      ("model", [], 64, "required"),
      ("missing", ["--keep", "1"], 66, "No such file"),
    ] {
      let result = try PythonTool.run(
        "cut-layers", ["\(folder.path)/\(name)", folder.path + "/cut"] + options)
      #expect(result.status == status && result.errors.hasPrefix("error: "), "\(result.errors)")
      #expect(result.errors.contains(reason), "\(name) \(options): \(result.errors)")
    }
    #expect(folder.entries == before)
  }
}
