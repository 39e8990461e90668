/// Builds small GGUF files in memory, valid or not: any metadata, any tensors.
public struct TinyGGUF: Sendable {
  /// A metadata value with its GGUF type.
  public enum Value: Sendable {
    case uint8(UInt8)
    case uint16(UInt16)
    case uint32(UInt32)
    case int32(Int32)
    case uint64(UInt64)
    case float32(Float)
    case float64(Double)
    case bool(Bool)
    case string(String)
    case strings([[UInt8]])
    case int32s([Int32])
    case uint32s([UInt32])
    case float32s([Float])
    case bools([Bool])
    /// A type number and the bytes after it, for what must be refused.
    case raw(type: UInt32, bytes: [UInt8])
  }

  /// A tensor; `type` is a raw number so that unknown ones can be written too.
  public struct Tensor: Sendable {
    public var name: String
    public var type: UInt32
    public var dimensions: [UInt64]
    public var data: [UInt8]
    /// Overrides the offset in the data that the file states.
    public var statedOffset: UInt64?

    public init(name: String, type: UInt32, dimensions: [UInt64], data: [UInt8]) {
      self.name = name
      self.type = type
      self.dimensions = dimensions
      self.data = data
    }
  }

  public var version: UInt32 = 3
  /// Written as `general.alignment` when it is not 32.
  public var alignment = 32
  public var metadata: [(key: String, value: Value)]
  public var tensors: [Tensor]

  public init(metadata: [(key: String, value: Value)] = [], tensors: [Tensor] = []) {
    self.metadata = metadata
    self.tensors = tensors
  }

  /// The value of `key`; setting replaces it, appends it, or with nil removes it.
  public subscript(key: String) -> Value? {
    get { metadata.first { $0.key == key }?.value }
    set {
      let index = metadata.firstIndex { $0.key == key }
      switch (index, newValue) {
      case (let index?, let value?): metadata[index].value = value
      case (let index?, nil): metadata.remove(at: index)
      case (nil, let value?): metadata.append((key, value))
      case (nil, nil): break
      }
    }
  }

  /// The file, and where its structures end: useful places to truncate it.
  public struct Encoded: Sendable {
    public var bytes: [UInt8]
    /// Offsets after every field of the header, and after it.
    public var boundaries: [Int]
    /// Offsets of counts, lengths, types and offsets in the header, with their widths in bytes.
    public var integerFields: [(offset: Int, byteCount: Int)]
    /// Bytes before the data's padding.
    public var headerByteCount: Int
  }

  /// The file's bytes.
  public func bytes() -> [UInt8] { encode().bytes }

  /// The file's bytes with their structure.
  public func encode() -> Encoded {
    var writer = Writer()
    writer.raw(Array("GGUF".utf8))
    writer.integer(version)
    writer.integer(UInt64(tensors.count))
    var metadata = metadata
    if alignment != 32 { metadata.append(("general.alignment", .uint32(UInt32(alignment)))) }
    writer.integer(UInt64(metadata.count))
    for (key, value) in metadata {
      writer.string(Array(key.utf8))
      writer.value(value)
    }
    var offset = 0
    for tensor in tensors {
      writer.string(Array(tensor.name.utf8))
      writer.integer(UInt32(tensor.dimensions.count))
      for dimension in tensor.dimensions { writer.integer(dimension) }
      writer.integer(tensor.type)
      writer.integer(tensor.statedOffset ?? UInt64(offset))
      offset += (tensor.data.count + alignment - 1) / alignment * alignment
    }
    let headerByteCount = writer.bytes.count
    for tensor in tensors {
      writer.pad(to: alignment)
      writer.raw(tensor.data)
    }
    writer.pad(to: alignment)
    return Encoded(
      bytes: writer.bytes, boundaries: writer.boundaries, integerFields: writer.integerFields,
      headerByteCount: headerByteCount)
  }

  /// Appends fields and remembers where they are.
  private struct Writer {
    var bytes: [UInt8] = []
    var boundaries: [Int] = []
    var integerFields: [(offset: Int, byteCount: Int)] = []

    mutating func raw(_ content: [UInt8]) {
      bytes += content
      boundaries.append(bytes.count)
    }

    mutating func integer(_ value: some FixedWidthInteger) {
      let start = bytes.count
      withUnsafeBytes(of: value.littleEndian) { bytes += $0 }
      integerFields.append((start, bytes.count - start))
      boundaries.append(bytes.count)
    }

    mutating func string(_ content: [UInt8]) {
      integer(UInt64(content.count))
      raw(content)
    }

    mutating func pad(to alignment: Int) {
      let end = (bytes.count + alignment - 1) / alignment * alignment
      bytes += [UInt8](repeating: 0, count: end - bytes.count)
    }

    mutating func value(_ value: Value) {
      switch value {
      case .uint8(let value): scalar(0, value)
      case .uint16(let value): scalar(2, value)
      case .uint32(let value): scalar(4, value)
      case .int32(let value): scalar(5, value)
      case .float32(let value): scalar(6, value.bitPattern)
      case .bool(let value): scalar(7, UInt8(value ? 1 : 0))
      case .uint64(let value): scalar(10, value)
      case .float64(let value): scalar(12, value.bitPattern)
      case .string(let value):
        integer(UInt32(8))
        string(Array(value.utf8))
      case .strings(let values):
        arrayHead(8, values.count)
        for value in values { string(value) }
      case .int32s(let values): scalars(5, values)
      case .uint32s(let values): scalars(4, values)
      case .float32s(let values): scalars(6, values.map(\.bitPattern))
      case .bools(let values): scalars(7, values.map { UInt8($0 ? 1 : 0) })
      case .raw(let type, let content):
        integer(type)
        raw(content)
      }
    }

    private mutating func scalar(_ type: UInt32, _ value: some FixedWidthInteger) {
      integer(type)
      integer(value)
    }

    private mutating func arrayHead(_ type: UInt32, _ count: Int) {
      integer(UInt32(9))
      integer(type)
      integer(UInt64(count))
    }

    private mutating func scalars(_ type: UInt32, _ values: [some FixedWidthInteger]) {
      arrayHead(type, values.count)
      var content: [UInt8] = []
      for value in values { withUnsafeBytes(of: value.littleEndian) { content += $0 } }
      raw(content)
    }
  }
}
