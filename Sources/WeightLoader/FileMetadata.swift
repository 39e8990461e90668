import BlockIO
import ModelFormat
import TensorBasics

/// What a file says under one key: of a GGUF file any of its keys, of a safetensors file a text of
/// `__metadata__`. Flash images have none.
///
/// The value stays in the file until ``TensorLoader/value(of:)`` reads it: vocabularies are long.
public struct MetadataEntry: Sendable {
  /// Index into ``TensorLoader/files``.
  public let fileIndex: Int
  public let key: String
  /// Type of the value, or of an array's elements.
  ///
  /// One of `uint8`, `int8`, `uint16`, `int16`, `uint32`, `int32`, `uint64`, `int64`, `float32`, `float64`, `bool` and
  /// `string`.
  public let typeName: String
  public let isArray: Bool
  /// Elements of an array; 1 for a plain value.
  public let count: Int
  /// Bytes of the value, little-endian: of a text its UTF-8, of an array of texts each with its length (8
  /// bytes) before it.
  public let byteCount: Int
  let place: Place

  /// Where the value is.
  enum Place {
    case file(offset: Int, type: GGUFMetadata.ValueType)
    case text(String)
  }
}

/// A value of a file's metadata.
public enum MetadataValue: Sendable, Equatable {
  case integer(Int64)
  /// Of a type without sign.
  case unsigned(UInt64)
  case float(Double)
  case bool(Bool)
  /// Bytes that are no UTF-8 are replaced.
  case string(String)
  case array([MetadataValue])
}

extension MetadataEntry {
  /// The keys of a parsed GGUF header, whose bytes are `header`.
  static func entries(
    _ file: GGUFFile, header: UnsafeRawBufferPointer
  ) -> [MetadataEntry] {
    let fileIndex = file.split?.index ?? 0
    return file.metadata.entries.map { entry in
      MetadataEntry(
        fileIndex: fileIndex, key: String(decoding: header[entry.key], as: UTF8.self),
        typeName: "\(entry.type)", isArray: entry.isArray, count: entry.count,
        byteCount: entry.value.count,
        place: .file(offset: entry.value.lowerBound, type: entry.type))
    }
  }

  /// The texts of a safetensors file, by their keys.
  static func entries(_ file: SafetensorsFile, fileIndex: Int) -> [MetadataEntry] {
    file.metadata.sorted { $0.key < $1.key }.map { key, text in
      MetadataEntry(
        fileIndex: fileIndex, key: key, typeName: "string", isArray: false, count: 1,
        byteCount: text.utf8.count, place: .text(text))
    }
  }
}

/// What the headers of a model's files say, for who reads no tensor.
package struct FileMetadata {
  /// The files that ``MetadataEntry/fileIndex`` and ``LoadableTensor/fileIndex`` count.
  package let files: [String]
  /// Their lengths; none of a striped image.
  package let fileByteCounts: [Int]
  package let entries: [MetadataEntry]
  /// All tensors, also of types that models do not compute with.
  package let tensors: [LoadableTensor]

  /// Reads the header of a GGUF file, flash image or safetensors file, or of those of a folder.
  ///
  /// - Throws: ``LoaderError/io(_:)``, ``LoaderError/format(_:)``, ``LoaderError/missingFile(path:_:)``.
  package init(_ path: String) throws(LoaderError) {
    let catalogue = try TensorCatalogue(path, mirrors: [])
    files = catalogue.files
    fileByteCounts = catalogue.fileByteCounts
    entries = catalogue.metadata
    tensors = catalogue.tensors
  }

  /// A value, or of an array no more than its first `limit` elements, for which no more is read than they take.
  ///
  /// - Throws: ``LoaderError/io(_:)``, ``LoaderError/allocation(_:)``.
  package func value(of entry: MetadataEntry, limit: Int) throws(LoaderError) -> MetadataValue {
    guard case .file(_, let type) = entry.place else { return entry.text }
    let count = min(entry.count, limit)
    var byteCount =
      entry.isArray ? min(entry.byteCount, count * (type.byteCount ?? 64)) : entry.byteCount
    while true {
      let (value, isPastEnd) = try value(of: entry, type, count, byteCount: byteCount)
      if !isPastEnd || byteCount == entry.byteCount { return value }
      // Texts longer than was thought.
      byteCount = min(entry.byteCount, 4 * byteCount)
    }
  }

  /// The value, or the first `count` elements, of its first `byteCount` bytes; and whether these were too few.
  private func value(
    of entry: MetadataEntry, _ type: GGUFMetadata.ValueType, _ count: Int, byteCount: Int
  ) throws(LoaderError) -> (MetadataValue, isPastEnd: Bool) {
    let memory: AlignedBuffer
    do { memory = try AlignedBuffer(byteCount: byteCount) } catch { throw .allocation(error) }
    let bytes = UnsafeMutableRawBufferPointer(rebasing: memory.bytes[..<byteCount])
    try entry.read(files, into: bytes)
    var reader = MetadataValueReader(bytes: UnsafeRawBufferPointer(bytes), type: type)
    let value =
      entry.isArray
      ? MetadataValue.array((0..<count).map { _ in reader.element() }) : reader.plainValue()
    extendLifetime(memory)
    return (value, reader.isPastEnd)
  }
}

