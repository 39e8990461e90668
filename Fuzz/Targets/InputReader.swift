/// Takes an input apart: numbers first, the rest last; where it is too short, zeros follow.
struct InputReader {
  private let bytes: UnsafeRawBufferPointer
  private var position = 0

  init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  mutating func byte() -> UInt8 {
    guard position < bytes.count else { return 0 }
    position += 1
    return bytes[position - 1]
  }

  /// A little-endian number of `byteCount` bytes.
  mutating func integer(byteCount: Int) -> UInt64 {
    (0..<byteCount).reduce(0) { $0 | UInt64(byte()) << UInt64(8 * $1) }
  }

  /// The bytes up to the next `separator`, which is stepped over, or all that are left.
  mutating func bytes(upTo separator: UInt8) -> UnsafeRawBufferPointer {
    let start = position
    while position < bytes.count, bytes[position] != separator { position += 1 }
    let end = position
    if position < bytes.count { position += 1 }
    return UnsafeRawBufferPointer(rebasing: bytes[start..<end])
  }

  /// The next `count` bytes, fewer where the input ends.
  mutating func bytes(count: Int) -> UnsafeRawBufferPointer {
    let end = position + min(count, bytes.count - position)
    defer { position = end }
    return UnsafeRawBufferPointer(rebasing: bytes[position..<end])
  }

  /// Everything left.
  mutating func rest() -> UnsafeRawBufferPointer { bytes(count: bytes.count) }
}

extension [UInt8] {
  mutating func appendLittleEndian(_ value: some FixedWidthInteger) {
    Swift.withUnsafeBytes(of: value.littleEndian) { append(contentsOf: $0) }
  }

  mutating func padWithZeros(to count: Int) {
    if self.count < count { append(contentsOf: repeatElement(0, count: count - self.count)) }
  }
}
