import BlockIO
import ModelFormat
import TensorBasics

/// Small files that are read and written whole, with a checksum at their end.
enum SmallFile {
  /// Bytes of the checksum: XXH3-64 over all before it.
  static let checksumByteCount = 8

  /// Writes `bytes` and their checksum, and gives the file its name.
  static func write(_ bytes: [UInt8], to file: OutputFile) throws(BlockIOError) {
    var bytes = bytes
    bytes.appendLittleEndian(bytes.withUnsafeBytes(Checksum.of))
    try file.write(bytes, at: 0)
    try file.commit()
  }

  /// The integer at `offset`, which lies inside.
  static func integer<Value: FixedWidthInteger & BitwiseCopyable>(
    _ bytes: UnsafeRawBufferPointer, at offset: Int, as type: Value.Type
  ) -> Value {
    Value(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
  }

  /// Whether the last bytes are the checksum of those before.
  static func isIntact(_ bytes: UnsafeRawBufferPointer) -> Bool {
    let end = bytes.count - checksumByteCount
    guard end >= 0 else { return false }
    return integer(bytes, at: end, as: UInt64.self)
      == Checksum.of(UnsafeRawBufferPointer(rebasing: bytes[..<end]))
  }
}

extension [UInt8] {
  /// Appends an integer's bytes, least significant first.
  mutating func appendLittleEndian(_ value: some FixedWidthInteger) {
    Swift.withUnsafeBytes(of: value.littleEndian) { append(contentsOf: $0) }
  }
}
