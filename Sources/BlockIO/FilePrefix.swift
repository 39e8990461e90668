import TensorBasics

/// The first bytes of a file, for parsing its header.
public struct FilePrefix: ~Copyable {
  private let buffer: AlignedBuffer
  /// Bytes read: as many as asked for, or the whole file.
  public let byteCount: Int
  /// The file's size.
  public let fileByteCount: Int

  /// The bytes; valid while the prefix lives.
  public var bytes: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer.bytes)[..<byteCount])
  }

  /// Reads the first `byteCount` bytes of `path` through the page cache, and leaves nothing there.
  ///
  /// Memory taken is bounded by the file's size.
  public init(path: String, byteCount: Int) throws(BlockIOError) {
    let file = try OpenFile(path: path, direct: false)
    let count = min(max(byteCount, 0), file.byteCount)
    let buffer: AlignedBuffer
    do {
      buffer = try AlignedBuffer(byteCount: count)
    } catch {
      throw BlockIOError(
        .allocate, path: path, byteCount: count, reason: .system(errno: error.errno))
    }
    try file.read(at: 0, into: UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<count]))
    fileByteCount = file.byteCount
    self.byteCount = count
    self.buffer = buffer
  }
}
