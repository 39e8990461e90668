import Glibc
import ModelConversion
import ModelFormat
import Runtime
import TensorBasics
import Testing
import Tokenization
import WeightLoader

/// Tiny random models that transformers wrote and ran: `tools/make-vectors`.
@Suite struct HuggingFaceVectorTests {
  private static let names = ["llama", "llama-relu", "mistral", "qwen2", "qwen3", "gemma3"]
  private static let tokens: [Int32] = [
    1, 17, 255, 3, 99, 310, 42, 42, 7, 200, 128, 64, 5, 300, 11, 12, 13, 250, 77, 9, 160, 31, 2, 88,
  ]

  private static func folder(_ name: String) -> String {
    let tests = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast()
    return tests.joined(separator: "/") + "/Vectors/" + name
  }

  private static func read(_ path: String) throws -> [UInt8] {
    let file = try #require(fopen(path, "r"), "\(path)")
    defer { fclose(file) }
    fseek(file, 0, SEEK_END)
    var bytes = [UInt8](repeating: 0, count: ftell(file))
    rewind(file)
    try #require(fread(&bytes, 1, bytes.count, file) == bytes.count)
    return bytes
  }

  /// The model `name` as an image, while `body` runs.
  private static func withImage(
    of name: String, quantisation: ElementType? = nil, _ body: (ModelSource) throws -> Void
  ) throws {
    var template = Array("/tmp/flashinfer-vector-XXXXXX".utf8CString)
    let target = String(cString: mkdtemp(&template))
    defer {
      unlink(target + "/model.bin")
      rmdir(target)
    }
    let folder = try HuggingFaceFolder.open(Self.folder(name))
    #expect(folder.contents.count == folder.source.description.tensors.count)
    try Converter(folder.source, contents: folder.contents, quantisation: quantisation)
      .write(to: target + "/model.bin")
    let image = try ModelSource.open(target + "/model.bin")
    try image.verifyExtents()
    try body(image)
  }

  /// Logits of ``tokens``: a prompt of `promptCount`, then one by one.
  private static func logits(_ image: ModelSource, promptCount: Int) throws -> [Float] {
    let configuration = try #require(image.description.configuration)
    let session = try Session(
      image, configuration,
      MemoryPlan.Request(
        budgetByteCount: 1 << 30, contextLength: tokens.count, promptLength: promptCount,
        threadCount: 2, logitRowCount: 4))
    var logits: [Float] = []
    try session.score(Array(tokens[..<promptCount])) { _, row in logits.append(contentsOf: row) }
    for token in tokens[promptCount...] { logits.append(contentsOf: try session.decode(token)) }
    return logits
  }

  /// Weights and activations are f32 in both; here keys and values are rounded to f16, 2⁻¹¹ of
  /// themselves, which a softmax over scores of a few units turns into a few thousandths of a logit's
  /// spread. A wrong pairing, window, scale or norm costs more than a tenth of it.
  @Test(arguments: names)
  func `Logits are those of transformers`(name: String) throws {
    let bytes = try Self.read(Self.folder(name) + "/logits.f32")
    let expected = bytes.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    let spread = (expected.reduce(0) { $0 + $1 * $1 } / Float(expected.count)).squareRoot()
    try Self.withImage(of: name) { image in
      for promptCount in [Self.tokens.count, 1, 7] {
        let found = try Self.logits(image, promptCount: promptCount)
        try #require(found.count == expected.count)
        let worst = zip(found, expected).map { ($0 - $1).magnitude }.max() ?? .infinity
        #expect(worst <= 0.01 * spread, "prompt of \(promptCount): \(worst) of \(spread)")
      }
    }
  }

  /// Rounding weights to 8 bits moves logits by a percent or so; nothing may break.
  @Test(arguments: names)
  func `Quantised, logits stay near`(name: String) throws {
    let bytes = try Self.read(Self.folder(name) + "/logits.f32")
    let expected = bytes.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    try Self.withImage(of: name, quantisation: .q8_0) { image in
      let found = try Self.logits(image, promptCount: 7)
      let error = zip(found, expected).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
      let power = expected.reduce(0) { $0 + $1 * $1 }
      #expect((error / power).squareRoot() <= 0.06)
    }
  }

  @Test(arguments: names)
  func `Texts become the tokens of the tokenizers library`(name: String) throws {
    try Self.withImage(of: name) { image in
      #expect(image.description.tokenizerProblem == nil)
      let tokenizer = try Tokenizer(try #require(image.description.tokenizer))
      let lines = String(
        decoding: try Self.read(Self.folder(name) + "/encodings.txt"), as: UTF8.self)
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

  @Test func `Folders without a model say what is missing`() {
    for (path, text) in [("/no/such/folder", "config.json"), (Self.folder(""), "config.json")] {
      do throws(ConversionError) {
        _ = try HuggingFaceFolder.open(path)
        Issue.record("opened")
      } catch { #expect(error.description.contains(text)) }
    }
  }
}
