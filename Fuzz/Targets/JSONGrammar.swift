/// Says whether bytes are JSON by the grammar of RFC 8259 alone: a second opinion that keeps no values, has
/// no limits and reads nothing that the grammar does not have.
package struct JSONGrammar {
  private let bytes: UnsafeRawBufferPointer
  private var position = 0

  package static func accepts(_ bytes: UnsafeRawBufferPointer) -> Bool {
    var grammar = JSONGrammar(bytes: bytes)
    return grammar.acceptValue() && grammar.position == bytes.count
      && String(validating: bytes, as: UTF8.self) != nil
  }

  private init(bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

  private mutating func accept(_ scalar: Unicode.Scalar) -> Bool {
    guard next == UInt8(ascii: scalar) else { return false }
    position += 1
    return true
  }

  private mutating func skip(_ isSkipped: (UInt8) -> Bool) -> Int {
    let start = position
    while let byte = next, isSkipped(byte) { position += 1 }
    return position - start
  }

  private mutating func skipSpace() {
    _ = skip { $0 == 0x20 || $0 == 0x09 || $0 == 0x0A || $0 == 0x0D }
  }

  /// A value with the white space around it.
  private mutating func acceptValue() -> Bool {
    skipSpace()
    defer { skipSpace() }
    if accept("{") { return acceptList(endingWith: "}") { $0.acceptMember() } }
    if accept("[") { return acceptList(endingWith: "]") { $0.acceptValue() } }
    if accept("\"") { return acceptRestOfString() }
    for word in ["true", "false", "null"] as [StaticString] {
      let expected = UnsafeBufferPointer(start: word.utf8Start, count: word.utf8CodeUnitCount)
      if bytes[position...].starts(with: expected) {
        position += expected.count
        return true
      }
    }
    return acceptNumber()
  }

  private mutating func acceptList(
    endingWith end: Unicode.Scalar, of acceptElement: (inout JSONGrammar) -> Bool
  ) -> Bool {
    skipSpace()
    if accept(end) { return true }
    repeat {
      guard acceptElement(&self) else { return false }
    } while accept(",")
    return accept(end)
  }

  private mutating func acceptMember() -> Bool {
    skipSpace()
    guard accept("\""), acceptRestOfString() else { return false }
    skipSpace()
    return accept(":") && acceptValue()
  }

  private mutating func acceptRestOfString() -> Bool {
    while let byte = next, byte >= 0x20 {
      position += 1
      if byte == UInt8(ascii: "\"") { return true }
      if byte == UInt8(ascii: "\\"), !acceptRestOfEscape() { return false }
    }
    return false
  }

  private mutating func acceptRestOfEscape() -> Bool {
    guard let byte = next else { return false }
    position += 1
    if byte != UInt8(ascii: "u") { return "\"\\/bfnrt".utf8.contains(byte) }
    let end = position + 4
    while position < end {
      guard let digit = next, "0123456789abcdefABCDEF".utf8.contains(digit) else { return false }
      position += 1
    }
    return true
  }

  private mutating func acceptNumber() -> Bool {
    _ = accept("-")
    if !accept("0"), skipDigits() == 0 { return false }
    if accept("."), skipDigits() == 0 { return false }
    guard accept("e") || accept("E") else { return true }
    if !accept("+") { _ = accept("-") }
    return skipDigits() > 0
  }

  private mutating func skipDigits() -> Int { skip { (0x30...0x39).contains($0) } }
}
