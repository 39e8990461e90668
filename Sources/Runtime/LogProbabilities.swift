import Glibc

/// Natural-log probabilities of logits, in f64.
public enum LogProbabilities {
  /// ln Σ exp(logit).
  public static func logSumExp(_ logits: UnsafeBufferPointer<Float>) -> Double {
    var highest = -Float.infinity
    for logit in logits where logit > highest { highest = logit }
    var sum = 0.0
    for logit in logits { sum += exp(Double(logit - highest)) }
    return Double(highest) + log(sum)
  }

  /// The `count` most probable tokens with their log-probabilities, descending, the lowest id first
  /// on a tie.
  public static func top(
    _ count: Int, of logits: UnsafeBufferPointer<Float>
  ) -> [(token: Int32, logProbability: Double)] {
    let normaliser = logSumExp(logits)
    let order: (Int, Int) -> Bool = {
      logits[$0] > logits[$1] || (logits[$0] == logits[$1] && $0 < $1)
    }
    guard count < logits.count / 64 else {
      return logits.indices.sorted(by: order).prefix(count).map {
        (Int32($0), Double(logits[$0]) - normaliser)
      }
    }
    var best: [Int] = []
    for token in logits.indices where best.count < count || order(token, best[best.count - 1]) {
      if best.count == count { best.removeLast() }
      let position = best.firstIndex { order(token, $0) } ?? best.count
      best.insert(token, at: position)
    }
    return best.map { (Int32($0), Double(logits[$0]) - normaliser) }
  }
}
