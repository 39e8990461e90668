/// Python's `str.format`, as the sandbox runs it.
struct BraceFormat {
  private let interpreter: Interpreter
  private let text: MarkedText
  private let passed: Passed
  private var offset = 0
  private var nextArgument = 0
  /// Whether fields are numbered by the template; nil before the first.
  private var isNumbered: Bool?

  private init(_ interpreter: Interpreter, _ text: MarkedText, _ passed: Passed) {
    self.interpreter = interpreter
    self.text = text
    self.passed = passed
  }

  private var byte: UInt8 { offset < text.count ? text.bytes[offset] : 0 }

  static func format(
    _ text: MarkedText, _ passed: Passed, _ interpreter: Interpreter
  ) throws(JinjaError) -> MarkedText {
    var format = BraceFormat(interpreter, text, passed)
    var result = try format.run(level: 0)
    if format.offset < text.count { throw JinjaError(.value, "the format has a single '}'") }
    result.isSafe = text.isSafe
    return result
  }

  /// Formats up to the end, or inside a field's format up to its end.
  private mutating func run(level: Int) throws(JinjaError) -> MarkedText {
    var result = MarkedText()
    while offset < text.count {
      let (open, close) = (UInt8(ascii: "{"), UInt8(ascii: "}"))
      let isDouble = level == 0 && offset + 1 < text.count && text.bytes[offset + 1] == byte
      if byte == open, !isDouble {
        offset += 1
        let piece = try field(level: level)
        try interpreter.meter.copy(piece.count)
        result.append(piece)
      } else if byte == close, !isDouble {
        return result
      } else {
        let isBrace = byte == open || byte == close
        result.append(text, offset..<offset + 1)
        try interpreter.meter.copy(1)
        offset += isBrace ? 2 : 1
      }
    }
    return result
  }

  private mutating func field(level: Int) throws(JinjaError) -> MarkedText {
    if level > 1 { throw JinjaError(.value, "the format is nested too deep") }
    var value = try argument()
    while byte == UInt8(ascii: ".") || byte == UInt8(ascii: "[") {
      let isAttribute = byte == UInt8(ascii: ".")
      offset += 1
      let name = word(until: isAttribute ? ".[:!}" : "]")
      if isAttribute {
        value = try interpreter.attribute(name.string, of: value)
      } else {
        offset += 1
        let index = name.allScalars(\.isDecimal) ? Value.integer(digits: name.bytes) : nil
        value = try interpreter.item(index ?? .text(name), of: value)
      }
      try value.requireDefined()
    }
    let meter = interpreter.meter
    if byte == UInt8(ascii: "!") {
      let kind = offset + 1 < text.count ? text.bytes[offset + 1] : 0
      offset += 2
      switch kind {
      case UInt8(ascii: "r"), UInt8(ascii: "a"): value = .text(try value.repr(meter))
      case UInt8(ascii: "s"): value = .text(try value.string(meter))
      default: throw JinjaError(.value, "the format has an unknown conversion")
      }
    }
    var specification = MarkedText()
    if byte == UInt8(ascii: ":") {
      offset += 1
      specification = try run(level: level + 1)
    }
    guard byte == UInt8(ascii: "}") else {
      throw JinjaError(.value, "the format has a field without end")
    }
    offset += 1
    return try piece(value, specification)
  }

  private mutating func word(until ends: String) -> MarkedText {
    let start = offset
    while offset < text.count, !ends.utf8.contains(byte) { offset += 1 }
    return text[start..<offset]
  }

  private mutating func argument() throws(JinjaError) -> Value {
    let name = word(until: ".[:!}")
    let number = name.allScalars(\.isDecimal) ? Int(name.string) : nil
    if name.isEmpty || number != nil {
      if let isNumbered, isNumbered == name.isEmpty {
        throw JinjaError(.value, "the format numbers some fields and not others")
      }
      isNumbered = !name.isEmpty
      let index = number ?? nextArgument
      nextArgument += 1
      guard index < passed.positional.count else {
        throw JinjaError(.value, "not enough values for the format")
      }
      return passed.positional[index]
    }
    guard let value = passed.named.last(where: { $0.name == name.string })?.value else {
      throw JinjaError(.value, "the format names '\(name.string)', which is not given")
    }
    return value
  }

  private func piece(
    _ value: Value, _ specification: MarkedText
  ) throws(JinjaError) -> MarkedText {
    let meter = interpreter.meter
    if specification.isEmpty {
      let piece = try value.string(meter)
      return try text.isSafe ? (value.text?.isSafe ?? false ? piece : piece.escaped(meter)) : piece
    }
    try meter.hold(specification.count)
    var field = try Self.field(specification)
    switch value {
    case .integer, .wide:
      guard let number = value.number, let wide = number.wide else { break }
      if let type = field.type, "eEfFgG%".contains(type) {
        return try field.text(number.double, meter)
      }
      if field.type == "n" { field.type = "d" }
      if field.precision == nil, field.type.map({ "dxXob".contains($0) }) ?? true {
        return try field.text(wide, meter)
      }
    case .float(let number):
      if field.type.map({ "eEfFgG%".contains($0) }) ?? true { return try field.text(number, meter) }
    case .text(let given):
      guard field.type ?? "s" == "s", field.alignment != .afterSign else { break }
      var piece = try text.isSafe ? given.escaped(meter) : given
      if let precision = field.precision {
        let offsets = piece.characterOffsets
        piece = piece[0..<offsets[min(precision, offsets.count - 1)]]
      }
      return try field.padded(piece, isNumber: false, meter)
    default: break
    }
    throw JinjaError(.value, "the format does not fit a value of type '\(value.typeName)'")
  }

  /// Reads `[[fill]align][sign][#][0][width][,][.precision][type]`.
  private static func field(_ text: MarkedText) throws(JinjaError) -> FieldFormat {
    var field = FieldFormat()
    var characters = text.characters[...]
    func alignment(_ character: MarkedText?) -> FieldFormat.Alignment? {
      switch character?.string {
      case "<": .left
      case ">": .right
      case "^": .center
      case "=": .afterSign
      default: nil
      }
    }
    if let second = characters.dropFirst().first, let given = alignment(second) {
      field.fill = characters.first
      field.alignment = given
      characters = characters.dropFirst(2)
    } else if let given = alignment(characters.first) {
      field.alignment = given
      characters = characters.dropFirst()
    }
    func skip(_ choices: String) -> String? {
      guard let first = characters.first?.string, first.count == 1, choices.contains(first) else {
        return nil
      }
      characters = characters.dropFirst()
      return first
    }
    if let sign = skip("+- ") { field.sign = sign == "-" ? "" : sign }
    field.isAlternate = skip("#") != nil
    if skip("0") != nil, field.alignment == nil {
      field.fill = MarkedText("0")
      field.alignment = .afterSign
    }
    func number() throws(JinjaError) -> Int? {
      var value: Int?
      while let digit = skip("0123456789") {
        value = (value ?? 0) * 10 + (Int(digit) ?? 0)
        if let value, value > FieldFormat.most {
          throw JinjaError(.limit, "the format is too wide")
        }
      }
      return value
    }
    field.width = try number() ?? 0
    field.grouping = skip(",_")
    if skip(".") != nil { field.precision = try number() }
    field.type = skip("bcdeEfFgGnosxX%").map { Character($0) }
    if !characters.isEmpty { throw JinjaError(.value, "the format specification is invalid") }
    return field
  }
}
