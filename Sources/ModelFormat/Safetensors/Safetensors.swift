import TensorBasics

/// The safetensors format: parsing of the header.
///
/// Layout: a little-endian u64 length; a JSON object of that many bytes, `name: {dtype, shape,
/// data_offsets}` and perhaps `__metadata__`; then the data, which `data_offsets` count from.
public enum Safetensors {
  /// Longer headers are refused, as the reference implementation does.
  public static let headerByteLimit = 100_000_000

  /// Parses the header from the first bytes of a file.
  ///
  /// - Parameters:
  ///   - header: The file's first bytes; only read during the call.
  ///   - fileByteCount: Length of the whole file, against which every offset is checked.
  ///   - path: The file's name in errors.
  /// - Returns: The file's tensors, or how long a prefix is needed at least.
  /// - Throws: ``FormatError`` for what contradicts the format or is not supported.
  public static func parse(
    _ header: UnsafeRawBufferPointer, fileByteCount: Int, path: String
  ) throws(FormatError) -> ParseProgress<SafetensorsFile> {
    try parseProgress { () throws(ParseInterruption) in
      var cursor = HeaderCursor(
        header, fileByteCount: fileByteCount, headerByteLimit: headerByteLimit + 8, path: path)
      let length = try cursor.read(UInt64.self, "the header's length")
      guard (2...UInt64(headerByteLimit)).contains(length) else {
        throw cursor.error(
          .malformed, at: 0,
          "a header of \(length) bytes; 2 to \(headerByteLimit) are possible in safetensors")
      }
      let range = try cursor.skip(length, "the header")
      do throws(FormatError) {
        let json = try JSONParser.parse(cursor.slice(range), at: range.lowerBound, path: path)
        let parser = SafetensorsHeaderParser(
          dataOffset: cursor.offset, fileByteCount: fileByteCount, path: path)
        return SafetensorsFile(
          path: path, fileByteCount: fileByteCount, dataOffset: cursor.offset,
          tensors: try parser.tensors(json), metadata: parser.metadata(json))
      } catch { throw .failed(error) }
    }
  }
}

/// A parsed safetensors header.
public struct SafetensorsFile: Sendable {
  public let path: String
  /// Length of the whole file.
  public let fileByteCount: Int
  /// Where tensor data begins.
  public let dataOffset: Int
  /// In ascending offsets.
  public let tensors: [SafetensorsTensor]
  /// The strings of `__metadata__`.
  public let metadata: [String: String]
}

/// One tensor as the header lists it.
public struct SafetensorsTensor: Sendable, Equatable {
  public let name: String
  public let type: StorageType
  /// Outermost dimension first; empty for a scalar.
  public let shape: [Int]
  /// Byte offset in the file (not in the data).
  public let offset: Int
  public let byteCount: Int
  /// Where the header describes it, for errors.
  public let infoOffset: Int
}

extension SafetensorsTensor {
  /// The type of weights to compute with.
  ///
  /// - Throws: ``FormatError`` of kind `unsupported` for integers and other types.
  func weightType(path: String) throws(FormatError) -> ElementType {
    guard let weightType = type.elementType else {
      throw FormatError(
        .unsupported, at: infoOffset, path: path,
        "tensor \"\(name)\" has dtype \(type.name); F32, F16 and BF16 are supported")
    }
    return weightType
  }
}
