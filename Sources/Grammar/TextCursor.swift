/// Reads the scalars of a grammar's or pattern's text, and knows where it is.
struct TextCursor {
  private let bytes: [UInt8]
  private(set) var offset = 0

  init(_ text: String) throws(GrammarError) {
    guard text.utf8.count <= GrammarLimits.sourceByteCount else {
      throw GrammarError("it is longer than \(GrammarLimits.sourceByteCount) bytes")
    }
    bytes = Array(text.utf8)
  }

  /// The scalar that comes next; nil at the end.
  var next: Unicode.Scalar? { scalar(at: offset)?.scalar }

  /// The scalar after the next.
  var afterNext: Unicode.Scalar? {
    scalar(at: offset).flatMap { scalar(at: offset + $0.count)?.scalar }
  }

  private func scalar(at offset: Int) -> (scalar: Unicode.Scalar, count: Int)? {
    guard offset < bytes.count else { return nil }
    if bytes[offset] < 0x80 { return (Unicode.Scalar(bytes[offset]), 1) }
    var decoder = UTF8()
    var iterator = bytes[offset...].prefix(4).makeIterator()
    guard case .scalarValue(let scalar) = decoder.decode(&iterator) else { return nil }
    return (scalar, UTF8.width(scalar))
  }

  mutating func take() -> Unicode.Scalar? {
    guard let found = scalar(at: offset) else { return nil }
    offset += found.count
    return found.scalar
  }

  /// Steps over `scalar` if it is next.
  mutating func accept(_ scalar: Unicode.Scalar) -> Bool {
    guard next == scalar else { return false }
    _ = take()
    return true
  }

  func error(_ reason: String, at offset: Int? = nil) -> GrammarError {
    GrammarError(reason, at: .offset(offset ?? self.offset))
  }

  mutating func expect(_ scalar: Unicode.Scalar) throws(GrammarError) {
    guard accept(scalar) else {
      throw error("'\(scalar)' is missing" + (next == nil ? " at the end" : ""))
    }
  }

  /// A number in decimal digits; nil where there is none.
  mutating func number() throws(GrammarError) -> Int? {
    let start = offset
    var value = 0
    while let digit = next, digit.isASCII, let number = Int(String(digit)) {
      value = value * 10 + number
      guard value <= GrammarLimits.edgeCount else {
        throw error("a count is above \(GrammarLimits.edgeCount)", at: start)
      }
      _ = take()
    }
    return offset > start ? value : nil
  }

  /// The scalar of so many hexadecimal digits.
  mutating func hexadecimal(_ count: Int) throws(GrammarError) -> UInt32 {
    let start = offset
    var value: UInt32 = 0
    for _ in 0..<count {
      guard let digit = next, digit.isASCII, let number = UInt32(String(digit), radix: 16) else {
        throw error("\(count) hexadecimal digits are missing")
      }
      value = value << 4 | number
      _ = take()
    }
    guard value <= 0x10FFFF else { throw error("it is beyond U+10FFFF", at: start) }
    return value
  }

  /// The bounds of `{m}`, `{m,}`, `{m,n}`, after its first brace.
  ///
  /// - Parameter start: where what is repeated begins, for errors.
  mutating func bounds() throws(GrammarError) -> (minimum: Int, maximum: Int?) {
    let start = offset
    let minimum = try number()
    var maximum = minimum
    if accept(",") {
      maximum = try number()
    } else if minimum == nil {
      throw error("a count is missing after '{'")
    }
    guard accept("}") else { throw error("'}' is missing after a count") }
    if let minimum, let maximum, maximum < minimum {
      throw error("the counts \(minimum) and \(maximum) are the wrong way round", at: start)
    }
    return (minimum ?? 0, maximum)
  }
}
