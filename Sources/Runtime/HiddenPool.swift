/// How the hidden states of a text become one vector.
public enum Pooling: String, Sendable, CaseIterable {
  /// The mean of the states after each token.
  case mean
  /// The state after the last token, the only one that has seen all of them.
  case last
}

/// The pooled hidden states of the tokens that a turn reads, as they come.
struct HiddenPool {
  private let pooling: Pooling
  /// Position of the state that comes next.
  private var position: Int
  private var count = 0
  /// [hiddenSize]; a mean's are added up in f64, position after position, so that sweeps may cut the tokens as they like.
  private var sums: [Double]

  /// - Parameter position: of the turn's first token.
  init(_ pooling: Pooling, from position: Int, hiddenSize: Int) {
    self.pooling = pooling
    self.position = position
    sums = [Double](repeating: 0, count: hiddenSize)
  }

  /// Takes states [rowCount, hiddenSize] of positions from `first` on. Those that came before change nothing: a sweep that
  /// was broken off is done again.
  mutating func take(_ rows: UnsafePointer<Float>, rowCount: Int, at first: Int) {
    let width = sums.count
    for row in min(rowCount, max(0, position - first))..<rowCount {
      let state = rows + row * width
      switch pooling {
      case .mean:
        for index in 0..<width { sums[index] += Double(state[index]) }
        count += 1
      case .last:
        for index in 0..<width { sums[index] = Double(state[index]) }
        count = 1
      }
    }
    position = max(position, first + rowCount)
  }

  /// The vector; nil where no token was read.
  var vector: [Float]? {
    count == 0 ? nil : sums.map { Float($0 / Double(count)) }
  }

  static func byteCount(hiddenSize: Int) -> Int {
    (MemoryLayout<Double>.stride + MemoryLayout<Float>.stride) * hiddenSize
  }
}
