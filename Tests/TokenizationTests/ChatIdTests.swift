import Foundation
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import Tokenization

/// Whole conversations in which nobody typed a control token have the ids that Hugging Face's library gives the text that
/// `jinja2` renders, although the text knows what a user wrote (`tools/make-chat-ids`).
@Suite struct ChatIdTests {
  private static let folder = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().appendingPathComponent("ChatIds")

  private static func file(_ name: String) throws -> [UInt8] {
    try VocabularyFile.contents(folder.appendingPathComponent(name).path)
  }

  private static func json(_ name: String) throws -> JSONValue {
    try file(name).withUnsafeBytes { try JSONParser.parse($0, path: name) }
  }

  private static let table: [[String]] = {
    let text = (try? file("ids.tsv")).map { String(decoding: $0, as: UTF8.self) } ?? ""
    return text.split(separator: "\n").map { line in
      line.split(separator: "\t").map(String.init)
    }
  }()

  /// One of the tokenizers of `TokenizerFileTests`, with the tokens of `tokens.json` after its own.
  private static func tokenizer(_ name: String) throws -> Tokenizer {
    let path = TokenizerFileTests.folder.appendingPathComponent(name + ".json").path
    let bytes = try VocabularyFile.contents(path)
    let json = try bytes.withUnsafeBytes { try JSONParser.parse($0, path: name) }
    let own = try #require(json["added_tokens"]?.array)
    let vocabulary = try #require(json["model"]?["vocab"])
    var next = vocabulary.members?.count ?? vocabulary.array?.count ?? 0
    for token in own { next = max(next, 1 + Int(try #require(token["id"]?.integer))) }
    let tokens = try #require(try Self.json("tokens.json").array)
    let text = String(decoding: bytes, as: UTF8.self)
    let keepsText = text.contains(#""normalizer":null"#)
    var added = ""
    for (number, token) in tokens.enumerated() {
      let content = try #require(token["content"]?.string)
      added += #",{"id":\#(next + number),"content":\#(quoted(content))"#
      for name: StaticString in ["special", "lstrip", "rstrip", "single_word"] {
        added += #","\#(name)":\#(token[name]?.bool ?? false)"#
      }
      // With a normaliser these are found as they are spelt, not as the library does.
      added += #","normalized":\#(keepsText && token["normalized"]?.bool ?? false)}"#
    }
    let end = try #require(text.range(of: #"],"normalizer":"#))
    var documents = HuggingFace.Documents(
      configuration: HuggingFace.Document(path: "config.json", bytes: Array("{}".utf8)))
    documents.tokenizer = HuggingFace.Document(
      path: path, bytes: Array((text[..<end.lowerBound] + added + text[end.lowerBound...]).utf8))
    documents.tokenizerConfiguration = HuggingFace.Document(
      path: "tokenizer_config.json", bytes: Array(#"{"bos_token":"<s>","eos_token":"</s>"}"#.utf8))
    return try Tokenizer(try #require(try HuggingFace.tokenizer(documents)))
  }

  private static func quoted(_ text: String) -> String {
    var json = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\n": json += "\\n"
      case "\"": json += "\\\""
      default: json.unicodeScalars.append(scalar)
      }
    }
    return json + "\""
  }

  private static func conversations() throws -> [Conversation] {
    let texts = try TokenizerFileTests.texts()
    let written = try #require(try json("conversations.json").array).map {
      try Conversation($0, name: "conversations.json")
    }
    let asked = try #require(table.first).dropFirst().map { number in
      Conversation([ChatMessage(role: .user, content: texts[try #require(Int(number))])])
    }
    return (written + asked).map { conversation in
      var conversation = conversation
      conversation.setNow("2025-03-09T14:05:06")
      return conversation
    }
  }

  /// Name and source of each template of the table that is there.
  private static func templates(isOwn: Bool) throws -> [(name: String, source: [UInt8])] {
    guard isOwn else {
      let folder = try #require(published)
      return table.dropFirst(2).compactMap { row in
        row[0].hasSuffix(".jinja")
          ? (try? VocabularyFile.contents("\(folder)/\(row[0])")).map { (row[0], $0) } : nil
      }
    }
    return try #require(try json("templates.json").members).map {
      ($0.key, Array(try #require($0.value.string).utf8))
    }
  }

  private static let published = ProcessInfo.processInfo.environment["FLASHINFER_CHAT_TEMPLATES"]

  /// Those templates of a column that give other sums of ids than the library, and how many were compared.
  private static func differences(
    _ column: Int, isOwn: Bool
  ) throws -> (names: [String], count: Int) {
    let tokenizer = try tokenizer(table[1][column])
    let conversations = try conversations()
    var (different, count) = ([String](), 0)
    for (name, source) in try templates(isOwn: isOwn) {
      let row = try #require(table.first { $0[0] == name })
      guard Fingerprint.of(source) == row[1] else { continue }
      let template = try ChatTemplate(String(decoding: source, as: UTF8.self))
      let ids = conversations.compactMap {
        try? tokenizer.encodeChat($0, template: template)
      }
      count += 1
      if "\(ids.count)" != row[2] || TokenizerFileTests.sum(ids.flatMap { $0 }) != row[column] {
        different.append("\(name): \(ids.count) of \(row[2])")
      }
    }
    return (different, count)
  }

  @Test(arguments: 3..<15)
  func `Conversations have the library's ids`(column: Int) throws {
    let (different, count) = try Self.differences(column, isOwn: true)
    #expect(different.isEmpty, "\(Self.table[1][column])")
    #expect(count == 8)
  }

  @Test(arguments: 3..<15)
  func `What follows an answer has the same ids, whatever it says`(column: Int) throws {
    let tokenizer = try Self.tokenizer(Self.table[1][column])
    let written = try #require(try Self.json("conversations.json").array)
    var count = 0
    for (name, source) in try Self.templates(isOwn: true) {
      let template = try ChatTemplate(String(decoding: source, as: UTF8.self))
      for json in written {
        let roles = json["messages"]?.array?.compactMap { $0["role"]?.string } ?? []
        for index in roles.indices.dropLast() where roles[index] == "assistant" {
          var conversation = try Conversation(json, name: "conversations.json")
          conversation.setNow("2025-03-09T14:05:06")
          guard let all = try? tokenizer.encodeChat(conversation, template: template) else {
            continue
          }
          let rest = try #require(
            try tokenizer.encodeChat(conversation, after: index, template: template), "\(name)")
          // Text that goes on from other text may be cut otherwise, and space from other space even be lost.
          let endsInSpace =
            json["messages"]?.array?[index]["content"]?.string?.last?.isWhitespace == true
          let isSame =
            tokenizer.endTokens.contains(rest[0])
            ? all.suffix(rest.count) == rest[...]
            : endsInSpace
              || tokenizer.decode(all).suffix(tokenizer.decode(rest).count)
                == tokenizer.decode(rest)[...]
          #expect(isSame && rest.count < all.count, "\(name), message \(index)")
          count += 1
        }
      }
    }
    #expect(count > 8)
  }

  @Test(
    .enabled(if: published != nil, "no templates: set FLASHINFER_CHAT_TEMPLATES"),
    arguments: 3..<15)
  func `Published templates give the library's ids`(column: Int) throws {
    let (different, count) = try Self.differences(column, isOwn: false)
    #expect(different.isEmpty, "\(Self.table[1][column])")
    #expect(count > 0, "none of the templates is the one that the ids were made from")
  }
}
