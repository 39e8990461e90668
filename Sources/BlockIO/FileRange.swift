import Glibc

/// Bytes of a file that are wanted once, such as a value in its header.
public enum FileRange {
  /// Reads the bytes of `path` from `offset` on that fill `destination`, through the page cache, and leaves
  /// nothing there. Bytes past the file's end are zero.
  public static func read(
    path: String, offset: Int, into destination: UnsafeMutableRawBufferPointer
  ) throws(BlockIOError) {
    try OpenFile(path: path, direct: false).read(at: offset, into: destination)
  }
}

extension OpenFile {
  /// Reads a range through the page cache, where nothing of it is left.
  func read(
    at offset: Int, into destination: UnsafeMutableRawBufferPointer
  ) throws(BlockIOError) {
    guard !destination.isEmpty else { return }
    let request = ReadRequest(fileIndex: 0, offset: offset, destination: destination, tag: 0)
    var transfer = Transfer(request, self, at: 0)
    if let reason = transfer.readToEnd(hooks: DeviceHooks()) {
      throw BlockIOError(
        .read, path: path, offset: transfer.nextOffset, byteCount: transfer.nextBytes.count,
        reason: reason)
    }
    posix_fadvise(descriptor.rawValue, offset, destination.count, POSIX_FADV_DONTNEED)
  }
}
