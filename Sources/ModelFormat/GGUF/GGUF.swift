/// The GGUF format, versions 2 and 3: parsing of the header.
///
/// Layout, all little-endian:
/// 1. `GGUF`, u32 version, u64 tensor count, u64 metadata count;
/// 2. metadata: string key, u32 type, value. A string is a u64 length and bytes; an array is a u32
///    element type, a u64 count and the elements;
/// 3. tensor infos: string name, u32 dimension count, u64 dimensions (the first one runs along the row),
///    u32 type, u64 offset from the start of the data;
/// 4. padding to `general.alignment` (32), then the data.
public enum GGUF {
  /// The file's first four bytes, `GGUF`, as a little-endian number.
  static let magic: UInt32 = 0x4655_4747
  static let defaultAlignment = 32
  /// Longer headers are refused: the largest vocabularies in use make about 20 MiB.
  public static let headerByteLimit = 128 << 20

  /// Parses the header from the first bytes of a file.
  ///
  /// Memory used is a small multiple of the header's length, whatever the header claims.
  ///
  /// - Parameters:
  ///   - header: The file's first bytes; only read during the call.
  ///   - fileByteCount: Length of the whole file, against which every length and offset is checked.
  ///   - path: The file's name in errors.
  /// - Returns: The file's index, or how long a prefix is needed at least.
  /// - Throws: ``FormatError`` for what contradicts the format or is not supported.
  public static func parse(
    _ header: UnsafeRawBufferPointer, fileByteCount: Int, path: String
  ) throws(FormatError) -> ParseProgress<GGUFFile> {
    let progress = try parseProgress { () throws(ParseInterruption) in
      var parser = GGUFHeaderParser(header, fileByteCount: fileByteCount, path: path)
      return try parser.parse()
    }
    guard case .complete(var file) = progress else { return progress }
    file.split = try GGUFSplit.read(GGUFMetadataReader(file, header: header))
    return .complete(file)
  }
}

/// An indexed GGUF header: where its metadata values lie, and its tensors.
public struct GGUFFile: Sendable {
  public let path: String
  /// Length of the whole file.
  public let fileByteCount: Int
  /// 2 or 3.
  public let version: UInt32
  public let metadata: GGUFMetadata
  /// In the order of the file.
  public let tensors: [GGUFTensorInfo]
  /// `general.alignment`; tensor offsets are multiples of it.
  public let alignment: Int
  /// Bytes of header that were parsed, without padding.
  public let headerByteCount: Int
  /// Where tensor data begins.
  public let dataOffset: Int
  /// Which member of a split model it is; nil of a model by itself.
  public internal(set) var split: GGUFSplit?
}

/// One tensor as the header lists it.
public struct GGUFTensorInfo: Sendable {
  public let name: String
  public let type: StorageType
  /// GGUF's number of the type.
  let typeNumber: UInt32
  /// One to four, the row's length first.
  public let dimensions: [Int]
  /// Byte offset in the file (not in the data).
  public internal(set) var offset: Int
  /// Of an opaque type what lies before the next tensor.
  public internal(set) var byteCount: Int
  /// Where the header describes it, for errors.
  public let infoOffset: Int

  public var columnCount: Int { dimensions[0] }
  /// Product of the outer dimensions.
  public var rowCount: Int { dimensions.dropFirst().reduce(1, *) }
}
