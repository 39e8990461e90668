import TensorBasics

/// Writes one JSON value, piece by piece where it is handed on as it grows, so that a long one takes no memory.
///
/// What it writes is always JSON: numbers that JSON has not become `null`, and texts are UTF-8.
public struct JSONWriter {
  private var bytes: [UInt8] = []
  /// Whether a member or an element stands before the next one.
  private var needsComma = false
  /// Takes complete pieces; nil = all is kept.
  private let sink: (([UInt8]) -> Void)?

  private static let pieceByteCount = 1 << 14

  /// - Parameter sink: takes pieces of about 16 KiB, and with ``finish()`` the rest.
  public init(_ sink: @escaping ([UInt8]) -> Void) {
    self.sink = sink
    bytes.reserveCapacity(2 * Self.pieceByteCount)
  }

  private init() { sink = nil }

  /// One object with its final newline, for a file.
  public static func document(_ members: (inout JSONWriter) -> Void) -> [UInt8] {
    var writer = JSONWriter()
    writer.object(nil, members)
    writer.finish()
    return writer.bytes
  }

  /// One value, without a newline.
  package static func value(_ write: (inout JSONWriter) -> Void) -> [UInt8] {
    var writer = JSONWriter()
    write(&writer)
    return writer.bytes
  }

  /// Writes a value that was written before.
  package mutating func written(_ key: String? = nil, _ value: [UInt8]) {
    begin(key)
    bytes += value
    flush(above: Self.pieceByteCount)
  }

  /// Writes `{ … }`, as the value of `key` where one is given.
  public mutating func object(_ key: String? = nil, _ members: (inout JSONWriter) -> Void) {
    nest(key, "{", "}", members)
  }

  /// Writes `[ … ]`, as the value of `key` where one is given.
  public mutating func array(_ key: String? = nil, _ elements: (inout JSONWriter) -> Void) {
    nest(key, "[", "]", elements)
  }

  /// Writes an array with one element for each of `values`.
  public mutating func array<Values: Sequence>(
    _ key: String? = nil, of values: Values, _ element: (inout JSONWriter, Values.Element) -> Void
  ) {
    array(key) { list in for value in values { element(&list, value) } }
  }

  /// Writes `null`.
  public mutating func null(_ key: String? = nil) {
    begin(key)
    append("null")
  }

  /// Writes a whole number; `null` where there is none.
  public mutating func number(_ key: String? = nil, _ value: (some BinaryInteger)?) {
    begin(key)
    append(value.map { String($0) } ?? "null")
  }

  /// Writes a number; `null` where there is none, or none that JSON has: NaN and infinities.
  public mutating func number(_ key: String? = nil, _ value: Double?) {
    begin(key)
    guard let value, value.isFinite else { return append("null") }
    append(value == value.rounded() && value.magnitude < 0x1p53 ? "\(Int(value))" : "\(value)")
  }

  /// Writes a number with as few digits as tell it; `null` where JSON has none.
  package mutating func number(_ key: String? = nil, _ value: Float) {
    begin(key)
    append(value.isFinite ? "\(value)" : "null")
  }

  /// Writes `true` or `false`.
  public mutating func flag(_ key: String? = nil, _ value: Bool) {
    begin(key)
    append(value ? "true" : "false")
  }

  /// Writes a text, in which bytes of paths that are no characters are `\xff`; `null` where there is none.
  public mutating func text(_ key: String? = nil, _ text: String?) {
    guard let text else { return null(key) }
    self.text(key, utf8: Array(text.displayingPaths.utf8))
  }

  /// Writes valid UTF-8 as a string.
  public mutating func text(_ key: String? = nil, utf8 text: [UInt8]) {
    begin(key)
    appendString(text)
    flush(above: Self.pieceByteCount)
  }

  /// Ends the line and hands over what is left.
  public mutating func finish() {
    bytes.append(0x0A)
    flush(above: 0)
  }

  private mutating func nest(
    _ key: String?, _ open: String, _ close: String, _ inside: (inout JSONWriter) -> Void
  ) {
    begin(key)
    append(open)
    needsComma = false
    inside(&self)
    append(close)
    needsComma = true
    flush(above: Self.pieceByteCount)
  }

  private mutating func begin(_ key: String?) {
    if needsComma { append(",") }
    needsComma = true
    guard let key else { return }
    appendString(Array(key.utf8))
    append(":")
  }

  private mutating func appendString(_ text: [UInt8]) {
    bytes.append(0x22)
    for byte in text {
      switch byte {
      case 0x22: append("\\\"")
      case 0x5C: append("\\\\")
      case 0x0A: append("\\n")
      case 0x09: append("\\t")
      case 0..<0x20, 0x7F: append("\\u00" + (byte < 16 ? "0" : "") + String(byte, radix: 16))
      default: bytes.append(byte)
      }
    }
    bytes.append(0x22)
  }

  private mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }

  private mutating func flush(above byteCount: Int) {
    guard let sink, bytes.count > byteCount else { return }
    sink(bytes)
    bytes.removeAll(keepingCapacity: true)
  }
}
