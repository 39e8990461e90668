import ModelFormat
import TensorBasics
import Tokenization

/// What holds of every tokenizer.
enum TokenizerChecks {
  /// Builds the tokenizer of a definition from a file and runs `text` through it, which its patterns may
  /// refuse in the end.
  static func check(_ definition: TokenizerDefinition, text: [UInt8]) throws(FuzzFinding) {
    let tokenizer: Tokenizer
    do throws(TokenizerError) {
      tokenizer = try Tokenizer(definition)
    } catch { return }
    do throws(TokenizerError) { _ = try tokenizer.encode(text) } catch { return }
    try check(tokenizer, text: text, keepsText: false)
  }

  /// Checks that tokens are in the vocabulary and, with `keepsText`, that they spell the text.
  static func check(
    _ tokenizer: Tokenizer, text: [UInt8], keepsText: Bool
  ) throws(FuzzFinding) {
    let tokens = try encode(tokenizer, [ChatPiece(text, isMarkup: false)])
    try require(
      tokens.allSatisfy { (0..<Int32(tokenizer.vocabularyCount)).contains($0) },
      "a token that is not in the vocabulary")
    try require(
      try encode(tokenizer, [ChatPiece(text, isMarkup: false)]) == tokens, "other tokens again")
    let decoded = tokenizer.decode(tokens)
    if keepsText {
      try require(decoded == text, "\(text) became \(tokens), which is \(decoded)")
      // Control tokens are never made of text, so that without them nothing is lost.
      let markup = try encode(tokenizer, [ChatPiece(text, isMarkup: true)])
      var spelled: [UInt8] = []
      for token in markup { tokenizer.decode(token, into: &spelled, includesControl: true) }
      try require(spelled == text, "\(text) as markup became \(markup), which is \(spelled)")
    }
    var detokenizer = StreamingDetokenizer(tokenizer)
    var streamed: [UInt8] = []
    for token in tokens { detokenizer.append(token, to: &streamed) }
    detokenizer.finish(&streamed)
    try require(
      String(validating: streamed, as: UTF8.self) != nil, "the streamed text is not UTF-8")
    if String(validating: decoded, as: UTF8.self) != nil {
      try require(streamed == decoded, "streamed \(streamed), decoded \(decoded)")
    }
  }

  static func encode(
    _ tokenizer: Tokenizer, _ pieces: [ChatPiece]
  ) throws(FuzzFinding) -> [Int32] {
    do throws(TokenizerError) {
      return try tokenizer.encodePrompt(pieces, addsBOS: false, addsEOS: false)
    } catch { throw FuzzFinding("text is refused: \(error)") }
  }

  /// A definition with a few of its tokens, for small seeds.
  static func shortened(_ definition: TokenizerDefinition?) -> TokenizerDefinition? {
    guard var short = definition else { return nil }
    let kept =
      short.merges.count > 0
      ? [0] + Array(65..<90) + Array(257..<265) : Array(0..<8) + Array(259..<270)
    var tokens = PackedStrings()
    for index in kept { tokens.append(short.tokens[index]) }
    short.tokens = tokens
    if !short.kinds.isEmpty { short.kinds = kept.map { short.kinds[$0] } }
    if !short.scores.isEmpty { short.scores = kept.map { short.scores[$0] } }
    return short
  }
}
