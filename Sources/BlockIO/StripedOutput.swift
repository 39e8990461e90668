/// A logical file being written as one file or striped over several, which take their names together
/// when all of them are complete.
public final class StripedOutput {
  public let layout: StripeLayout
  private let members: [OutputFile]

  /// Creates a file beside each path and reserves its room.
  ///
  /// - Parameter inputs: files, or folders of files, that are being read: no member may be one of them.
  /// - Throws: ``BlockIOError`` if no file may be written at a path, two paths are one file, a folder
  ///   cannot be written to or a drive has too little room.
  public init(
    paths: [String], layout: StripeLayout, inputs: [String]
  ) throws(BlockIOError) {
    precondition(paths.count == layout.memberCount, "one path for each member")
    var members: [OutputFile] = []
    for (index, path) in paths.enumerated() {
      members.append(
        try OutputFile(
          path: path, reserving: layout.memberByteCount(index), inputs: inputs))
    }
    try OutputFile.checkDistinct(members)
    self.members = members
    self.layout = layout
  }

  /// Writes `bytes` at `offset` of the logical file, each to the member it lies on.
  public func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(BlockIOError) {
    var written = 0
    while written < bytes.count {
      let part = layout.part(at: offset + written, limit: bytes.count - written)
      try members[part.fileIndex].write(
        UnsafeRawBufferPointer(rebasing: bytes[written..<written + part.byteCount]),
        at: part.offset)
      written += part.byteCount
    }
  }

  /// Writes what member `index` begins with, no longer than the layout's header.
  public func writeHeader(
    _ bytes: UnsafeRawBufferPointer, member index: Int
  ) throws(BlockIOError) {
    precondition(bytes.count <= layout.headerByteCount, "the header has no room for so much")
    try members[index].write(bytes, at: 0)
  }

  /// Hands what was written in a range of the logical file to the drives and drops it from the page
  /// cache.
  public func flushAndDropCache(_ range: Range<Int>) throws(BlockIOError) {
    // Members are at most one unit apart.
    let slack = members.count > 1 ? layout.unitByteCount : 0
    let start = max(0, layout.part(at: range.lowerBound, limit: 1).offset - slack)
    let last = layout.part(at: range.upperBound, limit: 1).offset + slack
    for (index, member) in members.enumerated() {
      let end = min(last, layout.memberByteCount(index))
      if start < end { try member.flushAndDropCache(start..<end) }
    }
  }

  /// Makes every member durable, then gives all of them their names, or none.
  ///
  /// Where the process is killed between two names each member is whole, but the set is not; its
  /// readers see that.
  public func commit() throws(BlockIOError) { try OutputFile.commit(members) }
}
