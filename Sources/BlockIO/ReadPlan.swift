/// Reads that bring a set of extents: aligned, merged, and none longer than a maximum.
public struct ReadPlan: Sendable, Equatable {
  /// One read and the extents it serves.
  public struct Read: Sendable, Equatable {
    /// What to read: aligned, and so at times more than is wanted.
    public var range: Extent
    /// Which of the plan's extents lie in `range`, wholly or, for those longer than the maximum, in
    /// part.
    public var extents: Range<Int>
  }

  /// The extents asked for, in ascending order.
  public let extents: [Extent]
  /// The reads, in ascending order.
  public private(set) var reads: [Read] = []

  /// Plans reads for `extents`.
  ///
  /// Neighbours are merged where the bytes between them are at most `maximumGapByteCount` and the
  /// merged read no longer than `maximumByteCount`. Every extent that fits into one read lies wholly
  /// in one read; longer ones are cut at multiples of the maximum from their aligned start.
  ///
  /// - Parameters:
  ///   - extents: in any order; they may overlap. Empty ones are dropped.
  ///   - alignment: a power of two.
  ///   - maximumByteCount: a multiple of `alignment`.
  /// - Complexity: O(n log n).
  public init(
    _ extents: [Extent], alignment: Int, maximumByteCount: Int, maximumGapByteCount: Int = 0
  ) {
    precondition(
      alignment > 0 && alignment & (alignment - 1) == 0, "alignment is not a power of two")
    precondition(
      maximumByteCount > 0 && maximumByteCount % alignment == 0,
      "the longest read is not a multiple of the alignment")
    self.extents = extents.filter { $0.byteCount > 0 }.sorted()
    for (index, extent) in self.extents.enumerated() {
      let range = extent.aligned(to: alignment)
      if let last = reads.last,
        let merged = Self.merge(
          last.range, range, maximumByteCount: maximumByteCount,
          maximumGapByteCount: maximumGapByteCount)
      {
        reads[reads.count - 1] = Read(range: merged, extents: last.extents.lowerBound..<index + 1)
      } else {
        append(range, index: index, maximumByteCount: maximumByteCount)
      }
    }
  }

  private static func merge(
    _ left: Extent, _ right: Extent, maximumByteCount: Int, maximumGapByteCount: Int
  ) -> Extent? {
    let end = max(left.endOffset, right.endOffset)
    guard left.fileIndex == right.fileIndex, left.offset <= right.offset,
      right.offset - left.endOffset <= maximumGapByteCount,
      end - left.offset <= maximumByteCount
    else { return nil }
    return Extent(fileIndex: left.fileIndex, offset: left.offset, byteCount: end - left.offset)
  }

  private mutating func append(_ range: Extent, index: Int, maximumByteCount: Int) {
    for offset in stride(from: range.offset, to: range.endOffset, by: maximumByteCount) {
      let piece = Extent(
        fileIndex: range.fileIndex, offset: offset,
        byteCount: min(maximumByteCount, range.endOffset - offset))
      reads.append(Read(range: piece, extents: index..<index + 1))
    }
  }

  /// Bytes asked for, overlaps counted once.
  public var usefulByteCount: Int {
    var sum = 0
    var (file, end) = (-1, 0)
    for extent in extents {
      if extent.fileIndex != file { (file, end) = (extent.fileIndex, 0) }
      sum += max(0, extent.endOffset - max(end, extent.offset))
      end = max(end, extent.endOffset)
    }
    return sum
  }

  /// Bytes the reads bring.
  public var readByteCount: Int { reads.reduce(0) { $0 + $1.range.byteCount } }

  /// Read amplification: bytes read for each byte wanted, at least 1 (1 for an empty plan).
  public var amplification: Double {
    usefulByteCount == 0 ? 1 : Double(readByteCount) / Double(usefulByteCount)
  }
}
