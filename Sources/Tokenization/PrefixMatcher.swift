/// Finds all strings of a set that begin at a place in a text: a trie in the form of a sorted list.
///
/// Costs 4 bytes a string.
struct PrefixMatcher: Sendable {
  private let strings: StringIndex
  /// Numbers of the strings, sorted by their bytes, without repetition.
  private let sorted: [UInt32]
  /// Where the strings with each first byte begin in ``sorted``; one last entry, the end.
  private let starts: [UInt32]

  /// - Parameter numbers: strings of `strings` in ascending order; empty ones are passed over, and
  ///   of equal ones the last is kept.
  init(_ numbers: some Sequence<UInt32>, of strings: StringIndex) {
    self.strings = strings
    let ordered = numbers.filter { strings.byteCount(of: $0) > 0 }
      .sorted { strings[$0].lexicographicallyPrecedes(strings[$1]) }
    var unique: [UInt32] = []
    for number in ordered {
      if let last = unique.last, strings[last] == strings[number] {
        unique[unique.count - 1] = max(last, number)
      } else {
        unique.append(number)
      }
    }
    var starts = [UInt32](repeating: 0, count: 257)
    for number in unique { starts[Int(strings[number].first!) + 1] += 1 }
    for byte in 0..<256 { starts[byte + 1] += starts[byte] }
    sorted = unique
    self.starts = starts
  }

  var isEmpty: Bool { sorted.isEmpty }

  /// Calls `body` with the number and byte count of every string that `text` continues with at
  /// `position`, shortest first.
  @inline(__always)
  func forEachMatch(
    in text: UnsafeBufferPointer<UInt8>, at position: Int, _ body: (UInt32, Int) -> Void
  ) {
    var low = Int(starts[Int(text[position])])
    var high = Int(starts[Int(text[position]) + 1])
    var depth = 1
    while low < high {
      if strings.byteCount(of: sorted[low]) == depth {
        body(sorted[low], depth)
        low += 1
      }
      guard position + depth < text.count else { return }
      let byte = text[position + depth]
      low = partition(low, high, depth: depth) { $0 >= byte }
      high = partition(low, high, depth: depth) { $0 > byte }
      depth += 1
    }
  }

  /// First entry in `low..<high` whose byte at `depth` satisfies a monotone condition.
  private func partition(
    _ low: Int, _ high: Int, depth: Int, _ condition: (UInt8) -> Bool
  ) -> Int {
    var (low, high) = (low, high)
    while low < high {
      let middle = (low + high) / 2
      let byte = strings.bytes[Int(strings.offsets[Int(sorted[middle])]) + depth]
      if condition(byte) { high = middle } else { low = middle + 1 }
    }
    return low
  }
}
