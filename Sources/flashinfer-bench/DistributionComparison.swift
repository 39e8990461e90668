import Glibc
import Runtime
import TensorBasics

/// What leaving neurons out does to a model's distributions, position by position.
struct DistributionComparison {
  private let vocabularyCount: Int
  /// Log-probabilities of the second half of a chunk, with all neurons.
  private let reference: UnsafeMutableBufferPointer<Float>
  private(set) var count = 0
  private var agreeing = 0
  private var divergenceSum = 0.0
  private var denseLoss = 0.0
  private var sparseLoss = 0.0

  /// - Parameter reference: room for half a chunk's distributions; lent for the comparison's life.
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
    let words = vocabularyCount
    dense.reset()
    try dense.score(tokens, skipping: first) { position, logits in
      let logSum = Float(LogProbabilities.logSumExp(logits))
      let row = reference.baseAddress! + (position - first) * words
      for index in 0..<words { row[index] = logits[index] - logSum }
    }
    var (scored, agreed, divergence, losses) = (0, 0, 0.0, (dense: 0.0, sparse: 0.0))
    sparse.reset()
    try sparse.score(tokens, skipping: first) { position, logits in
      guard position + 1 < tokens.count else { return }
      let logSum = LogProbabilities.logSumExp(logits)
      let row = reference.baseAddress! + (position - first) * words
      var (sum, bestDense, bestSparse) = (0.0, 0, 0)
      for index in 0..<words {
        sum += exp(Double(row[index])) * (Double(row[index]) - (Double(logits[index]) - logSum))
        if row[index] > row[bestDense] { bestDense = index }
        if logits[index] > logits[bestSparse] { bestSparse = index }
      }
      let next = Int(tokens[position + 1])
      divergence += sum
      losses.dense -= Double(row[next])
      losses.sparse += logSum - Double(logits[next])
      scored += 1
      agreed += bestDense == bestSparse ? 1 : 0
    }
    count += scored
    agreeing += agreed
    divergenceSum += divergence
    denseLoss += losses.dense
    sparseLoss += losses.sparse
  }
}
