import Foundation
import ModelFormat
import Testing
import Tokenization

/// Vocabularies of folders without `tokenizer.json`.
@Suite struct FolderVocabularyTests {
  /// All bytes and a few words, in the order of their ranks.
  private static let ranked =
    (0...255).map { [UInt8($0)] }
    + ["th", "he", "the", " the", "北"].map { Array($0.utf8) }

  private static func document(_ name: String, _ bytes: [UInt8]) -> HuggingFace.Document {
    HuggingFace.Document(path: name, bytes: bytes)
  }

  private func documents(
    settings: String? = nil, configuration: String = "{}"
  ) -> HuggingFace.Documents {
    var documents = HuggingFace.Documents(
      configuration: Self.document("config.json", Array(configuration.utf8)))
    documents.tokenizerConfiguration = settings.map {
      Self.document("tokenizer_config.json", Array($0.utf8))
    }
    return documents
  }

  private func tokenizer(_ documents: HuggingFace.Documents) throws -> Tokenizer {
    let definition = try #require(try HuggingFace.tokenizer(documents))
    try definition.validate()
    return try Tokenizer(definition)
  }

  private func problem(_ documents: HuggingFace.Documents) -> String {
    do throws(FormatError) {
      return try HuggingFace.tokenizer(documents) == nil ? "none" : "read"
    } catch { return error.description }
  }

  /// tiktoken's text.
  private static let tiktoken = Array(
    ranked.enumerated().map { Data($0.element).base64EncodedString() + " \($0.offset)\n" }
      .joined().utf8)

