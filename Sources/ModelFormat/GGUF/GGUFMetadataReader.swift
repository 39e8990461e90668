public import TensorBasics

/// Typed access to a GGUF file's metadata while its header is in memory.
///
/// Every method returns nil if the key is missing and throws ``FormatError`` (with the value's byte
/// offset) where its value has another type or range. Arrays are copied element by element; none is
/// longer than the header it lies in.
public struct GGUFMetadataReader {
  public let file: GGUFFile
  private let header: UnsafeRawBufferPointer

  /// - Parameter header: The bytes `file` was parsed from; must outlive the reader.
  public init(_ file: GGUFFile, header: UnsafeRawBufferPointer) {
    precondition(header.count >= file.headerByteCount, "not the header this file was parsed from")
    self.file = file
    self.header = header
  }

  /// The entry of `key`, whatever its type.
  public func entry(_ key: String) -> GGUFMetadata.Entry? {
    file.metadata.entry(key, in: header)
  }

  /// A text that is only shown to people: bytes that are not UTF-8 are taken as Latin-1.
  ///
  /// - Throws: ``FormatError`` if the value is no string.
  public func label(_ key: String) throws(FormatError) -> String? {
    guard let entry = entry(key) else { return nil }
    guard entry.type == .string, !entry.isArray else { throw wrongType(key, entry, "a string") }
    let bytes = header[entry.value]
    if let text = String(validating: bytes, as: UTF8.self) { return text }
    return String(String.UnicodeScalarView(bytes.map { Unicode.Scalar($0) }))
  }

  /// A string.
  public func string(_ key: String) throws(FormatError) -> String? {
    guard let entry = entry(key) else { return nil }
    guard entry.type == .string, !entry.isArray else { throw wrongType(key, entry, "a string") }
    guard let text = String(validating: header[entry.value], as: UTF8.self) else {
      throw error(.malformed, entry, "\"\(key)\" is not UTF-8")
    }
    return text
  }

  /// A non-negative integer of any width.
  public func integer(_ key: String) throws(FormatError) -> Int? {
    guard let entry = entry(key) else { return nil }
    guard !entry.isArray else { throw wrongType(key, entry, "an integer") }
    return try integer(key, entry, 0)
  }

  /// A non-negative integer, or an array of `count` of them whose elements are all the same.
  public func uniformInteger(_ key: String, count: Int) throws(FormatError) -> Int? {
    guard let entry = entry(key), entry.isArray else { return try integer(key) }
    guard entry.count == count, count > 0 else {
      throw error(.malformed, entry, "\"\(key)\" has \(entry.count) elements, not \(count)")
    }
    let first = try integer(key, entry, 0)
    for index in 1..<count where try integer(key, entry, index) != first {
      throw error(
        .unsupported, entry, "\"\(key)\" differs between layers, which is not supported")
    }
    return first
  }

  /// For each of `count` layers whether its element of an array is 0, and what all others are; nil for no array.
  func integersOrZeros(
    _ key: String, count: Int
  ) throws(FormatError) -> (value: Int, areZero: [Bool])? {
    guard let entry = entry(key), entry.isArray else { return nil }
    guard entry.count == count, count > 0 else {
      throw error(.malformed, entry, "\"\(key)\" has \(entry.count) elements, not \(count)")
    }
    var (value, areZero) = (0, [Bool]())
    for index in 0..<count {
      let element = try integer(key, entry, index)
      areZero.append(element == 0)
      guard element != 0 else { continue }
      guard value == 0 || value == element else {
        throw error(
          .unsupported, entry, "\"\(key)\" has \(value) and \(element), which is not supported")
      }
      value = element
    }
    return (value, areZero)
  }

  /// `count` non-negative integers, one a layer: an array of them, or one that holds for all.
  public func integers(_ key: String, count: Int) throws(FormatError) -> [Int]? {
    guard let entry = entry(key) else { return nil }
    guard entry.isArray else {
      return try integer(key).map { Array(repeating: $0, count: count) }
    }
    guard entry.count == count else {
      throw error(.malformed, entry, "\"\(key)\" has \(entry.count) elements, not \(count)")
    }
    var values: [Int] = []
    values.reserveCapacity(count)
    for index in 0..<count { values.append(try integer(key, entry, index)) }
    return values
  }

  /// A float of either width.
  public func float(_ key: String) throws(FormatError) -> Double? {
    guard let entry = entry(key) else { return nil }
    switch (entry.type, entry.isArray) {
    case (.float32, false): return Double(Float(bitPattern: load(entry, 0)))
    case (.float64, false): return Double(bitPattern: load(entry, 0))
    default: throw wrongType(key, entry, "a float")
    }
  }

