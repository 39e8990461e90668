import Glibc

/// How a model's positions are stretched beyond the context that it was trained with first.
struct RopeScaling {
  /// Positions are divided by this.
  var linearScale = 1.0
  /// Factor on cosines and sines.
  var magnitude = 1.0
  /// Contexts up to this long use their own factors; nil = all contexts use the same.
  var shortContextLength: Int?
  /// Divisors of the frequencies, one a rotated pair, by the name of their tensor.
  var factors: [String: [Float]] = [:]

  /// Whether positions are divided and nothing else is done to them.
  var isLinear: Bool { factors.isEmpty && magnitude == 1 && shortContextLength == nil }

  /// The tensor of the divisors that hold for every context.
  static let factorsName = "rope_freqs.weight"
  /// The tensors of contexts up to ``shortContextLength`` and of longer ones.
  static let shortFactorsName = "rope_factors_short.weight"
  static let longFactorsName = "rope_factors_long.weight"
}

/// YaRN: short waves stay, long ones are slowed by a factor, those between are blended (Peng et al.,
/// arXiv:2309.00071, §3.2 to §3.4).
struct YaRN {
  var factor: Double
  /// Positions that the model was trained for before.
  var originalContextLength: Double
  /// Rotations over that context above which a wave stays, and below which it is slowed in full.
  var betaFast = 32.0
  var betaSlow = 1.0
  /// Whether the pairs where blending begins and ends are rounded outwards.
  var truncates = true

  /// What is wrong with a factor below 1.
  static func refusal(of factor: Double) -> String {
    "YaRN's factor is \(factor): it lengthens the context, so that it is at least 1"
  }

  /// Factor on cosines and sines: the paper's √(1/t).
  static func magnitude(_ factor: Double, _ scale: Double = 1) -> Double {
    factor <= 1 ? 1 : 0.1 * scale * log(factor) + 1
  }

  /// Divisors of the frequencies base^(−2i / dimensionCount) [dimensionCount / 2].
  func divisors(base: Double, dimensionCount: Int) -> [Float] {
    let dimension = Double(dimensionCount)
    func pair(of rotations: Double) -> Double {
      dimension * log(originalContextLength / (rotations * 2 * .pi)) / (2 * log(base))
    }
    var (low, high) = (pair(of: betaFast), pair(of: betaSlow))
    if truncates { (low, high) = (low.rounded(.down), high.rounded(.up)) }
    (low, high) = (max(low, 0), min(high, dimension - 1))
    if low == high { high += 0.001 }
    return (0..<dimensionCount / 2).map { pair in
      let slowed = min(1, max(0, (Double(pair) - low) / (high - low)))
      return Float(1 / (slowed / factor + (1 - slowed)))
    }
  }
}

/// longrope's factor on cosines and sines (Ding et al., arXiv:2402.13753).
enum LongRope {
  static func magnitude(_ factor: Double, originalContextLength: Double) -> Double {
    factor <= 1 ? 1 : (1 + log(factor) / log(originalContextLength)).squareRoot()
  }
}
