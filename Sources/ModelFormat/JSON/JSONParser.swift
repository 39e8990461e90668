/// Parses JSON (RFC 8259) from bytes; memory used is a small multiple of the document.
///
/// Python's `json`, which writes most of these documents, also writes `NaN` and `Infinity`, numbers
/// beyond all doubles and halves of surrogate pairs, and nests as deep as it likes. Those are
/// ``JSONValue/Content/unusable(_:)``: refused only where the value is needed.
package struct JSONParser {
  private let bytes: UnsafeRawBufferPointer
  /// Offset of `bytes` in the file, for errors.
  private let base: Int
  private let path: String
  private var position = 0
  /// Values nested deeper are stepped over: no model file needs them, and the stack is finite.
  private static let depthLimit = 64
  private static let excerptByteCount = 32

  /// Parses `bytes`, all of which must be one value and white space.
  ///
  /// - Throws: ``FormatError`` of kind `malformed` with the offset of what is wrong.
  package static func parse(
    _ bytes: UnsafeRawBufferPointer, at base: Int = 0, path: String
  ) throws(FormatError) -> JSONValue {
    var parser = JSONParser(bytes: bytes, base: base, path: path)
    if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { parser.position = 3 }
    let value = try parser.parseValue(depth: 0)
    parser.skipSpace()
    guard parser.position == bytes.count else { throw parser.error("text after the JSON value") }
    return value
  }

  private init(bytes: UnsafeRawBufferPointer, base: Int, path: String) {
    self.bytes = bytes
    self.base = base
    self.path = path
  }

  private func error(_ message: String, at position: Int? = nil) -> FormatError {
    let position = position ?? self.position
    return FormatError(
      .malformed, at: base + position, path: path,
      "not valid JSON: \(message) \(excerpt(at: position))")
  }

  /// The document's text from `position` on, as far as it helps to find the place.
  private func excerpt(at position: Int) -> String {
    let rest = bytes[position...]
    guard !rest.isEmpty else { return "where the document ends" }
    let line = rest.prefix(Self.excerptByteCount).prefix { $0 != 0x0A && $0 != 0x0D }
    // What is no text could do anything to a terminal.
    let text = String(decoding: line, as: UTF8.self).unicodeScalars.map {
      $0.properties.generalCategory == .control ? "\u{FFFD}" : Character($0)
    }
    return "at '\(String(text))\(line.count < rest.count ? "…" : "")'"
  }

  private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

  private mutating func skipSpace() {
    while let byte = next, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 {
      position += 1
    }
  }

  /// Steps over `byte` if it is next.
  private mutating func accept(_ byte: Unicode.Scalar) -> Bool {
    guard next == UInt8(ascii: byte) else { return false }
    position += 1
    return true
  }

  private mutating func parseValue(depth: Int) throws(FormatError) -> JSONValue {
    skipSpace()
    let start = position
    guard let byte = next else { throw error("a value is missing") }
    guard depth < Self.depthLimit else {
      try skipNested()
      return JSONValue(
        content: .unusable("nested more than \(Self.depthLimit) levels deep"),
        offset: base + start)
    }
    let content: JSONValue.Content
    switch byte {
    case UInt8(ascii: "{"): content = .object(try parseObject(depth: depth))
    case UInt8(ascii: "["): content = .array(try parseArray(depth: depth))
    case UInt8(ascii: "\""):
      content = try parseString().map { .string($0) } ?? .unusable("half a surrogate pair")
    case UInt8(ascii: "t"): content = try parseWord("true", .bool(true))
    case UInt8(ascii: "f"): content = try parseWord("false", .bool(false))
    case UInt8(ascii: "n"): content = try parseWord("null", .null)
    case UInt8(ascii: "N"): content = try parseWord("NaN", .unusable("NaN"))
    case UInt8(ascii: "I"): content = try parseWord("Infinity", .unusable("Infinity"))
    case UInt8(ascii: "-") where bytes[(position + 1)...].first == UInt8(ascii: "I"):
      content = try parseWord("-Infinity", .unusable("-Infinity"))
    default: content = try parseNumber()
    }
    return JSONValue(content: content, offset: base + start)
  }

  private mutating func parseWord(
    _ word: StaticString, _ content: JSONValue.Content
  ) throws(FormatError) -> JSONValue.Content {
    let expected = UnsafeBufferPointer(start: word.utf8Start, count: word.utf8CodeUnitCount)
    guard bytes[position...].starts(with: expected) else { throw error("an unknown word") }
    position += expected.count
    return content
  }

  /// Steps over a value without keeping it, however deep it is nested: its brackets and scalars are
  /// checked, not what separates them.
  private mutating func skipNested() throws(FormatError) {
    var closers: [UInt8] = []
    repeat {
      skipSpace()
      guard let byte = next else {
        throw error("brackets of more than \(Self.depthLimit) levels are not closed")
      }
      switch byte {
      case UInt8(ascii: "{"), UInt8(ascii: "["):
        // The closing bracket follows two later in ASCII.
        closers.append(byte + 2)
        position += 1
      case UInt8(ascii: "}"), UInt8(ascii: "]"):
        guard closers.popLast() == byte else { throw error("a closing bracket has no opening one") }
        position += 1
      case UInt8(ascii: ","), UInt8(ascii: ":"):
        guard !closers.isEmpty else { throw error("a value is missing") }
        position += 1
      case UInt8(ascii: "\""): _ = try parseString()
      default: _ = try parseValue(depth: 0)
      }
    } while !closers.isEmpty
  }

  private mutating func parseObject(depth: Int) throws(FormatError) -> [JSONMember] {
    position += 1
    var members: [JSONMember] = []
    skipSpace()
    if accept("}") { return members }
    while true {
      skipSpace()
      guard next == UInt8(ascii: "\"") else { throw error("a key is missing") }
      let (start, key) = (position, try parseString())
      skipSpace()
      guard accept(":") else { throw error("':' is missing") }
      let value = try parseValue(depth: depth + 1)
      // A key that is not a valid string has a value that cannot be asked for.
      members.append(
        key.map { JSONMember(key: $0, value: value) }
          ?? JSONMember(
            key: "\u{FFFD}",
            value: JSONValue(
              content: .unusable("what has half a surrogate pair as its key"), offset: base + start)
          ))
      skipSpace()
      if accept("}") { return members }
      guard accept(",") else { throw error("',' or '}' is missing") }
    }
  }

  private mutating func parseArray(depth: Int) throws(FormatError) -> [JSONValue] {
    position += 1
    var values: [JSONValue] = []
    skipSpace()
    if accept("]") { return values }
    while true {
      values.append(try parseValue(depth: depth + 1))
      skipSpace()
      if accept("]") { return values }
      guard accept(",") else { throw error("',' or ']' is missing") }
    }
  }

  /// Int and Double read more than JSON has, so its own grammar decides first: no zero in front of another
  /// digit, digits on both sides of a point and after an exponent's letter.
  private mutating func parseNumber() throws(FormatError) -> JSONValue.Content {
    let start = position
    _ = accept("-")
    let startsWithZero = next == 0x30
    let wholeCount = skipDigits()
    var isNumber = wholeCount == 1 || (wholeCount > 1 && !startsWithZero)
    if accept(".") { isNumber = skipDigits() > 0 && isNumber }
    if accept("e") || accept("E") {
      if !accept("+") { _ = accept("-") }
      isNumber = skipDigits() > 0 && isNumber
    }
    let isInteger = position - start == wholeCount + (bytes[start] == UInt8(ascii: "-") ? 1 : 0)
    let text = String(decoding: bytes[start..<position], as: UTF8.self)
    guard isNumber else { throw error("no value begins", at: start) }
    if let value = Int(text) { return .integer(value) }
    guard let value = Double(text), value.isFinite else {
      return .unusable("the number \(text.prefix(32))")
    }
    return isInteger ? .wideInteger(text) : .number(value)
  }

  /// Steps over decimal digits and returns how many there were.
  private mutating func skipDigits() -> Int {
    let start = position
    while let byte = next, (0x30...0x39).contains(byte) { position += 1 }
    return position - start
  }

  /// - Returns: the string; nil if it holds half a surrogate pair, which no `String` does.
  private mutating func parseString() throws(FormatError) -> String? {
    position += 1
    let start = position
    while let byte = next, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte >= 0x20 {
      position += 1
    }
    guard next == UInt8(ascii: "\\") else {
      let range = start..<position
      guard accept("\"") else { throw error("a string does not end") }
      return try text(bytes[range], at: start)
    }
    var unescaped = [UInt8](bytes[start..<position])
    var isText = true
    while let byte = next, byte >= 0x20 {
      position += 1
      switch byte {
      case UInt8(ascii: "\""): return isText ? try text(unescaped, at: start) : nil
      case UInt8(ascii: "\\"): if try !parseEscape(into: &unescaped) { isText = false }
      default: unescaped.append(byte)
      }
    }
    throw error("a string does not end")
  }

  private func text(
    _ bytes: some Sequence<UInt8>, at start: Int
  ) throws(FormatError) -> String {
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw error("a string is not UTF-8", at: start)
    }
    return text
  }

  /// - Returns: whether it stands for a character, or for half of one.
  private mutating func parseEscape(into output: inout [UInt8]) throws(FormatError) -> Bool {
    guard let byte = next else { throw error("a string does not end") }
    position += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): output.append(byte)
    case UInt8(ascii: "b"): output.append(0x08)
    case UInt8(ascii: "f"): output.append(0x0C)
    case UInt8(ascii: "n"): output.append(0x0A)
    case UInt8(ascii: "r"): output.append(0x0D)
    case UInt8(ascii: "t"): output.append(0x09)
    case UInt8(ascii: "u"):
      var value = UInt32(try parseUnit())
      if (0xD800..<0xDC00).contains(value) {
        let end = position
        guard accept("\\"), accept("u") else {
          position = end
          return false
        }
        let second = UInt32(try parseUnit())
        guard (0xDC00..<0xE000).contains(second) else {
          // It stands for itself.
          position = end
          return false
        }
        value = 0x10000 + (value - 0xD800) << 10 + (second - 0xDC00)
      }
      guard let scalar = Unicode.Scalar(value) else { return false }
      output.append(contentsOf: UTF8.encode(scalar)!)
    default: throw error("an unknown escape", at: position - 1)
    }
    return true
  }

  /// Four hexadecimal digits.
  private mutating func parseUnit() throws(FormatError) -> UInt16 {
    guard bytes.count - position >= 4,
      let value = UInt16(
        String(decoding: bytes[position..<position + 4], as: UTF8.self), radix: 16),
      bytes[position] != 0x2B, bytes[position] != 0x2D
    else { throw error("\\u without four digits") }
    position += 4
    return value
  }
}
