import ModelFormat
import Runtime
import Tokenization

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
  case finished(choice: Int, AnswerEnd)
  case failed(choice: Int, APIError)
}

/// How an answer ended.
struct AnswerEnd: Sendable {
  let finish: TokenSequence.Finish
  /// Whether it calls tools.
  let hasCalls: Bool
  /// Its tokens, as they were drawn.
  let tokens: [Int32]
  /// Those of them that were drawn while the model thought.
  let reasoningCount: Int
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

extension TokenReport {
  /// Writes it as OpenAI's interfaces of messages have it.
  func write(_ tokenizer: Tokenizer, to json: inout JSONWriter) {
    Self.write(token, logProbability, tokenizer, to: &json)
    json.array("top_logprobs", of: alternatives) { list, other in
      list.object { Self.write(other.token, other.logProbability, tokenizer, to: &$0) }
    }
  }

  private static func write(
    _ token: Int32, _ logProbability: Double, _ tokenizer: Tokenizer, to json: inout JSONWriter
  ) {
    let bytes = tokenizer.spelling(token)
    json.text("token", utf8: Array(String(decoding: bytes, as: UTF8.self).utf8))
    json.number("logprob", logProbability)
    json.array("bytes", of: bytes) { $0.number(nil, $1) }
  }
}
