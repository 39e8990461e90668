/// Tokens inside tags.
extension Lexer {
  private static let symbols = [
    "==", "!=", ">=", "<=", "//", "**", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",", ";",
  ]

  mutating func readToken() throws(JinjaError) {
    let (scalar, length) = source.scalar(at: offset)
    guard let scalar else {
      throw JinjaError(.syntax, "the template is not UTF-8 here", at: offset)
    }
    if scalar.isPythonSpace {
      offset += length
    } else if ("0"..."9").contains(scalar) {
      try readNumber()
    } else if scalar == "_" || scalar.properties.isXIDStart {
      readName()
    } else if scalar == "'" || scalar == "\"" {
      try readString()
    } else {
      try readSymbol()
    }
  }

  private mutating func readName() {
    let start = offset
    while offset < source.count {
      let (scalar, length) = source.scalar(at: offset)
      guard let scalar, scalar == "_" || scalar.properties.isXIDContinue else { break }
      offset += length
    }
    add(.name(String(decoding: source[start..<offset], as: UTF8.self)), at: start)
  }

  private mutating func readSymbol() throws(JinjaError) {
    guard let symbol = Self.symbols.first(where: { source.has(Array($0.utf8), at: offset) }) else {
      throw JinjaError(.syntax, "unexpected character", at: offset)
    }
    let byte = source[offset]
    if let closing = Self.closing(byte) {
      brackets.append(closing)
    } else if ")]}".utf8.contains(byte), brackets.popLast() != byte {
      throw JinjaError(.syntax, "unexpected '\(symbol)'", at: offset)
    }
    add(.symbol(symbol), at: offset)
    offset += symbol.utf8.count
  }

  private static func closing(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "("): UInt8(ascii: ")")
    case UInt8(ascii: "["): UInt8(ascii: "]")
    case UInt8(ascii: "{"): UInt8(ascii: "}")
    default: nil
    }
  }

  /// The end of digits that may have single underscores between them, or `start`.
  private func digitsEnd(from start: Int, radix: Int = 10) -> Int {
    var (end, index) = (start, start)
    while index < source.count {
      if Character(Unicode.Scalar(source[index])).hexDigitValue.map({ $0 < radix }) ?? false {
        index += 1
        end = index
      } else if source[index] == UInt8(ascii: "_"), index == end, index > start {
        index += 1
      } else {
        break
      }
    }
    return end
  }

  private mutating func readNumber() throws(JinjaError) {
    let start = offset
    let isAfterDot = start > 0 && source[start - 1] == UInt8(ascii: ".")
    let whole = digitsEnd(from: start)
    if !isAfterDot {
      var end = whole
      if has(".", at: end) {
        let fraction = digitsEnd(from: end + 1)
        if fraction > end + 1 { end = fraction }
      }
      if has("e", at: end) || has("E", at: end) {
        let signed = has("+", at: end + 1) || has("-", at: end + 1) ? end + 2 : end + 1
        let exponent = digitsEnd(from: signed)
        if exponent > signed { end = exponent }
      }
      if end > whole {
        let text = String(decoding: source[start..<end].filter { $0 != 0x5F }, as: UTF8.self)
        add(.float(Double(text) ?? 0), at: start)
        offset = end
        return
      }
    }
    try readInteger(start, whole)
  }

  private mutating func readInteger(_ start: Int, _ whole: Int) throws(JinjaError) {
    let radix: (UInt8) -> Int? = { letter in
      switch letter | 0x20 {
      case UInt8(ascii: "x"): 16
      case UInt8(ascii: "o"): 8
      case UInt8(ascii: "b"): 2
      default: nil
      }
    }
    if source[start] == 0x30, start + 1 < source.count, let radix = radix(source[start + 1]) {
      let from = has("_", at: start + 2) ? start + 3 : start + 2
      let end = digitsEnd(from: from, radix: radix)
      if end > from {
        var value = WideInteger(0)
        for byte in source[from..<end] where byte != 0x5F {
          let digit = Character(Unicode.Scalar(byte)).hexDigitValue ?? 0
          value = value * WideInteger(radix) + WideInteger(digit)
        }
        add(.integer(value), at: start)
        offset = end
        return
      }
    }
    // A number does not begin with zeros: they are one of their own.
    var end = whole
    if source[start] == 0x30 {
      end = start + source[start..<whole].prefix { $0 == 0x30 || $0 == 0x5F }.count
      if source[end - 1] == 0x5F { end -= 1 }
    }
    if end - start > 4300 { throw JinjaError(.limit, "the number has too many digits", at: start) }
    guard let value = WideInteger(source[start..<end].filter { $0 != 0x5F }) else {
      throw JinjaError(.syntax, "not a number", at: start)
    }
    add(.integer(value), at: start)
    offset = end
  }

  private mutating func readString() throws(JinjaError) {
    let (start, quote) = (offset, source[offset])
    var text: [UInt8] = []
    var index = start + 1
    while index < source.count, source[index] != quote {
      if source[index] == UInt8(ascii: "\\") {
        index = try readEscape(at: index, &text)
      } else {
        text.append(source[index])
        index += 1
      }
    }
    guard index < source.count else {
      throw JinjaError(.syntax, "the string has no end", at: start)
    }
    offset = index + 1
    add(.string(text), at: start)
  }

  /// Appends what an escape sequence stands for and returns where it ends: Python's `unicode-escape`.
  private func readEscape(at start: Int, _ text: inout [UInt8]) throws(JinjaError) -> Int {
    guard start + 1 < source.count else { return start + 1 }
    let letter = source[start + 1]
    let simple: [UInt8: UInt8] = [
      UInt8(ascii: "n"): 0x0A, UInt8(ascii: "t"): 0x09, UInt8(ascii: "r"): 0x0D,
      UInt8(ascii: "a"): 0x07, UInt8(ascii: "b"): 0x08, UInt8(ascii: "f"): 0x0C,
      UInt8(ascii: "v"): 0x0B, UInt8(ascii: "\\"): 0x5C, UInt8(ascii: "'"): 0x27,
      UInt8(ascii: "\""): 0x22,
    ]
    if let byte = simple[letter] {
      text.append(byte)
      return start + 2
    }
    let length: Int
    switch letter {
    case 0x0A: return start + 2
    case UInt8(ascii: "x"): length = 2
    case UInt8(ascii: "u"): length = 4
    case UInt8(ascii: "U"): length = 8
    case 0x30...0x37:
      let digits = source[(start + 1)...].prefix(3).prefix { (0x30...0x37).contains($0) }
      let value = digits.reduce(UInt32(0)) { $0 * 8 + UInt32($1 - 0x30) }
      text += String(Unicode.Scalar(value) ?? " ").utf8
      return start + 1 + digits.count
    case UInt8(ascii: "N"):
      throw JinjaError(.unsupported, "characters by name are not supported", at: start)
    default:
      text += [0x5C]
      return start + 1
    }
    let digits = source[min(start + 2, source.count)...].prefix(length)
    guard digits.count == length,
      let value = UInt32(String(decoding: digits, as: UTF8.self), radix: 16),
      digits.first != UInt8(ascii: "+"), let scalar = Unicode.Scalar(value)
    else { throw JinjaError(.syntax, "the escape sequence names no character", at: start) }
    text += String(scalar).utf8
    return start + 2 + length
  }
}
