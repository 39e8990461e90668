extension Value {
  /// Python's `str()`.
  func string(_ meter: Meter) throws(JinjaError) -> MarkedText {
    switch self {
    case .undefined: return MarkedText()
    case .text(let text): return text.plain
    default: return try repr(meter)
    }
  }

  /// What jinja2's `soft_str` makes: texts stay what they are.
  func softString(_ meter: Meter) throws(JinjaError) -> MarkedText {
    if case .text(let text) = self { return text }
    return try string(meter)
  }

  /// Python's `repr()`.
  func repr(_ meter: Meter) throws(JinjaError) -> MarkedText {
    var text = MarkedText()
    try writeRepr(&text, meter)
    return text
  }

  /// - Parameter enclosing: namespaces that are being written: only they can hold what holds them.
  private func writeRepr(
    _ out: inout MarkedText, _ meter: Meter, in enclosing: [Namespace] = []
  ) throws(JinjaError) {
    try meter.step()
    let before = out.count
    switch self {
    case .undefined: out.append("Undefined")
    case .null: out.append("None")
    case .bool(let value): out.append(value ? "True" : "False")
    case .integer(let value): out.append(String(value))
    case .wide(let value): out.append(value.integer.description)
    case .float(let value): out.append(value.pythonDescription)
    case .text(let text):
      if text.isSafe { out.append("Markup(") }
      Self.writeRepr(text, &out)
      if text.isSafe { out.append(")") }
    case .list(let sequence):
      out.append("[")
      try Self.writeElements(sequence.elements, &out, meter, enclosing)
      out.append("]")
    case .tuple(let sequence):
      out.append("(")
      try Self.writeElements(sequence.elements, &out, meter, enclosing)
      out.append(sequence.elements.count == 1 ? ",)" : ")")
    case .dictionary(let mapping): try Self.writePairs(mapping.pairs, &out, meter, enclosing)
    case .view(let view, let mapping):
      out.append("dict_\(view)([")
      try Self.writeElements(mapping.elements(view, meter), &out, meter, enclosing)
      out.append("])")
    case .range(let range):
      out.append("range(\(range.start), \(range.stop)\(range.step == 1 ? "" : ", \(range.step)"))")
    case .namespace(let namespace):
      guard !enclosing.contains(where: { $0 === namespace }) else {
        out.append("<Namespace {...}>")
        break
      }
      guard enclosing.count < Limits.depth else {
        throw JinjaError(.limit, "namespaces inside namespaces are more than \(Limits.depth) deep")
      }
      out.append("<Namespace ")
      let pairs = namespace.names.map {
        (Value.text($0), namespace[$0.string] ?? .null)
      }
      try Self.writePairs(pairs, &out, meter, enclosing + [namespace])
      out.append(">")
    case .macro(let macro): out.append("<Macro '\(macro.definition.name)'>")
    case .loop, .generator, .cycler, .joiner, .method, .function: out.append("<\(typeName)>")
    }
    try meter.copy(out.count - before)
  }

  private static func writeElements(
    _ elements: [Value], _ out: inout MarkedText, _ meter: Meter, _ enclosing: [Namespace]
  ) throws(JinjaError) {
    for (number, element) in elements.enumerated() {
      if number > 0 { out.append(", ") }
      try element.writeRepr(&out, meter, in: enclosing)
    }
  }

  private static func writePairs(
    _ pairs: some Swift.Sequence<(Value, Value)>, _ out: inout MarkedText, _ meter: Meter,
    _ enclosing: [Namespace]
  ) throws(JinjaError) {
    out.append("{")
    for (number, pair) in pairs.enumerated() {
      if number > 0 { out.append(", ") }
      try pair.0.writeRepr(&out, meter, in: enclosing)
      out.append(": ")
      try pair.1.writeRepr(&out, meter, in: enclosing)
    }
    out.append("}")
  }

  /// A text in quotes: single ones, unless it has those and no double ones.
  private static func writeRepr(_ text: MarkedText, _ out: inout MarkedText) {
    let single = UInt8(ascii: "'")
    let quote =
      text.bytes.contains(single) && !text.bytes.contains(UInt8(ascii: "\"")) ? "\"" : "'"
    out.append(quote)
    out.append(
      text.plain.mapScalars { scalar, _ in
        switch scalar {
        case "\\": return "\\\\"
        case "'": return quote == "'" ? "\\'" : nil
        case "\n": return "\\n"
        case "\r": return "\\r"
        case "\t": return "\\t"
        default:
          if scalar.isPrintable { return nil }
          let value = scalar.value
          return value < 0x100
            ? "\\x" + hex(value, 2)
            : value < 0x10000 ? "\\u" + hex(value, 4) : "\\U" + hex(value, 8)
        }
      })
    out.append(quote)
  }
}

/// Hexadecimal digits, at least so many.
func hex(_ value: some BinaryInteger, _ width: Int) -> String {
  let digits = String(value, radix: 16)
  return String(repeating: "0", count: max(0, width - digits.count)) + digits
}

extension Double {
  /// The shortest digits that read back as this value, and the place of the decimal point among them.
  var shortestDigits: (digits: [UInt8], point: Int) {
    var (digits, point, exponent) = ([UInt8](), Int?(nil), 0)
    let text = Array(magnitude.description.utf8)
    for (index, byte) in text.enumerated() {
      if byte == UInt8(ascii: "e") {
        exponent = Int(String(decoding: text[(index + 1)...], as: UTF8.self)) ?? 0
        break
      }
      if byte == UInt8(ascii: ".") { point = digits.count } else { digits.append(byte) }
    }
    var place = (point ?? digits.count) + exponent
    let zeros = digits.prefix { $0 == 0x30 }.count
    digits.removeFirst(min(zeros, digits.count))
    place -= zeros
    while digits.last == 0x30 { digits.removeLast() }
    return digits.isEmpty ? ([0x30], 1) : (digits, place)
  }

  /// Python's `repr`.
  var pythonDescription: String {
    if isNaN { return "nan" }
    let sign = self.sign == .minus ? "-" : ""
    if isInfinite { return sign + "inf" }
    let (digits, point) = shortestDigits
    func text(_ part: some Collection<UInt8>) -> String { String(decoding: part, as: UTF8.self) }
    if point > 16 || point < -3 {
      let exponent = point - 1
      let fraction = digits.count > 1 ? "." + text(digits.dropFirst()) : ""
      let size = String(exponent.magnitude)
      return sign + text(digits.prefix(1)) + fraction + "e" + (exponent < 0 ? "-" : "+")
        + (size.count < 2 ? "0" + size : size)
    }
    if point <= 0 { return sign + "0." + String(repeating: "0", count: -point) + text(digits) }
    if point >= digits.count {
      return sign + text(digits) + String(repeating: "0", count: point - digits.count) + ".0"
    }
    return sign + text(digits.prefix(point)) + "." + text(digits.dropFirst(point))
  }
}
