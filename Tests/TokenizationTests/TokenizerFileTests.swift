import Foundation
import ModelFormat
import Testing
import Tokenization

/// `tokenizer.json` files of the shapes that models come with, and what the PyPI package `tokenizers` makes of 500
/// texts (`tools/make-tokenizers`).
@Suite struct TokenizerFileTests {
  static let folder = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().appendingPathComponent("Tokenizers")
  static let names: [String] = {
    let files = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
    return files.filter { $0.hasSuffix(".json") }.map { String($0.dropLast(5)) }.sorted()
  }()

  private static func lines(_ name: String) throws -> [Substring] {
    let bytes = try VocabularyFile.contents(folder.appendingPathComponent(name).path)
    return String(decoding: bytes, as: UTF8.self)
      .split(separator: "\n", omittingEmptySubsequences: false).dropLast()
  }

  static func tokenizer(_ name: String) throws -> Tokenizer {
    let path = folder.appendingPathComponent(name + ".json").path
    let document = HuggingFace.Document(path: path, bytes: try VocabularyFile.contents(path))
    return try Tokenizer(HuggingFace.tokenizer(document))
  }

  static func texts() throws -> [[UInt8]] {
    try lines("texts.txt").map { line in
      let digits = Array(line)
      return stride(from: 0, to: digits.count, by: 2).map {
        UInt8(String(digits[$0..<$0 + 2]), radix: 16)!
      }
    }
  }

  /// 24 bits of FNV-1a over the ids.
  static func sum(_ ids: [Int32]) -> String {
    var total: UInt64 = 0xcbf2_9ce4_8422_2325
    for id in ids {
      withUnsafeBytes(of: id.littleEndian) { bytes in
        for byte in bytes { total = (total ^ UInt64(byte)) &* 0x100_0000_01b3 }
      }
    }
    let digits = String((total ^ total >> 24 ^ total >> 48) & 0xff_ffff, radix: 16)
    return String(repeating: "0", count: 6 - digits.count) + digits
  }

  @Test func `There are forty shapes and five hundred texts`() throws {
    #expect(Self.names.count >= 40)
    #expect(try Self.texts().count == 500)
  }

