/// Looks for bytes in bytes, in time that is linear in both whatever they are (Knuth, Morris and Pratt).
package struct ByteSearch: Sendable {
  package let needle: [UInt8]
  private let isReversed: Bool
  /// Of the first bytes up to each, how many at their end are also at their beginning.
  private let borders: [Int]

  /// - Parameters:
  ///   - needle: what is looked for; not empty.
  ///   - fromRight: whether the last place is wanted, not the first.
  package init(_ needle: [UInt8], fromRight: Bool = false) {
    self.needle = fromRight ? needle.reversed() : needle
    isReversed = fromRight
    var borders = [Int](repeating: 0, count: needle.count)
    var matched = 0
    for index in needle.indices.dropFirst() {
      while matched > 0, self.needle[index] != self.needle[matched] {
        matched = borders[matched - 1]
      }
      if self.needle[index] == self.needle[matched] { matched += 1 }
      borders[index] = matched
    }
    self.borders = borders
  }

  /// Where it begins within a range of `bytes`; nil where it is not there.
  package func place(in bytes: UnsafeBufferPointer<UInt8>, _ range: Range<Int>) -> Int? {
    guard needle.count <= range.count else { return nil }
    var matched = 0
    for index in 0..<range.count {
      let offset = isReversed ? range.upperBound - 1 - index : range.lowerBound + index
      while matched > 0, bytes[offset] != needle[matched] { matched = borders[matched - 1] }
      if bytes[offset] == needle[matched] { matched += 1 }
      if matched == needle.count { return isReversed ? offset : offset + 1 - matched }
    }
    return nil
  }
}
