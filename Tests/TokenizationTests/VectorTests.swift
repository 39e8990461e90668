import Glibc
import Testing
import Tokenization

/// Vocabularies with texts and expected tokens, as `*.gguf`, `*.gguf.inp` and `*.gguf.out`.
///
/// They are too large to lie here: `FLASHINFER_TOKENIZER_VECTORS` names their directory. Small
/// vocabularies of every scheme lie here, see ``VocabularyTests``.
@Suite struct VectorTests {
  static let directory: String? = {
    guard let named = getenv("FLASHINFER_TOKENIZER_VECTORS") else { return nil }
    let path = String(cString: named)
    return access(path, R_OK) == 0 ? path : nil
  }()

  /// Paths of the vocabularies that have vectors.
  static let vocabularies: [String] = {
    guard let directory, let stream = opendir(directory) else { return [] }
    defer { closedir(stream) }
    var paths: [String] = []
    while let entry = readdir(stream) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      let path = "\(directory)/\(name)"
      if name.hasSuffix(".gguf"), access(path + ".inp", R_OK) == 0 { paths.append(path) }
    }
    return paths.sorted()
  }()

  @Test(
    "The published vectors of whole vocabularies are matched exactly",
    .enabled(if: !vocabularies.isEmpty, "no vectors: set FLASHINFER_TOKENIZER_VECTORS"),
    arguments: vocabularies)
  func vectorsMatch(path: String) throws {
    let file = try VocabularyFile(path: path)
    guard file.text("tokenizer.ggml.model") != "bert" else { return }
    let tokenizer = try Tokenizer(
      file.definition(), modelName: file.text("general.name"))
    let texts = try Self.texts(
      VocabularyFile.contents(path + ".inp"), separator: "\n__ggml_vocab_test__\n")
    let lines = try String(decoding: VocabularyFile.contents(path + ".out"), as: UTF8.self)
      .split(separator: "\n", omittingEmptySubsequences: false)
    #expect(!texts.isEmpty && lines.count >= texts.count)
    for (text, line) in zip(texts, lines) {
      let expected = line.split(separator: " ").compactMap { Int32($0) }
      let tokens = try tokenizer.encode(text)
      #expect(tokens == expected, "\(String(decoding: text, as: UTF8.self).debugDescription)")
    }
  }

  /// The texts of a file, each followed by a separator.
  static func texts(_ bytes: [UInt8], separator: String) -> [[UInt8]] {
    let separator = Array(separator.utf8)
    var texts: [[UInt8]] = []
    var start = 0
    var index = 0
    while index + separator.count <= bytes.count {
      if bytes[index] == separator[0],
        bytes[index..<index + separator.count].elementsEqual(separator)
      {
        texts.append(Array(bytes[start..<index]))
        index += separator.count
        start = index
      } else {
        index += 1
      }
    }
    return texts
  }
}
