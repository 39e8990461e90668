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

  /// exp of the mean negative log-likelihood; nil before the first chunk.
  public var value: Double? { running.last }

  /// Scores one chunk: the logits after each position of its second half but the last.
  ///
  /// - Parameter tokens: the chunk; its first token is replaced by BOS where the model wants one.
  public mutating func score(
    _ tokens: [Int32], in session: Session
  ) throws(RuntimeError) {
    session.reset()
    let first = tokens.count / 2
    var sum = 0.0
    var count = 0
    try session.score(tokens, skipping: first) { position, logits in
      guard position + 1 < tokens.count else { return }
      let next = Int(tokens[position + 1])
      sum += LogProbabilities.logSumExp(logits) - Double(logits[next])
      count += 1
    }
    negativeLogLikelihood += sum
    scoredTokenCount += count
    running.append(exp(negativeLogLikelihood / Double(max(1, scoredTokenCount))))
  }
}
