extension Value {
  /// It as JSON in one line, as text whose data stays marked.
  package func json() throws(JinjaError) -> Value {
    var writer = JSONText(
      isASCII: false, indent: nil, separators: nil, sortsKeys: false,
      Meter(Limits(templateByteCount: 0, inputByteCount: 1 << 24)))
    try writer.write(self)
    return .text(writer.out)
  }
}

/// Python's `json.dumps`, as transformers' `tojson` calls it.
struct JSONText {
  let meter: Meter
  let isASCII: Bool
  /// What a level is indented by; nil for one line.
  let indent: MarkedText?
  let itemSeparator: MarkedText
  let keySeparator: MarkedText
  let sortsKeys: Bool
  private(set) var out = MarkedText()

  init(
    isASCII: Bool, indent: MarkedText?, separators: (item: MarkedText, key: MarkedText)?,
    sortsKeys: Bool, _ meter: Meter
  ) {
    self.meter = meter
    self.isASCII = isASCII
    self.indent = indent
    itemSeparator = separators?.item ?? MarkedText(indent == nil ? ", " : ",")
    keySeparator = separators?.key ?? MarkedText(": ")
    self.sortsKeys = sortsKeys
  }

  /// - Throws: `JinjaError` for values that JSON does not have.
  mutating func write(_ value: Value, level: Int = 0) throws(JinjaError) {
    try meter.step()
    let before = out.count
    switch value {
    case .null: out.append("null")
    case .bool(let value): out.append(value ? "true" : "false")
    case .integer(let value): out.append(String(value))
    case .wide(let value): out.append(value.integer.description)
    case .float(let value): out.append(Self.number(value))
    case .text(let text): write(text)
    case .list(let sequence), .tuple(let sequence):
      try write(sequence.elements, level)
      return
    case .dictionary(let mapping):
      try write(mapping, level)
      return
    default:
      throw JinjaError(.type, "a value of type '\(value.typeName)' cannot be written as JSON")
    }
    try meter.copy(out.count - before)
  }

  private static func number(_ value: Double) -> String {
    value.isNaN
      ? "NaN"
      : value.isInfinite
        ? (value < 0 ? "-Infinity" : "Infinity")
        : value.pythonDescription
  }

  private mutating func write(_ elements: [Value], _ level: Int) throws(JinjaError) {
    out.append("[")
    for (number, element) in elements.enumerated() {
      try separate(number, level)
      try write(element, level: level + 1)
    }
    try close("]", isEmpty: elements.isEmpty, level)
  }

  private mutating func write(_ mapping: Mapping, _ level: Int) throws(JinjaError) {
    out.append("{")
    var number = 0
    func write(_ key: Value, _ value: Value) throws(JinjaError) {
      try separate(number, level)
      try writeKey(key)
      try append(keySeparator)
      try self.write(value, level: level + 1)
      number += 1
    }
    if sortsKeys {
      let items = try mapping.elements(.items, meter)
      for item in try Value.sorted(zip(items, items).map { ($0, $1) }, isReversed: false, meter) {
        guard case .tuple(let pair) = item else { continue }
        try write(pair.elements[0], pair.elements[1])
      }
    } else {
      for (key, value) in mapping.pairs { try write(key, value) }
    }
    try close("}", isEmpty: number == 0, level)
  }

  private mutating func writeKey(_ key: Value) throws(JinjaError) {
    switch key {
    case .text(let text):
      try meter.copy(text.count + 2)
      write(text)
    case .null: out.append("\"null\"")
    case .bool(let value): out.append(value ? "\"true\"" : "\"false\"")
    case .integer(let value): out.append("\"\(value)\"")
    case .wide(let value): out.append("\"\(value.integer.description)\"")
    case .float(let value): out.append("\"" + Self.number(value) + "\"")
    default: throw JinjaError(.type, "keys of JSON must be strings, not '\(key.typeName)'")
    }
  }

  private mutating func separate(_ number: Int, _ level: Int) throws(JinjaError) {
    if number > 0 { try append(itemSeparator) }
    try newLine(level + 1)
  }

  private mutating func close(
    _ bracket: String, isEmpty: Bool, _ level: Int
  ) throws(JinjaError) {
    if !isEmpty { try newLine(level) }
    out.append(bracket)
    try meter.copy(2)
  }

  private mutating func newLine(_ level: Int) throws(JinjaError) {
    guard let indent else { return }
    out.append("\n")
    out.append(try indent.repeated(level, meter))
  }

  private mutating func append(_ text: MarkedText) throws(JinjaError) {
    try meter.copy(text.count)
    out.append(text)
  }

  private mutating func write(_ text: MarkedText) {
    out.append("\"")
    let isASCII = isASCII
    out.append(
      text.plain.mapScalars { scalar, _ in
        switch scalar {
        case "\"": return "\\\""
        case "\\": return "\\\\"
        case "\n": return "\\n"
        case "\r": return "\\r"
        case "\t": return "\\t"
        case "\u{8}": return "\\b"
        case "\u{c}": return "\\f"
        default:
          if scalar.value < 0x20 { return "\\u" + hex(scalar.value, 4) }
          guard isASCII, scalar.value > 0x7E else { return nil }
          return UTF16.encode(scalar).map { $0.map { "\\u" + hex($0, 4) }.joined() }
        }
      })
    out.append("\"")
  }
}