  @Test func `tiktoken's ranks are read, whatever the file is called`() throws {
    var qwen = documents(settings: #"{"tokenizer_class":"QWenTokenizer"}"#)
    qwen.ranks = Self.document("qwen.tiktoken", Self.tiktoken)
    let tokenizer = try tokenizer(qwen)
    #expect(try tokenizer.encode("the the\n北".utf8) == [258, 259, 10, 260])
    #expect(try tokenizer.encode("e\u{301}".utf8) == [0xC3, 0xA9])
    #expect(tokenizer.token(spelled: "<|im_end|>") == 263)
    #expect(try tokenizer.encode("<|im_end|>".utf8, parseSpecial: true) == [263])
    #expect(try tokenizer.encode("<|im_end|>".utf8).count > 1)
    var kimi = documents(
      settings:
        #"{"tokenizer_class":"TikTokenTokenizer","bos_token":"[BOS]","added_tokens_decoder":"#
        + #"{"262":{"content":"[BOS]","special":true}}}"#)
    kimi.pieces = Self.document("tokenizer.model", Self.tiktoken)
    #expect(try self.tokenizer(kimi).encode("the北".utf8) == [258, 260])
    #expect(try self.tokenizer(kimi).bosToken == 262)
    qwen.tokenizerConfiguration = Self.document(
      "tokenizer_config.json", Array(#"{"tokenizer_class":"OurTokenizer"}"#.utf8))
    #expect(problem(qwen).contains("OurTokenizer"))
    qwen.ranks = Self.document("qwen.tiktoken", Array("AA== 0\nAA== 1\n".utf8))
    #expect(problem(qwen).contains("line 2"))
  }

  @Test func `tekken has its special tokens first`() throws {
    let entries = Self.ranked.enumerated().map {
      #"{"rank":\#($0.offset),"token_bytes":"\#(Data($0.element).base64EncodedString())"}"#
    }
    let special = ["<unk>", "<s>", "</s>", "[INST]"].enumerated().map {
      #"{"rank":\#($0.offset),"token_str":"\#($0.element)","is_control":true}"#
    }
    func json(_ vocabulary: [String]) -> [UInt8] {
      Array(
        (#"{"config":{"pattern":" ?\\p{L}+|\\s+|.","default_vocab_size":266,"#
          + #""default_num_special_tokens":5},"vocab":[\#(vocabulary.joined(separator: ","))],"#
          + #""special_tokens":[\#(special.joined(separator: ","))]}"#).utf8)
    }
    var folder = documents()
    folder.tekken = Self.document("tekken.json", json(entries))
    let tokenizer = try tokenizer(folder)
    #expect(tokenizer.vocabularyCount == 266 && tokenizer.bosToken == 1 && tokenizer.eosToken == 2)
    #expect(try tokenizer.encodePrompt("the the".utf8) == [1, 263, 264])
    #expect(try tokenizer.encode("[INST]".utf8, parseSpecial: true) == [3])
    folder.tekken = Self.document("tekken.json", json(Array(entries.reversed())))
    #expect(problem(folder).contains("rank 0"))
  }

  @Test func `GPT-2's files are cut as the class that reads them does`() throws {
    let vocabulary = #"{"t":0,"h":1,"e":2,"th":3,"the":4,"Ġ":5,"Ġthe":6,"1":7}"#
    var folder = documents(settings: #"{"tokenizer_class":"GPT2Tokenizer"}"#)
    folder.vocabulary = Self.document("vocab.json", Array(vocabulary.utf8))
    #expect(problem(folder).contains("merges.txt"))
    folder.merges = Self.document(
      "merges.txt", Array("#version: 0.2\nt h\nth e\nĠ the\n".utf8))
    #expect(try tokenizer(folder).encode("the the11".utf8) == [4, 6, 7, 7])
    folder.tokenizerConfiguration = nil
    #expect(problem(folder).contains("not named"))
    folder.configuration = Self.document(
      "config.json", Array(#"{"architectures":["Qwen2ForCausalLM"]}"#.utf8))
    #expect(try tokenizer(folder).encode("the the".utf8) == [4, 6])
    folder.merges = Self.document("merges.txt", Array("t h e\n".utf8))
    #expect(problem(folder).contains("line 1"))
  }

  // MARK: SentencePiece

  private static func field(_ number: Int, _ bytes: [UInt8]) -> [UInt8] {
    precondition(bytes.count < 128)
    return [UInt8(number << 3 | 2), UInt8(bytes.count)] + bytes
  }

  private static func piece(_ text: String, _ score: Float, _ kind: UInt8) -> [UInt8] {
    let bits = withUnsafeBytes(of: score.bitPattern.littleEndian) { Array($0) }
    return field(1, field(1, Array(text.utf8)) + [0x15] + bits + [0x18, kind])
  }

  /// A model of BPE whose dummy prefix is on; `more` goes into its normaliser.
  private static func sentencePiece(kind: UInt8 = 2, more: [UInt8] = [0x20, 0]) -> [UInt8] {
    var bytes =
      piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("<0x21>", 0, 6)
    for (index, text) in ["▁the", "the", "th", "▁", "t", "h", "e", "▁t"].enumerated() {
      bytes += piece(text, -Float(index), 1)
    }
    return bytes + field(2, [0x18, kind]) + field(3, more)
  }

  @Test func `SentencePiece's model is read as it is`() throws {
    var folder = documents(
      settings: #"{"bos_token":"<s>","eos_token":"</s>","added_tokens_decoder":"#
        + #"{"2":{"content":"</s>","special":true},"12":{"content":"<tag>","special":false}}}"#)
    folder.pieces = Self.document("tokenizer.model", Self.sentencePiece())
    let tokenizer = try tokenizer(folder)
    #expect(tokenizer.vocabularyCount == 13 && tokenizer.addsBOS)
    #expect(try tokenizer.encodePrompt("the!".utf8) == [1, 4, 3])
    #expect(try tokenizer.encode("<tag>the".utf8) == [12, 4])
    for (bytes, reason) in [
      (Self.sentencePiece(kind: 3), "words or characters"),
      (Self.sentencePiece(more: [0x12, 1, 7, 0x20, 0]), "a map of its own"),
      (Self.sentencePiece(more: []), "removes repeated spaces"),
      (Array(Self.sentencePiece().dropLast()), "beyond its message"),
      ([0x0A, 0xFF], "does not end"),
    ] {
      folder.pieces = Self.document("tokenizer.model", bytes)
      #expect(problem(folder).contains(reason), "\(problem(folder))")
    }
  }
}
