import ModelFormat
import TensorBasics
import TestSupport

/// Parses `bytes` as the beginning of a file of `fileByteCount` bytes (default: all of it).
func parseGGUF(
  _ bytes: [UInt8], fileByteCount: Int? = nil
) throws(FormatError) -> ParseProgress<GGUFFile> {
  try withBytes(bytes) { buffer throws(FormatError) in
    try GGUF.parse(buffer, fileByteCount: fileByteCount ?? buffer.count, path: "tiny.gguf")
  }
}

/// The description of the beginning of a model file.
func describe(
  _ bytes: [UInt8], fileByteCount: Int? = nil
) throws(FormatError) -> ParseProgress<ModelDescription> {
  try withBytes(bytes) { buffer throws(FormatError) in
    try ModelFile.describe(buffer, fileByteCount: fileByteCount ?? buffer.count, path: "tiny")
  }
}

/// `Array.withUnsafeBytes` with typed throws.
func withBytes<Value>(
  _ bytes: [UInt8], _ body: (UnsafeRawBufferPointer) throws(FormatError) -> Value
) throws(FormatError) -> Value {
  let result: Result<Value, FormatError> = bytes.withUnsafeBytes { buffer in
    do throws(FormatError) { return .success(try body(buffer)) } catch { return .failure(error) }
  }
  return try result.get()
}

/// The error that reading `file` ends in, or nil.
func error(of file: TinyGGUF) -> FormatError? {
  do throws(FormatError) {
    _ = try ImageBuilder.description(of: file.bytes())
    return nil
  } catch { return error }
}

extension ParseProgress {
  /// The value, where parsing is complete.
  var value: Value? {
    if case .complete(let value) = self { return value }
    return nil
  }
}

/// Eight bytes of a file as a number.
func littleEndian(_ bytes: [UInt8], at offset: Int) -> UInt64 {
  (0..<8).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
}

/// Makes the prologue's lengths and checksums those of the bytes, as far as they fit.
func repairChecksums(_ bytes: inout [UInt8]) {
  guard bytes.count >= 64 else { return }
  func store(_ value: UInt64, at offset: Int, _ bytes: inout [UInt8]) {
    for index in 0..<8 {
      bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
    }
  }
  func checksum(_ range: Range<Int>, _ bytes: [UInt8]) -> UInt64 {
    bytes.withUnsafeBytes { Checksum.of(UnsafeRawBufferPointer(rebasing: $0[range])) }
  }
  store(UInt64(bytes.count), at: 40, &bytes)
  let length = littleEndian(bytes, at: 24)
  if length <= UInt64(bytes.count - 64) {
    store(checksum(64..<64 + Int(length), bytes), at: 32, &bytes)
  }
  store(checksum(0..<56, bytes), at: 56, &bytes)
}

/// An image's header.
func headerText(_ image: [UInt8]) -> String {
  String(decoding: image[64..<64 + Int(littleEndian(image, at: 24))], as: UTF8.self)
}

/// The image with another header, and checksums that agree.
func edited(_ image: [UInt8], _ edit: (String) -> String) -> [UInt8] {
  var bytes = image
  let old = headerText(image)
  let new = Array(edit(old).utf8)
  let room = max(old.utf8.count, new.count)
  for index in 0..<room { bytes[64 + index] = index < new.count ? new[index] : 0 }
  for index in 0..<8 { bytes[24 + index] = UInt8(new.count >> (8 * index) & 0xFF) }
  repairChecksums(&bytes)
  return bytes
}
