import Glibc
import Runtime
import TensorBasics

/// What leaving neurons, or keys and values, out does to a model's distributions, position by position.
struct DistributionComparison {
  private let vocabularyCount: Int
  /// Log-probabilities with nothing left out [rows, vocabularyCount].
  private let reference: UnsafeMutableBufferPointer<Float>
  private(set) var count = 0
  private var agreeing = 0
  private var divergenceSum = 0.0
  private var denseLoss = 0.0
  private var sparseLoss = 0.0

  /// - Parameter reference: room for the distributions kept at a time; lent for the comparison's life.
  init(vocabularyCount: Int, reference: UnsafeMutableBufferPointer<Float>) {
    self.vocabularyCount = vocabularyCount
    self.reference = reference
  }

  /// Mean KL divergence of the sparse from the dense distributions, in nats.
  var divergence: Double { divergenceSum / Double(max(1, count)) }
  var densePerplexity: Double { exp(denseLoss / Double(max(1, count))) }
  var sparsePerplexity: Double { exp(sparseLoss / Double(max(1, count))) }
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

  /// Keeps a reference distribution, as log-probabilities.
  func keep(_ logits: UnsafeBufferPointer<Float>, row: Int) {
    let logSum = Float(LogProbabilities.logSumExp(logits))
    let row = reference.baseAddress! + row * vocabularyCount
    for index in 0..<vocabularyCount { row[index] = logits[index] - logSum }
  }

  /// Compares a distribution with the one kept in `row`.
  ///
  /// - Parameter next: the token that follows in the text.
  mutating func compare(_ logits: UnsafeBufferPointer<Float>, row: Int, next: Int32) {
    let row = reference.baseAddress! + row * vocabularyCount
    let logSum = LogProbabilities.logSumExp(logits)
    var (sum, bestDense, bestSparse) = (0.0, 0, 0)
    for index in 0..<vocabularyCount {
      sum += exp(Double(row[index])) * (Double(row[index]) - (Double(logits[index]) - logSum))
      if row[index] > row[bestDense] { bestDense = index }
      if logits[index] > logits[bestSparse] { bestSparse = index }
    }
    count += 1
    agreeing += bestDense == bestSparse ? 1 : 0
    divergenceSum += sum
    denseLoss -= Double(row[Int(next)])
    sparseLoss += logSum - Double(logits[Int(next)])
  }
}
