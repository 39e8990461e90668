import ModelFormat
import TensorBasics
import Tokenization

extension FuzzTarget {
  /// Vocabularies of folders without `tokenizer.json`: a digit for the kind, `tokenizer_config.json` up to a zero, a
  /// text up to a zero, then the file; of `vocab.json` up to another zero, then `merges.txt`.
  static let vocabulary = FuzzTarget(
    name: "vocabulary", dictionary: VocabularyTarget.words,
    seeds: { VocabularyTarget.seeds }, run: VocabularyTarget.run)
}

enum VocabularyTarget {
  private static let configuration = HuggingFace.Document(
    path: "config.json", bytes: Array(#"{"architectures":["Qwen2ForCausalLM"]}"#.utf8))

  static func run(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) -> Bool {
    var reader = InputReader(input)
    let head = Array(reader.bytes(upTo: 0))
    let text = Array(reader.bytes(upTo: 0))
    guard let kind = head.first else { return false }
    var documents = HuggingFace.Documents(configuration: configuration)
    if head.count > 1 {
      documents.tokenizerConfiguration = HuggingFace.Document(
        path: "settings", bytes: Array(head.dropFirst()))
    }
    switch kind {
    case UInt8(ascii: "0"):
      documents.pieces = HuggingFace.Document(path: "pieces", bytes: Array(reader.rest()))
    case UInt8(ascii: "1"):
      documents.ranks = HuggingFace.Document(path: "ranks", bytes: Array(reader.rest()))
    case UInt8(ascii: "2"):
      documents.tekken = HuggingFace.Document(path: "tekken", bytes: Array(reader.rest()))
    default:
      documents.vocabulary = HuggingFace.Document(
        path: "vocabulary", bytes: Array(reader.bytes(upTo: 0)))
      documents.merges = HuggingFace.Document(path: "merges", bytes: Array(reader.rest()))
    }
    guard let definition = try read(documents) else { return false }
    guard let again = try read(documents), definition.tokens.count == again.tokens.count else {
      throw FuzzFinding("accepted once, then not, or as something else")
    }
    try require(
      definition.kinds.isEmpty || definition.kinds.count == definition.tokens.count,
      "kinds of other tokens than the vocabulary has")
    try require(
      definition.scores.isEmpty || definition.scores.count == definition.tokens.count,
      "scores of other tokens than the vocabulary has")
    try TokenizerChecks.check(definition, text: Array("the the\n1".utf8) + text)
    return true
  }

  private static func read(
    _ documents: HuggingFace.Documents
  ) throws(FuzzFinding) -> TokenizerDefinition? {
    do throws(FormatError) {
      guard let definition = try HuggingFace.tokenizer(documents) else { return nil }
      try definition.validate()
      return definition
    } catch {
      try require(error.path != nil && !error.description.isEmpty, "an error that names no file")
      return nil
    }
  }

  // MARK: Seeds

  static let seeds: [[UInt8]] = {
    let tekken =
      #"{"config":{"pattern":" ?\\p{L}+|.","default_vocab_size":4,"default_num_special_tokens":2},"#
      + #""vocab":[{"rank":0,"token_bytes":"dA=="},{"rank":1,"token_bytes":"aA=="}],"#
      + #""special_tokens":[{"rank":0,"token_str":"<unk>","is_control":true},"#
      + #"{"rank":1,"token_str":"<s>","is_control":true}]}"#
    let added =
      #"{"bos_token":"<s>","added_tokens_decoder":{"2":{"content":"</s>","special":true}}}"#
    return [
      Array("0\(added)\0he\0".utf8) + pieces,
      Array("1{\"tokenizer_class\":\"QWenTokenizer\"}\0北\0dA== 0\naA== 1\nZQ== 2\ndGg= 3\n".utf8),
      Array("2\0t\0\(tekken)".utf8),
      Array(
        ("3{\"tokenizer_class\":\"GPT2Tokenizer\"}\0é\0"
          + #"{"t":0,"h":1,"e":2,"th":3,"the":4,"Ġ":5,"Ġthe":6}"#
          + "\0#version: 0.2\nt h\nth e\nĠ the\n")
          .utf8),
    ]
  }()

  /// SentencePiece's model of a few pieces.
  private static let pieces: [UInt8] = {
    func field(_ number: UInt8, _ bytes: [UInt8]) -> [UInt8] {
      [number << 3 | 2, UInt8(bytes.count)] + bytes
    }
    var bytes: [UInt8] = []
    let entries: [(String, UInt8)] = [
      ("<unk>", 2), ("<s>", 3), ("</s>", 3), ("<0x21>", 6), ("▁the", 1), ("the", 1), ("th", 1),
      ("▁", 1), ("t", 1), ("h", 1), ("e", 1),
    ]
    for (text, kind) in entries {
      bytes += field(1, field(1, Array(text.utf8)) + [0x15, 0, 0, 0x80, 0xBF, 0x18, kind])
    }
    return bytes + field(2, [0x18, 2]) + field(3, [0x20, 0])
  }()

  static let words = [
    "\"tokenizer_class\":", "\"QWenTokenizer\"", "\"TikTokenTokenizer\"", "\"GPT2Tokenizer\"",
    "\"added_tokens_decoder\":", "\"content\":", "\"special\":true", "\"bos_token\":", "\"vocab\":",
    "\"rank\":", "\"token_bytes\":", "\"token_str\":", "\"is_control\":true", "\"special_tokens\":",
    "\"config\":", "\"pattern\":", "\"default_vocab_size\":", "\"default_num_special_tokens\":",
    "\\xe2\\x96\\x81", "\\xc4\\xa0", "<0x41>", "dGg= 3\\x0a", "#version: 0.2\\x0a", "\\x0a\\x07",
    "\\x18\\x06", "\\x15", "\\x12",
  ]
}
