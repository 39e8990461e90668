import TensorBasics

/// One pass over a GGUF header: every count, length and offset is checked before it is believed.
struct GGUFHeaderParser {
  private var cursor: HeaderCursor
  /// Longest key the format allows.
  private static let keyByteLimit = 65535
  /// Fewest bytes of a metadata entry (a one-byte key, a one-byte value) and of a tensor info.
  private static let smallestEntryByteCount = 8 + 1 + 4 + 1
  private static let smallestTensorByteCount = 8 + 1 + 4 + 8 + 4 + 8

  init(_ header: UnsafeRawBufferPointer, fileByteCount: Int, path: String) {
    cursor = HeaderCursor(
      header, fileByteCount: fileByteCount, headerByteLimit: GGUF.headerByteLimit, path: path)
  }

  mutating func parse() throws(ParseInterruption) -> GGUFFile {
    let version = try parseVersion()
    let tensorCount = try cursor.read(UInt64.self, "the tensor count")
    try checkCount(tensorCount, of: Self.smallestTensorByteCount, "tensors")
    let metadataCount = try cursor.read(UInt64.self, "the metadata count")
    try checkCount(metadataCount, of: Self.smallestEntryByteCount, "metadata entries")

    var metadata = GGUFMetadata()
    for _ in 0..<metadataCount { try parseEntry(into: &metadata) }
    let alignment = try alignment(metadata)

    var tensors = GGUFTensorParser(alignment: alignment)
    for _ in 0..<tensorCount { try tensors.parseInfo(&cursor) }
    let (dataOffset, infos) = try tensors.place(after: cursor)
    return GGUFFile(
      path: cursor.path, fileByteCount: cursor.fileByteCount, version: version,
      metadata: metadata, tensors: infos, alignment: alignment, headerByteCount: cursor.offset,
      dataOffset: dataOffset)
  }

  private mutating func parseVersion() throws(ParseInterruption) -> UInt32 {
    guard try cursor.read(UInt32.self, "the magic number") == GGUF.magic else {
      throw cursor.error(.unrecognised, at: 0, "not a GGUF file: it does not begin with \"GGUF\"")
    }
    let version = try cursor.read(UInt32.self, "the version")
    switch version {
    case 2, 3: return version
    case 1:
      throw cursor.error(
        .unsupported, at: 4, "GGUF version 1 is not read; convert the file to version 3")
    case _ where version.byteSwapped <= 0xFF:
      throw cursor.error(
        .unsupported, at: 4,
        "a big-endian GGUF file (version \(version.byteSwapped)); only little-endian ones are read")
    default:
      throw cursor.error(.unsupported, at: 4, "GGUF version \(version) is not known; 2 and 3 are")
    }
  }

  /// Refuses a count of things that the rest of the file has no room for.
  private func checkCount(
    _ count: UInt64, of byteCount: Int, _ what: String
  ) throws(ParseInterruption) {
    guard count <= UInt64((cursor.fileByteCount - cursor.offset) / byteCount) else {
      throw cursor.error(
        .truncated, at: cursor.offset - 8,
        "\(count) \(what) do not fit into a file of \(cursor.fileByteCount) bytes")
    }
  }

  // MARK: Metadata

  private mutating func parseEntry(into metadata: inout GGUFMetadata) throws(ParseInterruption) {
    let start = cursor.offset
    let length = try cursor.read(UInt64.self, "a metadata key")
    guard (1...UInt64(Self.keyByteLimit)).contains(length) else {
      throw cursor.error(
        .malformed, at: start,
        "a metadata key of \(length) bytes; 1 to \(Self.keyByteLimit) are allowed")
    }
    let key = try cursor.skip(length, "a metadata key")
    guard let name = String(validating: cursor.slice(key), as: UTF8.self) else {
      throw cursor.error(.malformed, at: key.lowerBound, "a metadata key is not UTF-8")
    }
    let type = try parseType(of: name)
    let entry: GGUFMetadata.Entry
    if type == .array {
      entry = try parseArray(key: key, name: name)
    } else {
      let value = try skipValue(type, name)
      entry = GGUFMetadata.Entry(key: key, type: type, isArray: false, count: 1, value: value)
    }
    guard metadata.append(entry, in: cursor.bytes) else {
      throw cursor.error(.malformed, at: start, "metadata key \"\(name)\" appears twice")
    }
  }

  private mutating func parseType(
    of key: String
  ) throws(ParseInterruption) -> GGUFMetadata.ValueType {
    let number = try cursor.read(UInt32.self, "the type of \"\(key)\"")
    guard let type = GGUFMetadata.ValueType(rawValue: number) else {
      throw cursor.error(
        .malformed, at: cursor.offset - 4, "\"\(key)\" has the unknown value type \(number)")
    }
    return type
  }

  /// Steps over a plain value and returns its bytes.
  private mutating func skipValue(
    _ type: GGUFMetadata.ValueType, _ key: String
  ) throws(ParseInterruption) -> Range<Int> {
    guard let byteCount = type.byteCount else {
      return try cursor.skipString("the value of \"\(key)\"")
    }
    let range = try cursor.skip(UInt64(byteCount), "the value of \"\(key)\"")
    if type == .bool, cursor.bytes[range.lowerBound] > 1 {
      throw cursor.error(
        .malformed, at: range.lowerBound,
        "\"\(key)\" is a boolean of value \(cursor.bytes[range.lowerBound])")
    }
    return range
  }

  private mutating func parseArray(
    key: Range<Int>, name: String
  ) throws(ParseInterruption) -> GGUFMetadata.Entry {
    let type = try parseType(of: name)
    guard type != .array else {
      throw cursor.error(
        .unsupported, at: cursor.offset - 4, "\"\(name)\" is an array of arrays")
    }
    let count = try cursor.read(UInt64.self, "the length of \"\(name)\"")
    try checkCount(count, of: type.byteCount ?? 8, "elements of \"\(name)\"")
    let start = cursor.offset
    if let byteCount = type.byteCount {
      _ = try cursor.skip(count * UInt64(byteCount), "\"\(name)\"")
    } else {
      for index in 0..<count { _ = try cursor.skipString("string \(index) of \"\(name)\"") }
    }
    return GGUFMetadata.Entry(
      key: key, type: type, isArray: true, count: Int(count), value: start..<cursor.offset)
  }

  private func alignment(_ metadata: GGUFMetadata) throws(ParseInterruption) -> Int {
    guard let entry = metadata.entry("general.alignment", in: cursor.bytes) else {
      return GGUF.defaultAlignment
    }
    guard entry.type == .uint32, !entry.isArray else {
      throw cursor.error(
        .malformed, at: entry.value.lowerBound, "general.alignment is not a 32-bit integer")
    }
    let value = Int(
      UInt32(
        littleEndian: cursor.bytes.loadUnaligned(
          fromByteOffset: entry.value.lowerBound, as: UInt32.self)))
    guard value >= 8, value & (value - 1) == 0 else {
      throw cursor.error(
        .malformed, at: entry.value.lowerBound,
        "general.alignment is \(value), not a power of two of at least 8")
    }
    return value
  }
}
