/// Finds where a value of JSON ends, byte by byte: brackets and quotation marks that match.
struct JSONSpan: Sendable {
  enum Result { case more, end, bad, endedBefore }

  /// Open brackets: a bit each, 1 = an object.
  private var kinds: UInt64 = 0
  private var depth = 0
  private var isInString = false
  private var isEscaped = false
  /// Whether it is a number or a word, which ends before what is no part of it.
  private var isScalar = false

  mutating func take(_ byte: UInt8) -> Result {
    if isInString { return inString(byte) }
    if isScalar { return Self.isScalarByte(byte) ? .more : .endedBefore }
    switch byte {
    case UInt8(ascii: "\""): isInString = true
    case UInt8(ascii: "{"), UInt8(ascii: "["):
      guard depth < UInt64.bitWidth else { return .bad }
      kinds = kinds << 1 | (byte == UInt8(ascii: "{") ? 1 : 0)
      depth += 1
    case UInt8(ascii: "}"), UInt8(ascii: "]"):
      guard depth > 0, (kinds & 1 == 1) == (byte == UInt8(ascii: "}")) else { return .bad }
      kinds >>= 1
      depth -= 1
      return depth == 0 ? .end : .more
    default:
      guard depth == 0 else { break }
      guard Self.isScalarByte(byte) else { return .bad }
      isScalar = true
    }
    return .more
  }

  private mutating func inString(_ byte: UInt8) -> Result {
    if isEscaped {
      isEscaped = false
    } else if byte == UInt8(ascii: "\\") {
      isEscaped = true
    } else if byte == UInt8(ascii: "\"") {
      isInString = false
      return depth == 0 ? .end : .more
    }
    return .more
  }

  private static func isScalarByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "+"), UInt8(ascii: "-"),
      UInt8(ascii: "."):
      true
    default: false
    }
  }
}
