/// A logical file being written as one file or striped over several, which take their real names
/// when all of them are complete.
///
/// Until ``commit()`` nothing at the real paths changes; without it, the temporary files are removed.
public struct NewStripedFile: ~Copyable {
  /// A place in an array for a file, which cannot be copied.
  private final class Member {
    var file: NewFile
    init(_ file: consuming NewFile) { self.file = file }
  }

  public let layout: StripeLayout
  private let members: [Member]

  /// Creates a temporary file beside each path and reserves its room.
  ///
  /// - Throws: ``BlockIOError`` where a folder cannot be written to or a drive has too little room.
  public init(paths: [String], layout: StripeLayout) throws(BlockIOError) {
    precondition(paths.count == layout.memberCount, "one path for each member")
    var members: [Member] = []
    for (index, path) in paths.enumerated() {
      members.append(
        Member(try NewFile(path: path, reserving: layout.memberByteCount(index))))
    }
    self.members = members
    self.layout = layout
  }

  /// Writes `bytes` at `offset` of the logical file, each to the member it lies on.
  public mutating func write(
    _ bytes: UnsafeRawBufferPointer, at offset: Int
  ) throws(BlockIOError) {
    var written = 0
    while written < bytes.count {
      let part = layout.part(at: offset + written, limit: bytes.count - written)
      try members[part.fileIndex].file.write(
        UnsafeRawBufferPointer(rebasing: bytes[written..<written + part.byteCount]),
        at: part.offset)
      written += part.byteCount
    }
  }

  /// Writes what member `index` begins with, no longer than the layout's header.
  public mutating func writeHeader(
    _ bytes: UnsafeRawBufferPointer, member index: Int
  ) throws(BlockIOError) {
    precondition(bytes.count <= layout.headerByteCount, "the header has no room for so much")
    try members[index].file.write(bytes, at: 0)
  }

  /// Hands what was written in a range of the logical file to the drives and drops it from the page
  /// cache.
  public mutating func settle(_ range: Range<Int>) {
    // Members are at most one unit apart.
    let slack = members.count > 1 ? layout.unitByteCount : 0
    let start = max(0, layout.part(at: range.lowerBound, limit: 1).offset - slack)
    let last = layout.part(at: range.upperBound, limit: 1).offset + slack
    for (index, member) in members.enumerated() {
      let end = min(last, layout.memberByteCount(index))
      if start < end { member.file.settle(start..<end) }
    }
  }

  /// Makes every member durable, then gives them their names, in place of whatever had them.
  ///
  /// Where the process is killed between two names each member is whole, but the set is not; its
  /// readers see that.
  public mutating func commit() throws(BlockIOError) {
    for member in members { try member.file.makeDurable() }
    for member in members { try member.file.takeName() }
  }
}
