import TensorBasics
import TestSupport
import Testing

/// `tools/enlarge` on tiny models: what it makes computes what the original does, to the bit.
@Suite(
  .enabled(
    if: Program.isBuilt, "the executables are not built beside the tests: swift build first"),
  .enabled(if: PythonTool.hasPython, "there is no python3")
)
struct EnlargeTests {
  private let folder = TemporaryFolder()
  private static let tokens = "5,6,7,260,9,5,6,101,102,5,33,7"

  private func enlarge(_ arguments: [String]) throws -> Program.Result {
    try PythonTool.run("enlarge", arguments)
  }

  /// The logits of a file, some tokens being read as a prompt and the others decoded.
  private func logits(_ model: String) throws -> [UInt8] {
    let output = "\(folder.path)/logits"
    let result = try Program.run(
      "flashinfer-bench",
      ["logits", model, "--tokens", Self.tokens, "--prompt", "7", "--output", output])
    #expect(result.status == 0, "\(result.errors)")
    return folder.read("logits")
  }

  /// Enlarges a model to each of some sizes and compares logits; how wide the last one is.
  private func expectSame(_ model: TinyModel, _ sizes: [Int]) throws -> Int? {
    let path = folder.write("model", model.gguf(seed: 3).bytes())
    let original = try logits(path)
    #expect(original.count == 12 * 4 * model.vocabularyCount)
    var width: Int?
    for size in sizes {
      let result = try enlarge([path, folder.path + "/large", "--bytes", "\(size)", "--force"])
      #expect(result.status == 0, "\(result.errors)")
      #expect(folder.read("large").count >= size, "\(result.errors)")
      #expect(try logits(folder.path + "/large") == original, "\(size): \(result.errors)")
      width = result.errors.firstMatch(of: /(\d+) wide/).flatMap { Int($0.output.1) }
    }
    #expect(folder.entries == ["large", "logits", "model"])
    return width
  }

  @Test func `Logits are the same bits, with more neurons and wider by 4 and by 16`() throws {
    let model = TinyModel()
    #expect(try expectSame(model, [300_000]) == model.hiddenSize)
    #expect(try expectSame(model, [1_500_000, 4_000_000]) == 4 * model.hiddenSize)
    #expect(try expectSame(model, [24_000_000]) == 16 * model.hiddenSize)
  }

  @Test(arguments: [
    [ElementType.q4_0, .q4_1], [.q5_0, .q5_1, .iq4_NL], [.q2_K, .q3_K], [.q4_K, .q5_K, .q6_K],
    [.iq4_XS], [.f32, .f16, .bf16],
  ])
  func `So are those of every type of matrices`(types: [ElementType]) throws {
    var model = TinyModel.wide()
    model.layerCount = 2
    model.matrixTypes = types
    model.tableType = types[0]
    #expect(try expectSame(model, [60_000_000]) == 4 * model.hiddenSize)
  }

  @Test func `So are those of qwen2, whose biases are added to more heads, and of scaled RoPE`()
    throws
  {
    #expect(try expectSame(TinyModel(architecture: "qwen2"), [3_000_000]) == 256)
    var scaled = TinyModel()
    scaled.hasRopeFactors = true
    scaled.tiesOutput = false
    #expect(try expectSame(scaled, [3_000_000]) == 256)
  }

  @Test func `The answer is the same in a part of the enlarged model's size, and from its image`()
    throws
  {
    let path = folder.write("model", TinyModel().gguf(seed: 4).bytes())
    let (large, image) = (folder.path + "/large", folder.path + "/image")
    #expect(try enlarge([path, large, "--bytes", "40MiB"]).status == 0)
    #expect(try Program.run("flashinfer-convert", [large, image]).status == 0)
    let options = [
      "--tokens", Self.tokens, "--max-tokens", "24", "--temperature", "0", "--threads", "2",
    ]
    let answer = try Program.run("flashinfer-run", [path] + options)
    #expect(answer.status == 0 && !answer.output.isEmpty, "\(answer.errors)")
    for model in [large, image] {
      let same = try Program.run("flashinfer-run", [model, "--ram", "60MiB"] + options)
      #expect(same.status == 0 && same.output == answer.output, "\(same.errors)")
    }
  }

  @Test func `What is added cannot be compressed, and the same input gives the same file`() throws {
    var model = TinyModel()
    model.matrixTypes = [.q4_1]
    let path = folder.write("model", model.gguf(seed: 5).bytes())
    for name in ["one", "two"] {
      #expect(try enlarge([path, "\(folder.path)/\(name)", "--bytes", "6MB"]).status == 0)
    }
    let file = folder.read("one")
    #expect(file == folder.read("two"))
    let packed = try Program.shell("gzip -9 -c '\(folder.path)/one' | wc -c")
    let count = Int(packed.output.filter(\.isNumber)) ?? 0
    #expect(count * 10 > file.count * 8, "\(count) of \(file.count)")
  }

  @Test func `What cannot be enlarged is refused with the reason, and nothing is written`() throws {
    let model = TinyModel().gguf(seed: 1).bytes()
    let files = [
      "gemma3": TinyModel(architecture: "gemma3").gguf(seed: 1).bytes(),
      "experts": TinyModel.mixtral().gguf(seed: 1).bytes(),
      "cut": Array(model[..<(model.count - 100)]), "header": Array(model[..<700]),
      "text": Array("no model".utf8), "none": [], "model": model,
    ]
    for (name, bytes) in files { folder.write(name, bytes) }
    let before = folder.entries
    for (name, size, status, reason) in [
      ("gemma3", "9MB", 65, "its architecture is gemma3"), ("experts", "9MB", 65, "ffn_gate_inp"),
      ("cut", "9MB", 65, "ends behind the end"), ("header", "9MB", 65, "within its header"),
      ("text", "9MB", 65, "does not begin with GGUF"), ("none", "9MB", 65, "within its header"),
      ("model", "9KB", 64, "bytes already"), ("model", "9XB", 64, "no size"),
      ("model", "-1", 64, "--bytes"),
      ("missing", "9MB", 66, "No such file"),
    ] {
      let result = try enlarge(["\(folder.path)/\(name)", folder.path + "/large", "--bytes", size])
      #expect(
        result.status == status && result.errors.hasPrefix("error: "), "\(name): \(result.errors)")
      #expect(result.errors.contains(reason), "\(name): \(result.errors)")
    }
    for output in ["model", "text"] {
      let result = try enlarge([
        "\(folder.path)/model", "\(folder.path)/\(output)", "--bytes", "9MB",
      ])
      #expect(result.status == 64, "\(result.errors)")
    }
    #expect(folder.entries == before && folder.read("model") == model)
  }

  @Test func `Where there is no room nothing is left behind`() throws {
    let path = folder.write("model", TinyModel().gguf(seed: 1).bytes())
    let result = try Program.shell(
      "ulimit -f 4000; '\(PythonTool.path("enlarge"))' '\(path)' '\(folder.path)/large' --bytes 9MB"
    )
    #expect(result.status == 73 && result.errors.contains("File too large"), "\(result.errors)")
    #expect(folder.entries == ["model"])
  }
}

/// A tool of `tools/` that is written in Python and needs nothing else.
enum PythonTool {
  static let hasPython = (try? Program.shell("python3 -c pass"))?.status == 0

  static func path(_ name: String) -> String {
    "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/") + "/tools/" + name
  }

  static func run(_ name: String, _ arguments: [String]) throws -> Program.Result {
    let quoted = ([path(name)] + arguments).map { "'\($0)'" }
    return try Program.shell("exec " + quoted.joined(separator: " "))
  }
}
