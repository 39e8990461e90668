/// A contiguous byte range of a file: the unit of reading.
public struct Extent: Hashable, Sendable, Comparable {
  public var fileIndex: Int
  /// First byte.
  public var offset: Int
  public var byteCount: Int

  public init(fileIndex: Int, offset: Int, byteCount: Int) {
    self.fileIndex = fileIndex
    self.offset = offset
    self.byteCount = byteCount
  }

  /// The byte after the last.
  public var endOffset: Int { offset + byteCount }

  /// The smallest range that holds this one and starts and ends at multiples of `alignment`, a power
  /// of two. It may reach past the file's end.
  public func aligned(to alignment: Int) -> Extent {
    let start = offset & ~(alignment - 1)
    let end = (endOffset + alignment - 1) & ~(alignment - 1)
    return Extent(fileIndex: fileIndex, offset: start, byteCount: end - start)
  }

  /// Whether `other` lies in this range.
  public func contains(_ other: Extent) -> Bool {
    fileIndex == other.fileIndex && offset <= other.offset && endOffset >= other.endOffset
  }

  /// By file, then offset, then length.
  public static func < (left: Self, right: Self) -> Bool {
    (left.fileIndex, left.offset, left.byteCount)
      < (right.fileIndex, right.offset, right.byteCount)
  }
}
