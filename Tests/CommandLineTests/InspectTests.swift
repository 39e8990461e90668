import TestSupport
import Testing

/// What `flashinfer-inspect` says of files: keys, sizes, and what lies in them.
@Suite(
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
struct InspectTests {
  private let folder = TemporaryFolder()

  private func inspect(_ arguments: [String]) throws -> Program.Result {
    try Program.run("flashinfer-inspect", arguments)
  }

  /// A GGUF file with one tensor and the keys given, whose architecture nobody knows.
  private func file(_ metadata: [(String, TinyGGUF.Value)]) -> String {
    folder.write(
      "unknown.gguf",
      TinyGGUF(
        metadata: metadata,
        tensors: [.init(name: "w", type: 0, dimensions: [1], data: [0, 0, 0, 0])]
      ).bytes())
  }

  @Test func `Keys of any file are shown, long arrays by how they begin`() throws {
    let path = file([
      ("general.architecture", .string("nobody's")), ("a.number", .int32(-3)),
      ("a.large", .uint64(.max)), ("a.flag", .bool(true)), ("a.float", .float32(0.5)),
      ("a.list", .int32s((0..<8).map(Int32.init))),
      ("a.words", .strings((0..<1000).map { Array("word \($0)".utf8) })),
      ("a.long", .strings([[UInt8](repeating: 0x61, count: 5000), Array("end".utf8)])),
      ("a.text", .string(String(repeating: "é", count: 300))),
    ])
    let result = try inspect([path, "--metadata"])
    #expect(result.status == 0, "\(result.errors)")
    let lines = result.output.split(separator: "\n").map { line in
      line.split(separator: " ", omittingEmptySubsequences: true).joined(separator: " ")
    }
    #expect(
      Array(lines.prefix(7)) == [
        "key type value", "general.architecture string \"nobody's\"", "a.number int32 -3",
        "a.large uint64 18446744073709551615", "a.flag bool true", "a.float float32 0.5",
        "a.list int32 × 8 [0, 1, 2, 3, 4, 5, 6, 7]",
      ])
    let words = (0..<8).map { "\"word \($0)\"" }.joined(separator: ", ")
    #expect(lines[7] == "a.words string × 1000 [\(words), …]")
    #expect(lines[8].hasPrefix("a.long string × 2 [\"aaa") && lines[8].hasSuffix(", \"end\"]"))
    #expect(lines[9] == "a.text string \"\(String(repeating: "é", count: 160))\"… (600 bytes)")
    let json = try inspect([path, "--metadata", "--json"]).output
    #expect(
      json.contains(
        "{\"key\":\"a.large\",\"file\":\"\(path)\",\"type\":\"uint64\",\"count\":null,"
          + "\"value\":18446744073709551615}"))
    #expect(json.contains("\"count\":1000,\"value\":[\"word 0\"") && !json.contains("word 8"))
    #expect(json.contains("\"mode\":\"view\"") && json.contains("\"model\":null"))
  }

  @Test func `What a terminal would obey is escaped`() throws {
    let path = file([
      ("a\u{1B}[2J", .string("b\u{7}\n\u{9B}31m\u{202E}\r\t\u{2028}c")), ("d", .float64(.nan)),
      ("e", .strings([[0x1B, 0x5B, 0x4B], [0xFF]])),
    ])
    let output = try inspect([path, "--metadata"]).output
    #expect(output.contains("a\\u{1b}[2J"))
    #expect(output.contains("\"b\\u{7}\\n\\u{9b}31m\\u{202e}\\r\\t\\u{2028}c\""))
    #expect(output.contains("[\"\\u{1b}[K\", \"\u{FFFD}\"]"))
    #expect(!output.unicodeScalars.contains { $0.value < 32 && $0 != "\n" })
    let json = try inspect([path, "--metadata", "--json"]).output
    #expect(json.contains("\"key\":\"d\"") && json.contains("\"value\":null"))
    var named = TinyModel().gguf(seed: 1)
    named["general.name"] = .string("\u{1B}]0;title\u{7}")
    let described = try inspect([folder.write("named.gguf", named.bytes())]).output
    #expect(described.hasPrefix("name: \\u{1b}]0;title\\u{7}\n"), "\(described)")
  }

  @Test func `Keys of a folder's files name their file, and an image has none`() throws {
    _ = try Program.shell("mkdir '\(folder.path)/shards'")
    for name in ["a", "b"] {
      let header =
        #"{"__metadata__":{"format":"\#(name)"},"\#(name)":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#
      folder.write(
        "shards/\(name).safetensors",
        [UInt8(header.utf8.count)] + [UInt8](repeating: 0, count: 7) + Array(header.utf8)
          + [0, 0, 0, 0])
    }
    let shards = try inspect([folder.path + "/shards", "--metadata"])
    #expect(shards.status == 0, "\(shards.errors)")
    #expect(
      shards.output
        == "key     type    file           value\n"
        + "format  string  a.safetensors  \"a\"\nformat  string  b.safetensors  \"b\"\n")
    let image = folder.path + "/image"
    let model = folder.write("model.gguf", TinyModel().gguf(seed: 1).bytes())
    #expect(try Program.run("flashinfer-convert", [model, image]).status == 0)
    let none = try inspect([image, "--metadata"])
    #expect(none.status == 0 && none.output.isEmpty && none.errors.contains("no metadata"))
    #expect(try inspect([image, "--metadata", "--json"]).output.contains("\"metadata\":[]"))
    #expect(try inspect([folder.path + "/nothing", "--metadata"]).status == 66)
  }

  /// The number after a JSON member's name.
  private func number(_ name: String, in json: String) -> Int? {
    json.firstRange(of: "\"\(name)\":").flatMap { range in
      Int(json[range.upperBound...].prefix { $0.isNumber })
    }
  }

  @Test func `Parameters and quantisation are a model's own, however it lies in files`() throws {
    var rectified = TinyModel()
    rectified.hiddenActivation = "relu"
    let model = folder.write("model.gguf", rectified.gguf(seed: 1).bytes())
    let images = [folder.path + "/image", folder.path + "/neurons"]
    for (image, options) in zip(images, [[], ["--bundle", "neurons"]]) {
      let made = try Program.run("flashinfer-convert", [model, image] + options)
      #expect(made.status == 0, "\(made.errors)")
    }
    let described = try ([model] + images).map { try inspect([$0, "--json"]).output }
    let counts = described.map { number("parameters", in: $0) }
    #expect((counts[0] ?? 0) > 0 && Set(counts).count == 1, "\(counts)")
    #expect(described.allSatisfy { $0.contains("\"quantisation\":\"Q8_0\"") })
    let lines = try inspect([images[1]]).output
    #expect(lines.contains("parameters: ") && lines.contains("quantisation: Q8_0"), "\(lines)")
  }

  /// A file as forks of llama.cpp write it: some tensors are of types that only they know.
  private var mixed: TinyGGUF {
    var file = TinyModel().gguf(seed: 1)
    for (name, type) in [("blk.0.ffn_up", 144), ("blk.1.ffn_up", 144), ("blk.1.ffn_down", 31)] {
      for index in file.tensors.indices where file.tensors[index].name == name + ".weight" {
        file.tensors[index].type = UInt32(type)
      }
    }
    return file
  }

  @Test func `A model that cannot be run is shown with what would be refused`() throws {
    var template = mixed
    template["tokenizer.chat_template"] = .string("{{ messages[0].content }}")
    template["tokenizer.ggml.eos_token_id"] = .uint32(7)
    let path = folder.write("mixed.gguf", template.bytes())
    let shown = try inspect([path])
    #expect(shown.status == 0, "\(shown.errors)")
    for words in [
      "architecture: llama", "type 144 rowMajor: 2 tensors, ", ", not supported\n",
      "Q4_0_4_4 rowMajor: 1 tensor, ", "stop tokens: 7 ", "chat template: takes",
      "refused: \(path): at byte ", "tensor \"blk.0.ffn_up.weight\" has type 144, which only forks",
      "; so have 1 more", "tensor \"blk.1.ffn_down.weight\" has type Q4_0_4_4 (31)",
    ] {
      #expect(shown.output.contains(words), "\(words) in \(shown.output)")
    }
    let json = try inspect([path, "--json"]).output
    #expect(json.contains("\"problems\":[\"") && json.contains("\"isSupported\":false"))
    #expect(json.contains("\"template\":\"{{ messages[0].content }}\""))
    #expect(json.contains("\"stopTokens\":[{\"id\":7,"))
    let list = try inspect([path, "--tensors"]).output
    #expect(list.split(separator: "\n").count == 1 + mixed.tensors.count)
    #expect(list.contains("blk.1.ffn_down.weight") && list.contains("Q4_0_4_4"))
    #expect(try inspect([path, "--tokenize", "a"]).status == 65)
    #expect(try Program.run("flashinfer-run", [path, "a"]).status == 65)
  }

  @Test func `Another architecture, or hyper-parameter, is shown too`() throws {
    var other = TinyModel().gguf(seed: 1)
    other["general.architecture"] = .string("mamba")
    let shown = try inspect([folder.write("other.gguf", other.bytes())])
    #expect(shown.status == 0 && shown.output.contains("refused: "), "\(shown.errors)")
    #expect(shown.output.contains("architecture \"mamba\" is not supported"))
    #expect(shown.output.contains("tokenizer: ") && shown.output.contains("Q8_0 rowMajor: "))
    var scaled = TinyModel().gguf(seed: 1)
    scaled["llama.logit_scale"] = .float32(2)
    let refused = try inspect([folder.write("scaled.gguf", scaled.bytes())]).output
    #expect(refused.contains("refused: ") && refused.contains("llama.logit_scale: 2.0"))
    let runs = try inspect([folder.write("runs.gguf", TinyModel().gguf(seed: 1).bytes())]).output
    #expect(!runs.contains("refused") && !runs.contains("not supported"))
  }
}
