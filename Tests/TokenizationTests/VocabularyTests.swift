import Foundation
import ModelFormat
import Testing
import Tokenization

/// Small vocabularies of every scheme, with the tokens that the reference libraries give
/// (`tools/make-vocabularies`).
@Suite struct VocabularyTests {
  static let names = [
    "bloom", "deepseek-v3", "falcon", "gemma4", "gpt-2", "gpt-4o", "llama-bpe", "qwen2",
    "sentencepiece-bpe", "sentencepiece-unigram", "smollm", "tekken",
  ]
  private static let folder = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().appendingPathComponent("Vocabularies")

  private static func contents(_ name: String) throws -> [UInt8] {
    try VocabularyFile.contents(folder.appendingPathComponent(name).path)
  }

  private static func tokenizer(_ name: String) throws -> Tokenizer {
    let file = try VocabularyFile(path: folder.appendingPathComponent(name + ".gguf").path)
    return try Tokenizer(file.definition(), modelName: file.text("general.name"))
  }

  private static func texts() throws -> [[UInt8]] {
    VectorTests.texts(try contents("texts.inp"), separator: "\n__text__\n")
  }

  @Test func `Every vocabulary in the folder is tested, and every scheme has one`() throws {
    let found = try FileManager.default.contentsOfDirectory(atPath: Self.folder.path)
      .filter { $0.hasSuffix(".gguf") }.map { String($0.dropLast(5)) }.sorted()
    #expect(found == Self.names)
    let models = try Self.names.map {
      try VocabularyFile(path: Self.folder.appendingPathComponent($0 + ".gguf").path)
        .definition().model
    }
    #expect(
      Set(models) == [.byteLevelBPE, .sentencePieceBPE, .unigram, .spacedBPE])
  }

  @Test(arguments: names)
  func `Texts become the reference's tokens`(name: String) throws {
    let tokenizer = try Self.tokenizer(name)
    let lines = try String(decoding: Self.contents(name + ".ids"), as: UTF8.self)
      .split(separator: "\n", omittingEmptySubsequences: false).dropLast()
    let texts = try Self.texts()
    #expect(texts.count > 60 && lines.count == texts.count)
    for (text, line) in zip(texts, lines) {
      let expected = line.split(separator: " ").compactMap { Int32($0) }
      let tokens = try tokenizer.encode(text)
      func compare() {
        #expect(tokens == expected, "\(String(decoding: text, as: UTF8.self).debugDescription)")
      }
      // SentencePiece writes its leading space before spaces too; llama.cpp's unigram does not, nor do we.
      if name == "sentencepiece-unigram", !text.isEmpty, text.allSatisfy({ $0 == 0x20 }) {
        withKnownIssue { compare() }
      } else {
        compare()
      }
    }
  }
}
