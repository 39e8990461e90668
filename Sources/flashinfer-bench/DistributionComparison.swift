import Glibc
import Runtime
import TensorBasics

/// What leaving neurons, or keys and values, out does to a model's distributions, position by position.
struct DistributionComparison {
  private let vocabularyCount: Int
  /// Logits with nothing left out [rows, vocabularyCount].
  private let reference: UnsafeMutableBufferPointer<Float>
  /// ln Σ exp of each row of `reference`.
  private var logSums: [Double]
  /// Perplexity with nothing left out, and with what was left out.
  private(set) var dense = Perplexity()
  private(set) var sparse = Perplexity()
  private var agreeing = 0
  private var divergenceSum = 0.0

  /// - Parameter reference: room for the distributions kept at a time; lent for the comparison's life.
  init(vocabularyCount: Int, reference: UnsafeMutableBufferPointer<Float>) {
    self.vocabularyCount = vocabularyCount
    self.reference = reference
    logSums = Array(repeating: 0, count: reference.count / vocabularyCount)
  }

  /// Positions compared.
  var count: Int { sparse.scoredTokenCount }
  /// Mean KL divergence of the sparse from the dense distributions, in nats.
  var divergence: Double { divergenceSum / Double(max(1, count)) }
  var densePerplexity: Double { dense.value ?? .nan }
  var sparsePerplexity: Double { sparse.value ?? .nan }
  /// Share of positions whose most probable token is the same.
  var agreement: Double { Double(agreeing) / Double(max(1, count)) }

  /// Scores the second half of a chunk, save the last position, in both sessions.
  mutating func compare(_ tokens: [Int32], _ dense: Session, _ sparse: Session) throws {
    let first = tokens.count / 2
    dense.reset()
    try dense.score(tokens, skipping: first) { position, logits in
      keep(logits, row: position - first)
    }
    sparse.reset()
    try sparse.score(tokens, skipping: first) { position, logits in
      guard position + 1 < tokens.count else { return }
      compare(logits, row: position - first, next: tokens[position + 1])
    }
  }

  /// Keeps a reference distribution.
  mutating func keep(_ logits: UnsafeBufferPointer<Float>, row: Int) {
    logSums[row] = LogProbabilities.logSumExp(logits)
    let row = reference.baseAddress! + row * vocabularyCount
    for index in 0..<vocabularyCount { row[index] = logits[index] }
  }

  /// Compares a distribution with the one kept in `row`.
  ///
  /// - Parameter next: the token that follows in the text.
  mutating func compare(_ logits: UnsafeBufferPointer<Float>, row: Int, next: Int32) {
    let kept = UnsafeBufferPointer(
      rebasing: reference[row * vocabularyCount..<(row + 1) * vocabularyCount])
    let (denseSum, sparseSum) = (logSums[row], LogProbabilities.logSumExp(logits))
    var (sum, bestDense, bestSparse) = (0.0, 0, 0)
    for index in 0..<vocabularyCount {
      let logProbability = Double(kept[index]) - denseSum
      sum += exp(logProbability) * (logProbability - (Double(logits[index]) - sparseSum))
      if kept[index] > kept[bestDense] { bestDense = index }
      if logits[index] > logits[bestSparse] { bestSparse = index }
    }
    agreeing += bestDense == bestSparse ? 1 : 0
    divergenceSum += sum
    dense.score(next, logits: kept)
    sparse.score(next, logits: logits)
  }
}
