/// Where the bytes of logical files lie on the files of a device.
public enum ReadMapping: Sendable, Equatable {
  /// Cut in units that lie in turn on several files.
  case stripe(StripeLayout)
  /// Several files, of these lengths, of which there are whole copies: first all files of one copy, then all
  /// of the next.
  case mirror(copyCount: Int, byteCounts: [Int])

  /// A range of a request that one file serves.
  public struct Part: Sendable, Equatable {
    /// The file that has the bytes; nil if each copy has them.
    public var fileIndex: Int?
    /// First byte in that file.
    public var offset: Int
    public var byteCount: Int

    public init(fileIndex: Int?, offset: Int, byteCount: Int) {
      self.fileIndex = fileIndex
      self.offset = offset
      self.byteCount = byteCount
    }
  }

  /// Parts of a mirrored read are not shorter than this: a drive's cost for a request would outweigh
  /// what a second drive brings.
  public static let smallestPartByteCount = 128 << 10
  /// Parts of mirrored reads begin at multiples of this.
  private static let partAlignment = 4096

  /// Files that hold the bytes.
  public var fileCount: Int { wayCount * byteCounts.count }

  /// Files that a read is shared among at most: all members of a stripe, a file of each copy.
  var wayCount: Int {
    switch self {
    case .stripe(let layout): layout.memberCount
    case .mirror(let copyCount, _): copyCount
    }
  }

  /// Bytes of each logical file; a stripe is one.
  public var byteCounts: [Int] {
    switch self {
    case .stripe(let layout): [layout.byteCount]
    case .mirror(_, let byteCounts): byteCounts
    }
  }

  /// The part of a request that begins `position` bytes into it.
  ///
  /// Parts follow each other without gap: the next begins where this one ends.
  ///
  /// - Parameters:
  ///   - position: where an earlier part ended, or 0.
  ///   - offset: the request's first logical byte.
  ///   - byteCount: the request's length, more than `position`.
  /// - Complexity: O(1) for stripes, O(copies) for mirrors.
  public func part(at position: Int, offset: Int, byteCount: Int) -> Part {
    precondition(position >= 0 && position < byteCount, "no part there")
    switch self {
    case .stripe(let layout):
      let extent = layout.part(at: offset + position, limit: byteCount - position)
      return Part(
        fileIndex: extent.fileIndex, offset: extent.offset, byteCount: extent.byteCount)
    case .mirror(let copyCount, _):
      let partCount = min(copyCount, max(1, byteCount / Self.smallestPartByteCount))
      var end = byteCount
      for index in 1..<max(partCount, 1) {
        let cut = byteCount / partCount * index
        let aligned = (offset + cut) / Self.partAlignment * Self.partAlignment - offset
        if aligned > position {
          end = aligned
          break
        }
      }
      return Part(fileIndex: nil, offset: offset + position, byteCount: end - position)
    }
  }
}
