/// Writes one JSON object to standard output piece by piece, so that a long one takes no memory.
public struct JSONPrinter {
  private var bytes: [UInt8] = []
  /// Whether a member or an element stands before the next one.
  private var needsComma = false

  private static let pieceByteCount = 1 << 14

  public init() { bytes.reserveCapacity(2 * Self.pieceByteCount) }

  /// Writes `{ … }`, as the value of `key` where one is given.
  public mutating func object(_ key: String? = nil, _ members: (inout JSONPrinter) -> Void) {
    nest(key, "{", "}", members)
  }

  /// Writes `[ … ]`, as the value of `key` where one is given.
  public mutating func array(_ key: String? = nil, _ elements: (inout JSONPrinter) -> Void) {
    nest(key, "[", "]", elements)
  }

  /// Writes a whole number.
  public mutating func number(_ key: String? = nil, _ value: some BinaryInteger) {
    begin(key)
    append(String(value))
  }

  /// Writes a number; `null` where it is none.
  public mutating func number(_ key: String? = nil, _ value: Double) {
    begin(key)
    append(value.isFinite ? "\(value)" : "null")
  }

  /// Writes `true` or `false`.
  public mutating func flag(_ key: String? = nil, _ value: Bool) {
    begin(key)
    append(value ? "true" : "false")
  }

  /// Writes valid UTF-8 as a string.
  public mutating func text(_ key: String? = nil, utf8 text: [UInt8]) {
    begin(key)
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
    flush(above: Self.pieceByteCount)
  }

  /// Ends the line and hands over what is left.
  public mutating func finish() {
    bytes.append(0x0A)
    flush(above: 0)
  }

  private mutating func nest(
    _ key: String?, _ open: String, _ close: String, _ inside: (inout JSONPrinter) -> Void
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
    if let key { append("\"\(key)\":") }
  }

  private mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }

  private mutating func flush(above byteCount: Int) {
    guard bytes.count > byteCount else { return }
    Terminal.print(bytes)
    bytes.removeAll(keepingCapacity: true)
  }
}
