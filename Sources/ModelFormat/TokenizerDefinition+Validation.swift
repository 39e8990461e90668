import TensorBasics

extension TokenizerDefinition {
  /// Checks that arrays have one entry a token and that ids are in the vocabulary.
  ///
  /// - Throws: ``FormatError`` naming what does not fit.
  public func validate(path: String? = nil) throws(FormatError) {
    let count = tokens.count
    guard count > 0 else { throw FormatError(.malformed, path: path, "the vocabulary is empty") }
    for (name, length) in [("scores", scores.count), ("token types", kinds.count)]
    where length != 0 && length != count {
      throw FormatError(.malformed, path: path, "\(length) \(name) for \(count) tokens")
    }
    let ids = [
      ("BOS", bosToken), ("EOS", eosToken), ("end-of-turn", eotToken), ("unknown", unknownToken),
    ]
    for (name, id) in ids {
      guard let id, !(0..<count).contains(id) else { continue }
      throw FormatError(
        .malformed, path: path, "the \(name) token is \(id), but there are \(count) tokens")
    }
    if let index = kinds.firstIndex(where: { TokenKind(rawValue: $0) == nil }) {
      throw FormatError(
        .malformed, path: path, "token \(index) is of the unknown type \(kinds[index])")
    }
    if let index = scores.firstIndex(where: \.isNaN) {
      throw FormatError(.malformed, path: path, "the score of token \(index) is not a number")
    }
  }
}
