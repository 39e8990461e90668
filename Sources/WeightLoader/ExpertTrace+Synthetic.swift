import Glibc
import TensorBasics

extension ExpertTrace {
  /// How likely the experts of a layer are to be chosen.
  public enum Popularity: Sendable, Equatable {
    /// All alike.
    case uniform
    /// The k-th most popular as k^−exponent; which expert that is, is drawn for each layer.
    case zipf(exponent: Double)
  }

  /// A trace drawn from a distribution; a seed names one trace on every machine.
  ///
  /// Each expert of the token before stays with `repeatProbability`; the others are drawn without
  /// replacement, by popularity.
  ///
  /// - Parameters:
  ///   - shiftInterval: tokens after which popularity is drawn anew; nil if it stays.
  public static func synthetic(
    _ popularity: Popularity, repeatProbability: Double, layerCount: Int, expertCount: Int,
    usedCount: Int, tokenCount: Int, shiftInterval: Int? = nil, seed: UInt64
  ) -> ExpertTrace {
    var trace = ExpertTrace(
      layerCount: layerCount, expertCount: expertCount, usedCount: usedCount,
      modelName: "synthetic")
    trace.reserve(tokenCount: tokenCount)
    var generator = SeededGenerator(seed: seed)
    var layers = (0..<layerCount).map { _ in
      SyntheticRouter(popularity, expertCount: expertCount, usedCount: usedCount, &generator)
    }
    for token in 0..<tokenCount {
      if let shiftInterval, token > 0, token % max(1, shiftInterval) == 0 {
        for layer in layers.indices { layers[layer].shuffle(&generator) }
      }
      for layer in layers.indices {
        trace.append(layers[layer].next(repeatProbability, &generator))
      }
    }
    return trace
  }
}

/// One layer's router of a synthetic trace.
private struct SyntheticRouter {
  /// Per rank of popularity, the expert.
  private var expertOfRank: [Int]
  /// Per rank, the weight of it and those before.
  private let cumulativeWeights: [Double]
  private let usedCount: Int
  /// The last choice; none before the first.
  private var choice: [Int] = []
  private var isChosen: [Bool]

  init(
    _ popularity: ExpertTrace.Popularity, expertCount: Int, usedCount: Int,
    _ generator: inout SeededGenerator
  ) {
    expertOfRank = Array(0..<expertCount)
    var sum = 0.0
    cumulativeWeights = (1...expertCount).map { rank in
      switch popularity {
      case .uniform: sum += 1
      case .zipf(let exponent): sum += pow(Double(rank), -exponent)
      }
      return sum
    }
    self.usedCount = usedCount
    isChosen = Array(repeating: false, count: expertCount)
    shuffle(&generator)
  }

  mutating func shuffle(_ generator: inout SeededGenerator) {
    for rank in stride(from: expertOfRank.count - 1, to: 0, by: -1) {
      expertOfRank.swapAt(rank, Int(generator.next() % UInt64(rank + 1)))
    }
  }

  mutating func next(
    _ repeatProbability: Double, _ generator: inout SeededGenerator
  ) -> [Int] {
    for expert in choice { isChosen[expert] = false }
    choice.removeAll { _ in generator.nextUnit() >= repeatProbability }
    for expert in choice { isChosen[expert] = true }
    while choice.count < usedCount {
      let expert = draw(&generator)
      isChosen[expert] = true
      choice.append(expert)
    }
    return choice
  }

  /// An expert that is not chosen yet; where steep popularity makes refusals endless, the most popular.
  private func draw(_ generator: inout SeededGenerator) -> Int {
    for _ in 0..<1000 {
      let expert = expertOfRank[rank(of: generator.nextUnit())]
      if !isChosen[expert] { return expert }
    }
    return expertOfRank.first { !isChosen[$0] } ?? 0
  }

  /// The first rank whose cumulative share exceeds `share`.
  private func rank(of share: Double) -> Int {
    let weight = share * (cumulativeWeights.last ?? 0)
    var (low, high) = (0, cumulativeWeights.count - 1)
    while low < high {
      let middle = (low + high) / 2
      if cumulativeWeights[middle] > weight { high = middle } else { low = middle + 1 }
    }
    return low
  }
}
