extension MemoryPlan {
  /// The least budget that suffices, to a quarter of a MiB, found by doubling and then halving.
  ///
  /// - Parameters:
  ///   - low: one that does not suffice.
  ///   - first: the first that is tried.
  package static func leastBudget(
    above low: Int, from first: Int, _ suffices: (Int) throws(RuntimeError) -> Bool
  ) throws(RuntimeError) -> Int {
    var (low, high) = (low, first)
    while try !suffices(high) { (low, high) = (high, 2 * high) }
    while high - low > 256 << 10 {
      let middle = (low + high) / 2
      if try suffices(middle) { high = middle } else { low = middle }
    }
    return high
  }
}
