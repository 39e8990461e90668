/// A rate that was measured several times.
struct RepeatedRate {
  let median: Double
  /// How far the middle half of the measurements lie apart, over their median; 0 for a single one.
  let spread: Double

  /// - Precondition: there is at least one rate.
  init(_ rates: [Double]) {
    let sorted = rates.sorted()
    median = sorted[sorted.count / 2]
    let outer = sorted.count / 4
    spread = median > 0 ? (sorted[sorted.count - 1 - outer] - sorted[outer]) / median : 0
  }
}
