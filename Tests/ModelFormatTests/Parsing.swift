import ModelFormat
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
