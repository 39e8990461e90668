/// A value made of counters, which are added and subtracted one by one.
public protocol Counters {
  /// All counters; what is not listed keeps the left side's value.
  static var counters: [any WritableKeyPath<Self, Int> & Sendable] { get }
}

extension Counters {
  public static func += (total: inout Self, part: Self) {
    for counter in counters { total[keyPath: counter] += part[keyPath: counter] }
  }

  public static func - (later: Self, earlier: Self) -> Self {
    var result = later
    for counter in counters { result[keyPath: counter] -= earlier[keyPath: counter] }
    return result
  }
}