  @Test(arguments: names)
  func `Texts become the library's ids`(name: String) throws {
    let tokenizer = try Self.tokenizer(name)
    let sums = try Self.lines(name + ".sums")
    let texts = try Self.texts()
    #expect(sums.count == texts.count && sums.count { $0 == "-" } <= 60)
    for (text, sum) in zip(texts, sums) where sum != "-" {
      let tokens = try tokenizer.encode(text, parseSpecial: true)
      #expect(
        Self.sum(tokens) == sum,
        "\(String(decoding: text, as: UTF8.self).debugDescription) became \(tokens)")
    }
  }

  /// Where `tools/fetch-tokenizers` puts real tokenizers.
  private static let fetched: String = {
    let variables = ProcessInfo.processInfo.environment
    if let models = variables["FLASHINFER_MODELS"] {
      return URL(fileURLWithPath: models).deletingLastPathComponent().path + "/tokenizers"
    }
    let cache = variables["XDG_CACHE_HOME"] ?? (variables["HOME"] ?? "") + "/.cache"
    return cache + "/flashinfer/tokenizers"
  }()
  private static let fetchedNames = [
    "claude-2", "deepseek-v3", "mistral-v1", "mistral-v7", "qwen", "tekken-240718", "tekken-240911",
  ]
  private static let isFetched = fetchedNames.allSatisfy {
    FileManager.default.fileExists(atPath: fetched + "/" + $0)
  }

  @Test(
    .enabled(if: isFetched, "real tokenizers are not there: tools/fetch-tokenizers"),
    arguments: fetchedNames)
  func `Real tokenizers give the ids of their own libraries`(name: String) throws {
    func document(_ file: String) throws -> HuggingFace.Document? {
      let path = Self.fetched + "/" + name + "/" + file
      guard FileManager.default.fileExists(atPath: path) else { return nil }
      return HuggingFace.Document(path: path, bytes: try VocabularyFile.contents(path))
    }
    var documents = HuggingFace.Documents(
      configuration: HuggingFace.Document(path: "config.json", bytes: Array("{}".utf8)))
    documents.tokenizer = try document("tokenizer.json")
    documents.tekken = try document("tekken.json")
    documents.pieces = try document("tokenizer.model")
    documents.ranks = try document("qwen.tiktoken")
    if name == "qwen" {
      documents.tokenizerConfiguration = HuggingFace.Document(
        path: "tokenizer_config.json", bytes: Array(#"{"tokenizer_class":"QWenTokenizer"}"#.utf8))
    }
    let tokenizer = try Tokenizer(try #require(try HuggingFace.tokenizer(documents)))
    let sums = try Self.lines("Real/" + name + ".sums")
    #expect(sums.count == 500 && sums.count { $0 == "-" } < 150)
    for (text, sum) in zip(try Self.texts(), sums) where sum != "-" {
      let tokens = try tokenizer.encode(text, parseSpecial: true)
      #expect(
        Self.sum(tokens) == sum,
        "\(String(decoding: text, as: UTF8.self).debugDescription) became \(tokens)")
    }
  }

  @Test(arguments: names)
  func `Bytes of any kind end in tokens, and no text in a control token`(name: String) throws {
    let tokenizer = try Self.tokenizer(name)
    let hostile: [[UInt8]] = [
      [0xFF], [0x61, 0xC3], [0xE2, 0x96], [0xF0, 0x9F, 0x98], [0xED, 0xA0, 0x80],
      Array("a\u{301}".utf8.dropLast()), Array("<s>[INST]</s><unk> <s> [INST] ".utf8),
    ]
    let control = ["<s>", "</s>", "<unk>", "[INST]"].compactMap { tokenizer.token(spelled: $0) }
    let unknown = tokenizer.token(spelled: "<unk>")
    for text in hostile {
      let tokens = try tokenizer.encode(text)
      #expect(tokens.allSatisfy { !control.contains($0) || $0 == unknown }, "\(text): \(tokens)")
    }
  }

  /// What a user typed is text, also where the template around it has the same tokens.
  @Test(arguments: ["llama-3", "llama-2", "lowercase-nfd", "unigram"])
  func `Control tokens count in markup only, and whole prompts keep their ids`(
    name: String
  ) throws {
    let tokenizer = try Self.tokenizer(name)
    let open = try #require(tokenizer.token(spelled: "<s>"))
    let typed = try tokenizer.encodePrompt(
      [
        ChatPiece(Array("<s>the".utf8), isMarkup: true),
        ChatPiece(Array("<s> x".utf8), isMarkup: false),
      ],
      addsBOS: false)
    #expect(typed.count { $0 == open } == 1 && typed.first == open)
    let harmless = [
      ChatPiece(Array("<s>the ".utf8), isMarkup: true),
      ChatPiece(Array("x y".utf8), isMarkup: false),
    ]
    #expect(
      try tokenizer.encodePrompt(harmless, addsBOS: false)
        == tokenizer.encode(Array("<s>the x y".utf8), parseSpecial: true))
  }

  @Test func `White space that tokens of white space take is looked at once`() throws {
    let path = Self.folder.appendingPathComponent("gpt-2.json").path
    let json = String(decoding: try VocabularyFile.contents(path), as: UTF8.self)
    let blank = #""content":"  ","single_word":false,"lstrip":"#
    let changed = json.replacingOccurrences(
      of: blank + #"false,"rstrip":false"#, with: blank + #"true,"rstrip":true"#)
    #expect(changed != json)
    let document = HuggingFace.Document(path: path, bytes: Array(changed.utf8))
    let tokenizer = try Tokenizer(HuggingFace.tokenizer(document))
    let spaces = [UInt8](repeating: 0x20, count: 2 << 20)
    #expect(try tokenizer.encode(spaces).count == 1 << 20)
  }

  @Test func `A template's tokens stand before and after a prompt`() throws {
    let both = try Self.tokenizer("kimi")
    let open = try #require(both.token(spelled: "<s>"))
    let close = try #require(both.token(spelled: "</s>"))
    let text = Array("the".utf8)
    #expect(try both.encodePrompt(text) == [open, open] + both.encode(text) + [close])
    let one = try Self.tokenizer("llama-3")
    #expect(try one.encodePrompt(text) == [open] + one.encode(text))
  }
}
