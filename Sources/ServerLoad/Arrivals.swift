import TensorBasics

/// When the requests of a load begin.
public enum Arrivals: Sendable, Equatable {
  /// At moments that do not depend on answers, so many a second on average (a Poisson process).
  case rate(Double, seed: UInt64)
  /// So many clients, each of which begins its next request when its last one is answered.
  case clients(Int)

  /// Seconds from the start to each of the first `count` requests; nil where answers decide.
  public func moments(_ count: Int) -> [Double]? {
    guard case .rate(let rate, let seed) = self else { return nil }
    var generator = SeededGenerator(seed: seed)
    var now = 0.0
    return (0..<count).map { _ in
      now -= CanonicalMath.log(1 - generator.nextUnit()) / rate
      return now
    }
  }
}
