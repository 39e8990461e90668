import Runtime

/// What comes of the answers to a request, as it comes.
enum AnswerPart: Sendable {
  /// Nothing yet: the connection is alive.
  case waiting
  /// An answer waits for a place, after that many others.
  case queued(ahead: Int)
  /// So many of a prompt's tokens are read; some of them were before it was asked.
  case reading(done: Int, of: Int, reused: Int)
  /// More of an answer, whole characters of it, and where it was asked for the tokens that are settled with it.
  case pieces(choice: Int, [AnswerPiece], [TokenReport])
  case finished(choice: Int, TokenSequence.Finish, hasCalls: Bool)
  case failed(choice: Int, RuntimeError)
}

/// A token of an answer with its probability, and what could have stood there.
struct TokenReport: Sendable {
  let logProbability: Double
  let token: Int32
  /// The most probable tokens, as many as were asked for.
  let alternatives: ArraySlice<TokenProbability>

  /// - Parameter probabilities: as of ``TokenSequence/Event/token(id:position:logProbabilities:)``.
  init(_ token: Int32, _ probabilities: [TokenProbability], alternativeCount: Int) {
    self.token = token
    logProbability = probabilities.first { $0.token == token }?.logProbability ?? -.infinity
    alternatives = probabilities.prefix(alternativeCount)
  }
}
