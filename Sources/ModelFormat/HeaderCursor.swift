/// Reads little-endian values from a file's prefix and never past it.
///
/// Each read is checked against the prefix (→ `needsMore`) and against the file (→ `truncated`), before
/// anything is allocated for it.
struct HeaderCursor {
  let bytes: UnsafeRawBufferPointer
  let fileByteCount: Int
  /// No header of this format is longer; bounds what the caller is asked to read.
  let headerByteLimit: Int
  let path: String
  /// Next byte to read.
  private(set) var offset = 0

  init(_ bytes: UnsafeRawBufferPointer, fileByteCount: Int, headerByteLimit: Int, path: String) {
    self.bytes = UnsafeRawBufferPointer(rebasing: bytes.prefix(max(0, fileByteCount)))
    self.fileByteCount = fileByteCount
    self.headerByteLimit = headerByteLimit
    self.path = path
  }

  func error(
    _ kind: FormatError.Kind, at offset: Int? = nil, _ message: String
  ) -> ParseInterruption {
    .failed(FormatError(kind, at: offset ?? self.offset, path: path, message))
  }

  /// Makes sure that the next `count` bytes are there.
  func require(_ count: UInt64, of what: @autoclosure () -> String) throws(ParseInterruption) {
    if count <= UInt64(bytes.count - offset) { return }
    guard count <= UInt64(fileByteCount - offset) else {
      throw error(
        .truncated,
        "\(what()) takes \(count) bytes, but the file ends \(fileByteCount - offset) bytes on")
    }
    let end = offset + Int(count)
    guard end <= headerByteLimit else {
      throw error(
        .unsupported,
        "\(what()) would end at byte \(end); headers over \(headerByteLimit) bytes"
          + " are not read")
    }
    throw .needsMore(atLeast: end)
  }

  mutating func read<Value: FixedWidthInteger & BitwiseCopyable>(
    _ type: Value.Type, _ what: @autoclosure () -> String
  ) throws(ParseInterruption) -> Value {
    try require(UInt64(MemoryLayout<Value>.size), of: what())
    let value = bytes.loadUnaligned(fromByteOffset: offset, as: Value.self)
    offset += MemoryLayout<Value>.size
    return Value(littleEndian: value)
  }

  /// Steps over `count` bytes and returns where they lie.
  mutating func skip(
    _ count: UInt64, _ what: @autoclosure () -> String
  ) throws(ParseInterruption) -> Range<Int> {
    try require(count, of: what())
    let start = offset
    offset += Int(count)
    return start..<offset
  }

  /// Steps over a 64-bit length and that many bytes; returns where the bytes lie.
  mutating func skipString(_ what: @autoclosure () -> String) throws(ParseInterruption) -> Range<
    Int
  > {
    let length = try read(UInt64.self, what())
    return try skip(length, what())
  }

  /// `range` of the prefix.
  func slice(_ range: Range<Int>) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: bytes[range])
  }
}
