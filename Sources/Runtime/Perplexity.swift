import Glibc
import TensorBasics

/// Perplexity of a text by chunks, as llama.cpp's `llama-perplexity` computes it.
public struct Perplexity: Sendable {
  /// After each chunk, the perplexity so far.
  public private(set) var running: [Double] = []
  /// Tokens scored so far.
  public private(set) var scoredTokenCount = 0
  /// Sum of −ln p of the scored tokens.
  public private(set) var negativeLogLikelihood = 0.0

  public init() {}

  /// exp of the mean negative log-likelihood; nil before the first token.
  public var value: Double? {
    scoredTokenCount > 0 ? exp(negativeLogLikelihood / Double(scoredTokenCount)) : nil
  }

  /// Scores one token by the logits behind the tokens before it.
  package mutating func score(_ token: Int32, logits: UnsafeBufferPointer<Float>) {
    negativeLogLikelihood += LogProbabilities.logSumExp(logits) - Double(logits[Int(token)])
    scoredTokenCount += 1
  }

  /// Scores one chunk: the logits after each position of its second half but the last.
  ///
  /// - Parameter tokens: the chunk; its first token is replaced by BOS where the model wants one.
  public mutating func score(
    _ tokens: [Int32], in session: Session
  ) throws(RuntimeError) {
    session.reset()
    let first = tokens.count / 2
    try session.score(tokens, skipping: first) { position, logits in
      guard position + 1 < tokens.count else { return }
      score(tokens[position + 1], logits: logits)
    }
    if let value { running.append(value) }
  }
}