extension MetadataEntry {
  /// A text that was read with the header.
  fileprivate var text: MetadataValue {
    if case .text(let text) = place { .string(text) } else { .string("") }
  }

  /// Reads the first bytes of the value, as many as `bytes` holds.
  fileprivate func read(
    _ files: [String], into bytes: UnsafeMutableRawBufferPointer
  ) throws(LoaderError) {
    switch place {
    case .text(let text): bytes.copyBytes(from: text.utf8)
    case .file(let offset, _):
      do {
        try FileRange.read(path: files[fileIndex], offset: offset, into: bytes)
      } catch { throw .io(error) }
    }
  }
}

extension TensorLoader {
  /// The value under `key`, in the first file that has it; nil where none has.
  ///
  /// - Throws: as ``value(of:)``.
  public func metadataValue(_ key: String) throws(LoaderError) -> MetadataValue? {
    guard let index = metadataIndex(of: key) else { return nil }
    return try value(of: metadata[index])
  }

  /// The number of the first entry under `key`.
  package func metadataIndex(of key: String) -> Int? {
    let key = ExactString(key)
    return metadata.firstIndex { ExactString($0.key) == key }
  }

  /// Reads a value. The memory that it takes is the caller's; reading it takes as much of the budget for a
  /// moment.
  ///
  /// - Throws: ``LoaderError/io(_:)``, ``LoaderError/tensorsInUse(wanted:free:limit:)``, and what every call may
  ///   throw.
  public func value(of entry: MetadataEntry) throws(LoaderError) -> MetadataValue {
    guard case .file(_, let type) = entry.place else { return entry.text }
    let memory = try allocate(byteCount: entry.byteCount)
    let bytes = UnsafeMutableRawBufferPointer(rebasing: memory.bytes[..<entry.byteCount])
    try read(entry, into: bytes)
    defer { extendLifetime(memory) }
    var reader = MetadataValueReader(bytes: UnsafeRawBufferPointer(bytes), type: type)
    guard entry.isArray else { return reader.plainValue() }
    return .array((0..<entry.count).map { _ in reader.element() })
  }

  /// Reads the ``MetadataEntry/byteCount`` bytes of a value into the caller's memory.
  package func read(
    _ entry: MetadataEntry, into bytes: UnsafeMutableRawBufferPointer
  ) throws(LoaderError) {
    try entry.read(files, into: bytes)
  }
}

/// Reads values one after the other; never past the end, whatever the file became meanwhile.
private struct MetadataValueReader {
  let bytes: UnsafeRawBufferPointer
  let type: GGUFMetadata.ValueType
  private var offset = 0
  /// Whether an element was asked for that ends after the bytes.
  private(set) var isPastEnd = false

  init(bytes: UnsafeRawBufferPointer, type: GGUFMetadata.ValueType) {
    self.bytes = bytes
    self.type = type
  }

  /// The only value: a text is all of the bytes.
  mutating func plainValue() -> MetadataValue {
    type == .string ? .string(String(decoding: bytes, as: UTF8.self)) : element()
  }

  /// The next element of an array.
  mutating func element() -> MetadataValue {
    switch type {
    case .uint8: .unsigned(UInt64(integer() as UInt8))
    case .uint16: .unsigned(UInt64(integer() as UInt16))
    case .uint32: .unsigned(UInt64(integer() as UInt32))
    case .uint64: .unsigned(integer())
    case .int8: .integer(Int64(integer() as Int8))
    case .int16: .integer(Int64(integer() as Int16))
    case .int32: .integer(Int64(integer() as Int32))
    case .int64: .integer(integer())
    case .float32: .float(Double(Float(bitPattern: integer())))
    case .float64: .float(Double(bitPattern: integer()))
    case .bool: .bool((integer() as UInt8) != 0)
    case .string, .array: .string(text())
    }
  }

  private mutating func integer<Value: FixedWidthInteger & BitwiseCopyable>() -> Value {
    let size = MemoryLayout<Value>.size
    guard bytes.count - offset >= size else {
      isPastEnd = true
      return 0
    }
    defer { offset += size }
    return Value(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
  }

  private mutating func text() -> String {
    let length = Int(clamping: integer() as UInt64)
    let end = offset + min(length, bytes.count - offset)
    if end - offset < length { isPastEnd = true }
    defer { offset = end }
    return String(decoding: bytes[offset..<end], as: UTF8.self)
  }
}
