import TensorBasics

extension TokenizerDefinition {
  /// Checks that arrays have one entry a token and that ids are in the vocabulary.
  ///
  /// - Throws: ``FormatError`` naming what does not fit.
  public func validate(path: String? = nil) throws(FormatError) {
    let count = tokens.count
    guard count > 0 else { throw FormatError(.malformed, path: path, "the vocabulary is empty") }
    let lists = [
      ("scores", scores.count), ("token types", kinds.count), ("token flags", addedFlags.count),
    ]
    for (name, length) in lists
    where length != 0 && length != count {
      throw FormatError(.malformed, path: path, "\(length) \(name) for \(count) tokens")
    }
    let ids: [(String, Int?)] =
      [
        ("BOS", bosToken), ("EOS", eosToken), ("end-of-turn", eotToken), ("unknown", unknownToken),
      ] + (stopTokens + (pipeline?.prefix ?? []) + (pipeline?.suffix ?? [])).map { ("special", $0) }
    for (name, id) in ids {
      guard let id, !(0..<count).contains(id) else { continue }
      throw FormatError(
        .malformed, path: path, "the \(name) token is \(id), but there are \(count) tokens")
    }
    if let index = kinds.firstIndex(where: { TokenKind(rawValue: $0) == nil }) {
      throw FormatError(
        .malformed, path: path, "token \(index) is of the unknown type \(kinds[index])")
    }
    guard (model == .bytePairs || model == .unigramPieces) == (pipeline != nil) else {
      throw FormatError(
        .malformed, path: path, "a tokenizer of model \(model.rawValue) without its steps, or with")
    }
    if let index = addedFlags.firstIndex(where: { $0 > AddedTokenFlags.known.rawValue }) {
      throw FormatError(
        .malformed, path: path, "token \(index) has the unknown flags \(addedFlags[index])")
    }
    if let index = scores.firstIndex(where: \.isNaN) {
      throw FormatError(.malformed, path: path, "the score of token \(index) is not a number")
    }
  }
}
