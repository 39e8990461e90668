/// How a value is put into a text: sign, width, precision and so on.
struct FieldFormat {
  enum Alignment { case left, right, center, afterSign }

  var fill: MarkedText?
  var alignment: Alignment?
  /// What stands before numbers that are not negative.
  var sign = ""
  var isAlternate = false
  var grouping: String?
  var width = 0
  var precision: Int?
  /// The conversion; nil for the standard one of the type.
  var type: Character?

  /// The widest field and the highest precision.
  static let most = 100_000

  /// Pads a text that is not a number, or a number in digits with its sign.
  func padded(
    _ text: MarkedText, isNumber: Bool, _ meter: Meter
  ) throws(JinjaError) -> MarkedText {
    let missing = width - text.characterCount
    guard missing > 0 else { return text }
    let fill = try (fill ?? MarkedText(" ")).repeated(missing, meter)
    var result = MarkedText()
    switch alignment ?? (isNumber ? .right : .left) {
    case .left:
      result.append(text)
      result.append(fill)
    case .right:
      result.append(fill)
      result.append(text)
    case .center:
      let one = fill.count / missing
      result.append(fill, 0..<missing / 2 * one)
      result.append(text)
      result.append(fill, missing / 2 * one..<fill.count)
    case .afterSign:
      let start = text.bytes.first.map { "+- ".utf8.contains($0) } ?? false ? 1 : 0
      result.append(text, 0..<start)
      result.append(fill)
      result.append(text, start..<text.count)
    }
    return result
  }

  /// Writes an integer in a radix.
  func text(_ value: WideInteger, _ meter: Meter) throws(JinjaError) -> MarkedText {
    var digits: String
    let magnitude = value.isNegative ? -value : value
    switch type {
    case "x", "X", "o", "b":
      let radix = type == "o" ? 8 : type == "b" ? 2 : 16
      guard let small = magnitude.small else {
        throw JinjaError(.unsupported, "large integers are written in decimal only")
      }
      digits = String(small, radix: radix, uppercase: type == "X")
      if let precision, digits.count < precision {
        digits = String(repeating: "0", count: precision - digits.count) + digits
      }
      if isAlternate { digits = "0\(type ?? "x")" + digits }
    default:
      digits = magnitude.description
      if let precision, digits.count < precision {
        digits = String(repeating: "0", count: precision - digits.count) + digits
      }
      digits = grouped(digits)
    }
    return try padded(
      MarkedText((value.isNegative ? "-" : sign) + digits), isNumber: true, meter)
  }

  /// Writes a float.
  func text(_ value: Double, _ meter: Meter) throws(JinjaError) -> MarkedText {
    let isNegative = value.sign == .minus && !value.isNaN
    var digits: String
    let magnitude = value.magnitude
    if !magnitude.isFinite {
      digits = magnitude.isNaN ? "nan" : "inf"
    } else if type == "%" {
      digits = Decimal.text(magnitude * 100, "f", precision ?? 6) + "%"
    } else if let type, "eEfFgG".contains(type) {
      let conversion: Character = type == "F" ? "f" : type
      digits = Decimal.text(
        magnitude, conversion,
        conversion == "g" || conversion == "G" ? max(precision ?? 6, 1) : precision ?? 6)
    } else if let precision {
      digits = Decimal.text(magnitude, "g", max(precision, 1))
      if !digits.contains("."), !digits.contains("e") { digits += ".0" }
    } else {
      digits = magnitude.pythonDescription
    }
    return try padded(
      MarkedText((isNegative ? "-" : sign) + grouped(digits)), isNumber: true, meter)
  }

  /// Puts separators between groups of three digits before the point.
  private func grouped(_ digits: String) -> String {
    guard let grouping else { return digits }
    let whole = digits.prefix { $0.isNumber }
    var result = ""
    for (index, digit) in whole.enumerated() {
      if index > 0, (whole.count - index).isMultiple(of: 3) { result += grouping }
      result.append(digit)
    }
    return result + digits.dropFirst(whole.count)
  }
}

/// Python's `%` of a string.
struct PercentFormat {
  private let interpreter: Interpreter
  private let text: MarkedText

  init(_ interpreter: Interpreter, _ text: MarkedText) {
    self.interpreter = interpreter
    self.text = text
  }