  /// A boolean.
  public func bool(_ key: String) throws(FormatError) -> Bool? {
    guard let entry = entry(key) else { return nil }
    guard entry.type == .bool, !entry.isArray else { throw wrongType(key, entry, "a boolean") }
    return header[entry.value.lowerBound] != 0
  }

  /// An array of booleans; an integer other than 0 counts as true.
  public func bools(_ key: String) throws(FormatError) -> [Bool]? {
    guard let entry = entry(key) else { return nil }
    guard entry.isArray else { throw wrongType(key, entry, "an array of booleans") }
    if entry.type == .bool { return header[entry.value].map { $0 != 0 } }
    var values: [Bool] = []
    values.reserveCapacity(entry.count)
    for index in 0..<entry.count { values.append(try integer(key, entry, index) != 0) }
    return values
  }

  /// An array of 32-bit floats.
  public func floats(_ key: String) throws(FormatError) -> [Float]? {
    guard let entry = entry(key) else { return nil }
    guard entry.isArray, entry.type == .float32 else {
      throw wrongType(key, entry, "an array of 32-bit floats")
    }
    return (0..<entry.count).map { Float(bitPattern: load(entry, $0)) }
  }

  /// An array of integers from 0 to 255 of any width.
  public func smallIntegers(_ key: String) throws(FormatError) -> [UInt8]? {
    guard let entry = entry(key) else { return nil }
    guard entry.isArray else { throw wrongType(key, entry, "an array of integers") }
    var values: [UInt8] = []
    values.reserveCapacity(entry.count)
    for index in 0..<entry.count {
      guard let value = UInt8(exactly: try integer(key, entry, index)) else {
        throw error(.malformed, entry, "element \(index) of \"\(key)\" is over 255")
      }
      values.append(value)
    }
    return values
  }

  /// An array of strings, as bytes.
  public func strings(_ key: String) throws(FormatError) -> PackedStrings? {
    guard let entry = entry(key) else { return nil }
    guard entry.isArray, entry.type == .string else {
      throw wrongType(key, entry, "an array of strings")
    }
    var strings = PackedStrings()
    strings.reserveCapacity(strings: entry.count, bytes: entry.value.count - 8 * entry.count)
    var offset = entry.value.lowerBound
    for _ in 0..<entry.count {
      let length = header.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
      let start = offset + 8
      offset = start + Int(UInt64(littleEndian: length))
      strings.append(UnsafeRawBufferPointer(rebasing: header[start..<offset]))
    }
    return strings
  }

  /// An error at the value of `key`, or without offset where the key is missing.
  public func error(_ kind: FormatError.Kind, key: String, _ message: String) -> FormatError {
    FormatError(kind, at: entry(key)?.value.lowerBound, path: file.path, message)
  }

  // MARK: Elements

  private func load<Value: FixedWidthInteger & BitwiseCopyable>(
    _ entry: GGUFMetadata.Entry, _ index: Int
  ) -> Value {
    let offset = entry.value.lowerBound + index * MemoryLayout<Value>.size
    return Value(littleEndian: header.loadUnaligned(fromByteOffset: offset, as: Value.self))
  }

  private func integer(
    _ key: String, _ entry: GGUFMetadata.Entry, _ index: Int
  ) throws(FormatError) -> Int {
    let value: Int?
    switch entry.type {
    case .uint8: value = Int(load(entry, index) as UInt8)
    case .int8: value = Int(load(entry, index) as Int8)
    case .uint16: value = Int(load(entry, index) as UInt16)
    case .int16: value = Int(load(entry, index) as Int16)
    case .uint32: value = Int(load(entry, index) as UInt32)
    case .int32: value = Int(load(entry, index) as Int32)
    case .uint64: value = Int(exactly: load(entry, index) as UInt64)
    case .int64: value = Int(load(entry, index) as Int64)
    default: throw wrongType(key, entry, "an integer")
    }
    guard let value, value >= 0 else {
      throw error(.malformed, entry, "\"\(key)\" is negative or too large")
    }
    return value
  }

  private func error(
    _ kind: FormatError.Kind, _ entry: GGUFMetadata.Entry, _ message: String
  ) -> FormatError {
    FormatError(kind, at: entry.value.lowerBound, path: file.path, message)
  }

  private func wrongType(
    _ key: String, _ entry: GGUFMetadata.Entry, _ wanted: String
  ) -> FormatError {
    let found = entry.isArray ? "an array of \(entry.type)" : "of type \(entry.type)"
    return error(.malformed, entry, "\"\(key)\" is \(found), not \(wanted)")
  }
}
