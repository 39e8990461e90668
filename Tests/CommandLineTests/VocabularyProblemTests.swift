import TestSupport
import Testing

/// A vocabulary that cannot be used is said so, by every program and before anything is written.
@Suite(
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
struct VocabularyProblemTests {
  private let folder = TemporaryFolder()

  /// A model whose vocabulary is changed.
  private func model(_ change: (inout TinyGGUF) -> Void) -> String {
    var file = TinyModel().gguf(seed: 1)
    change(&file)
    return folder.write("model.gguf", file.bytes())
  }

  private func expectProblem(_ path: String, _ reason: String) throws {
    for (program, more) in [
      ("flashinfer-run", ["hi", "--raw"]), ("flashinfer-inspect", ["--tokenize", "hi"]),
      ("flashinfer-convert", [folder.path + "/image.bin"]),
    ] {
      let result = try Program.run(program, [path] + more)
      #expect(result.status == 65 && result.errors.contains(reason), "\(program): \(result)")
      #expect(result.errors.contains(path), "\(program) names no file: \(result.errors)")
    }
    #expect(!folder.entries.contains("image.bin"))
    let text = try Program.run("flashinfer-inspect", [path])
    #expect(text.status == 0 && text.output.contains(reason), "\(text)")
    let json = try Program.run("flashinfer-inspect", [path, "--json"])
    #expect(json.output.contains("\"tokenizerProblem\":\""), "\(json.output)")
    // Ids need no vocabulary.
    let ids = try Program.run(
      "flashinfer-run",
      [path, "--tokens", "1,42", "--max-tokens", "2", "--no-expert-history", "--quiet"])
    #expect(ids.status == 0, "\(ids.errors)")
  }

  @Test func `An unknown kind of tokenizer is named`() throws {
    try expectProblem(
      model { $0["tokenizer.ggml.model"] = .string("rwkv") }, "\"rwkv\" is not supported")
  }

  @Test func `An unknown pre-tokenizer is named`() throws {
    try expectProblem(
      model {
        $0["tokenizer.ggml.model"] = .string("gpt2")
        $0["tokenizer.ggml.pre"] = .string("nonsense")
      }, "unknown pre-tokenizer 'nonsense'")
  }

  @Test func `That there is none is among what is refused`() throws {
    let path = model { file in
      file.metadata.removeAll { $0.0.hasPrefix("tokenizer.") }
    }
    let text = try Program.run("flashinfer-inspect", [path])
    #expect(text.status == 0 && text.output.contains("refused: "), "\(text)")
    #expect(text.output.contains("holds no vocabulary") && text.output.contains("--tokens"))
    let json = try Program.run("flashinfer-inspect", [path, "--json"])
    #expect(json.output.contains("\"tokenizerProblem\":null"), "\(json.output)")
    #expect(json.output.contains("holds no vocabulary"), "\(json.output)")
  }

  @Test func `Names of llama.cpp's mixes are told what to ask for`() throws {
    let path = model { _ in }
    for (mix, type) in [("Q4_K_M", "q4_k"), ("q5_k_s", "q5_k"), ("Q3_K_XL", "q3_k")] {
      let result = try Program.run(
        "flashinfer-convert", [path, folder.path + "/image.bin", "--quantize", mix])
      #expect(result.status == 64 && result.errors.contains("--quantize \(type)"), "\(result)")
    }
    let upper = try Program.run(
      "flashinfer-convert", [path, folder.path + "/image.bin", "--quantize", "Q8_0"])
    #expect(upper.status == 0, "\(upper.errors)")
    let unknown = try Program.run(
      "flashinfer-convert", [path, folder.path + "/other.bin", "--quantize", "q9_k"])
    #expect(unknown.status == 64 && unknown.errors.contains("q4_k"), "\(unknown.errors)")
  }

  @Test func `A model without a vocabulary is converted and described with a word about it`() throws
  {
    let path = model { file in file.metadata.removeAll { $0.key.hasPrefix("tokenizer.") } }
    let image = folder.path + "/bare.bin"
    let converted = try Program.run("flashinfer-convert", [path, image])
    #expect(converted.status == 0 && converted.errors.contains("holds no vocabulary"))
    for file in [path, image] {
      let described = try Program.run("flashinfer-inspect", [file])
      #expect(described.status == 0 && described.output.contains("holds no vocabulary"))
    }
    let run = try Program.run("flashinfer-run", [image, "hi", "--raw"])
    #expect(run.status == 65 && run.errors.contains("holds no vocabulary"), "\(run)")
  }

  /// Names are for people: whatever bytes they have, the model runs.
  @Test(arguments: [
    (
      TinyGGUF.Value.raw(
        type: 8, bytes: [5, 0, 0, 0, 0, 0, 0, 0] + [0x43, 0x61, 0x66, 0xE9, 0x21]), "name: Café!\n"
    ),
    (.raw(type: 8, bytes: [2, 0, 0, 0, 0, 0, 0, 0] + [0xFF, 0x80]), "name: ÿ\\u{80}\n"),
  ]) func `A model's name may be any bytes`(name: TinyGGUF.Value, line: String) throws {
    let path = model { $0["general.name"] = name }
    let image = folder.path + "/named.bin"
    #expect(try Program.run("flashinfer-convert", [path, image]).status == 0)
    for file in [path, image] {
      let described = try Program.run("flashinfer-inspect", [file])
      #expect(described.output.hasPrefix(line), "\(described)")
      let run = try Program.run(
        "flashinfer-run",
        [file, "hi", "--raw", "--max-tokens", "1", "--no-expert-history", "--quiet"])
      #expect(run.status == 0, "\(run.errors)")
    }
  }

  @Test func `A pre-tokenizer that is left out is asked for`() throws {
    try expectProblem(
      model {
        $0["tokenizer.ggml.model"] = .string("gpt2")
        $0["tokenizer.ggml.pre"] = nil
      }, "names no pre-tokenizer")
  }
}