  func format(_ value: Value) throws(JinjaError) -> MarkedText {
    var arguments = [value]
    if case .tuple(let sequence) = value { arguments = sequence.elements }
    var (next, usedName) = (0, false)
    var result = MarkedText()
    var (offset, start) = (0, 0)
    while offset < text.count {
      guard text.bytes[offset] == UInt8(ascii: "%") else {
        offset += 1
        continue
      }
      result.append(text, start..<offset)
      offset += 1
      var name: MarkedText?
      if offset < text.count, text.bytes[offset] == UInt8(ascii: "(") {
        guard let end = text.bytes[offset...].firstIndex(of: UInt8(ascii: ")")) else {
          throw JinjaError(.value, "the format has a name without end")
        }
        name = text[offset + 1..<end]
        offset = end + 1
      }
      func take() throws(JinjaError) -> Value {
        if let name {
          guard case .dictionary(let mapping) = value, let item = mapping[.text(name.bytes)] else {
            throw JinjaError(.type, "the format names '\(name.string)', which is not given")
          }
          usedName = true
          return item
        }
        guard next < arguments.count else {
          throw JinjaError(.type, "not enough values for the format")
        }
        next += 1
        return arguments[next - 1]
      }
      let (field, conversion) = try readField(&offset, take)
      start = offset
      if conversion == "%" {
        result.append(text, offset - 1..<offset)
      } else {
        let piece = try self.piece(take(), field, conversion)
        try interpreter.meter.copy(piece.count)
        result.append(piece)
      }
    }
    if next < arguments.count, !usedName {
      switch value {
      case .dictionary, .list: break
      default: throw JinjaError(.type, "not all values were used by the format")
      }
    }
    try interpreter.meter.copy(text.count)
    result.append(text, start..<text.count)
    result.isSafe = text.isSafe
    return result
  }

  /// Reads flags, width, precision and conversion.
  private func readField(
    _ offset: inout Int, _ take: () throws(JinjaError) -> Value
  ) throws(JinjaError) -> (FieldFormat, Character) {
    var field = FieldFormat()
    var isLeft = false
    var isZeros = false
    func byte() -> UInt8 { offset < text.count ? text.bytes[offset] : 0 }
    while "#0- +".utf8.contains(byte()), byte() != 0 {
      switch byte() {
      case UInt8(ascii: "#"): field.isAlternate = true
      case UInt8(ascii: "0"): isZeros = true
      case UInt8(ascii: "-"): isLeft = true
      case UInt8(ascii: "+"): field.sign = "+"
      default: if field.sign.isEmpty { field.sign = " " }
      }
      offset += 1
    }
    func number() throws(JinjaError) -> Int {
      if byte() == UInt8(ascii: "*") {
        offset += 1
        guard let value = try take().index, value.magnitude <= FieldFormat.most else {
          throw JinjaError(.type, "'*' of a format needs an integer that is not too large")
        }
        return value
      }
      var value = 0
      while (0x30...0x39).contains(byte()) {
        value = value * 10 + Int(byte() - 0x30)
        if value > FieldFormat.most { throw JinjaError(.limit, "the format is too wide") }
        offset += 1
      }
      return value
    }
    field.width = try number()
    if field.width < 0 {
      isLeft = true
      field.width = -field.width
    }
    if byte() == UInt8(ascii: ".") {
      offset += 1
      field.precision = max(0, try number())
    }
    while [UInt8(ascii: "h"), UInt8(ascii: "l"), UInt8(ascii: "L")].contains(byte()) { offset += 1 }
    let conversion = Character(Unicode.Scalar(byte()))
    guard offset < text.count, "diuoxXeEfFgGcrsa%".contains(conversion) else {
      throw JinjaError(.value, "the format has an unknown conversion")
    }
    offset += 1
    field.alignment = isLeft ? .left : .right
    if isZeros, !isLeft, !"crsa%".contains(conversion) {
      field.fill = MarkedText("0")
      field.alignment = .afterSign
    }
    return (field, conversion)
  }

  private func piece(
    _ value: Value, _ field: FieldFormat, _ conversion: Character
  ) throws(JinjaError) -> MarkedText {
    let meter = interpreter.meter
    var field = field
    switch conversion {
    case "s", "r", "a", "c":
      var piece =
        conversion == "s" || conversion == "c" ? try value.string(meter) : try value.repr(meter)
      if conversion == "c", let code = value.index {
        guard let scalar = UInt32(exactly: code).flatMap(Unicode.Scalar.init) else {
          throw JinjaError(.value, "'%c' needs a character")
        }
        piece = MarkedText(String(scalar))
      }
      if text.isSafe {
        piece = try (value.text?.isSafe ?? false ? piece.safe : piece).escaped(meter)
      }
      if let precision = field.precision {
        let offsets = piece.characterOffsets
        piece = piece[0..<offsets[min(precision, offsets.count - 1)]]
      }
      return try field.padded(piece, isNumber: false, meter)
    case "e", "E", "f", "F", "g", "G":
      guard let number = value.number else { break }
      field.type = conversion
      return try field.text(number.double, meter)
    default:
      guard let number = value.number else { break }
      field.type = "oxX".contains(conversion) ? conversion : "d"
      if let wide = number.wide { return try field.text(wide, meter) }
      guard field.type == "d", number.double.isFinite else { break }
      return try field.text(
        WideInteger(exactly: number.double.rounded(.towardZero)), meter)
    }
    throw JinjaError(.type, "'%\(conversion)' needs a number, not '\(value.typeName)'")
  }
}
