/// Where each metadata value of a GGUF file lies in its header; the values stay there.
public struct GGUFMetadata: Sendable {
  /// GGUF's value types by their numbers.
  public enum ValueType: UInt32, Sendable {
    case uint8, int8, uint16, int16, uint32, int32, float32, bool, string, array, uint64, int64
    case float64

    /// Bytes of a value, or nil if they vary.
    public var byteCount: Int? {
      switch self {
      case .uint8, .int8, .bool: 1
      case .uint16, .int16: 2
      case .uint32, .int32, .float32: 4
      case .uint64, .int64, .float64: 8
      case .string, .array: nil
      }
    }
  }

  /// One key and where its value lies.
  public struct Entry: Sendable {
    /// Bytes of the key in the header.
    public let key: Range<Int>
    /// Type of the value, or of the array's elements.
    public let type: ValueType
    public let isArray: Bool
    /// Elements of an array; 1 for a plain value.
    public let count: Int
    /// Bytes of the value: of a string its characters, of an array all elements (for strings with
    /// their lengths).
    public let value: Range<Int>
  }

  /// In the order of the file.
  public private(set) var entries: [Entry] = []
  private var index = ByteKeyIndex()

  public var count: Int { entries.count }

  /// Adds `entry`, unless its key is there already.
  mutating func append(_ entry: Entry, in header: UnsafeRawBufferPointer) -> Bool {
    guard index.insert(entry.key, in: header) else { return false }
    entries.append(entry)
    return true
  }

  /// The entry whose key is `key`, where `header` is what the file was parsed from.
  public func entry(_ key: String, in header: UnsafeRawBufferPointer) -> Entry? {
    var key = key
    let found = key.withUTF8 { index.find(UnsafeRawBufferPointer($0), in: header) }
    return found.map { entries[$0] }
  }
}
