/// Filters that make texts.
extension Interpreter {
  func textFilter(
    _ filter: Filter, _ value: Value, _ passed: Passed
  ) throws(JinjaError) -> Value {
    let name = filter.rawValue
    switch filter {
    case .tojson: return try json(value, passed)
    case .format:
      let format = try value.softString(meter)
      if !passed.named.isEmpty {
        let pairs = passed.named.map { (key: passed.text(of: $0.name), value: $0.value) }
        return .text(
          try PercentFormat(self, format).format(.dictionary(try Mapping(pairs, meter))))
      }
      return .text(try PercentFormat(self, format).format(.tuple(of: passed.positional)))
    case .indent: return try indent(value, passed)
    case .replace: return try replace(value, passed)
    case .truncate: return try truncate(value, passed)
    case .trim:
      let characters = try passed.bound(to: ["chars"], of: name)[0]
      let text = try value.softString(meter)
      guard let characters, !characters.isNull else {
        return .text(try strip(text, .both, of: nil))
      }
      guard case .text(let set) = characters else {
        throw JinjaError(.type, "'trim' needs a string of characters")
      }
      return .text(try strip(text, .both, of: set))
    case .center:
      let width = try passed.bound(to: ["width"], of: name)[0] ?? .integer(80)
      return try call("center", of: .text(value.softString(meter)), Passed(positional: [width]))
    default: break
    }
    _ = try passed.bound(to: [], of: name)
    switch filter {
    case .safe:
      return .text(try value.softString(meter).safe)
    case .string: return .text(try value.softString(meter))
    case .escape, .e: return .text(try value.softString(meter).escaped(meter))
    case .forceescape: return .text(try value.string(meter).escaped(meter))
    case .wordcount:
      let text = try value.softString(meter)
      try meter.scan(8 * text.count)
      var (offset, number, isInWord) = (0, 0, false)
      while offset < text.count {
        let (scalar, length) = text.bytes.scalar(at: offset)
        let isWord = scalar.map { $0 == "_" || $0.isLetter || $0.properties.numericType != nil }
        if isWord ?? false, !isInWord { number += 1 }
        isInWord = isWord ?? false
        offset += length
      }
      return .integer(number)
    case .title:
      let text = try value.softString(meter)
      try meter.change(text.count)
      return .text(Self.title(text))
    default:
      return try call(name, of: .text(value.softString(meter)), Passed())
    }
  }

  /// jinja2's own idea of a title: words begin after white space, brackets and hyphens.
  private static func title(_ text: MarkedText) -> MarkedText {
    var isStart = true
    return text.plain.mapScalars { scalar, _ in
      defer { isStart = scalar.isPythonSpace || "-({[<".unicodeScalars.contains(scalar) }
      return isStart ? scalar.properties.uppercaseMapping : scalar.properties.lowercaseMapping
    }
  }

  private func json(_ value: Value, _ passed: Passed) throws(JinjaError) -> Value {
    let arguments = try passed.bound(
      to: ["ensure_ascii", "indent", "separators", "sort_keys"], of: "tojson")
    var indent: MarkedText?
    if let width = arguments[1], !width.isNull {
      if let count = width.index {
        indent = try MarkedText(" ").repeated(count, meter)
      } else if case .text(let text) = width {
        indent = text
      } else {
        throw JinjaError(.type, "'indent' must be a number or a string")
      }
    }
    var separators: (MarkedText, MarkedText)?
    if let given = arguments[2], !given.isNull {
      let pair = try elements(of: given)
      guard pair.count == 2, let item = pair[0].text, let key = pair[1].text else {
        throw JinjaError(.type, "'separators' must be two strings")
      }
      separators = (item, key)
    }
    var writer = JSONText(
      isASCII: arguments[0]?.isTrue ?? false, indent: indent, separators: separators,
      sortsKeys: arguments[3]?.isTrue ?? false, meter)
    try writer.write(value)
    return .text(writer.out)
  }

  private func indent(_ value: Value, _ passed: Passed) throws(JinjaError) -> Value {
    let arguments = try passed.bound(to: ["width", "first", "blank"], of: "indent")
    try value.requireDefined()
    guard case .text(let text) = value else {
      throw JinjaError(.type, "'indent' needs a string, not '\(value.typeName)'")
    }
    let width = arguments[0] ?? .integer(4)
    let indention: MarkedText
    if case .text(let given) = width {
      indention = given
    } else if let count = width.index {
      indention = try MarkedText(" ").repeated(count, meter)
    } else {
      throw JinjaError(.type, "'width' must be a number or a string")
    }
    var source = text
    source.append("\n")
    let indentsBlank = arguments[2]?.isTrue ?? false
    var result = MarkedText()
    for (number, line) in try source.lines(keepingEnds: false, meter).enumerated() {
      try meter.copy(line.count + indention.count + 1)
      if number > 0 { result.append("\n") }
      let isIndented =
        number == 0 ? arguments[1]?.isTrue ?? false : indentsBlank || !line.isEmpty
      if isIndented { result.append(indention) }
      result.append(line)
    }
    result.isSafe = text.isSafe
    return .text(result)
  }

  private func replace(_ value: Value, _ passed: Passed) throws(JinjaError) -> Value {
    let arguments = try passed.bound(to: ["old", "new", "count"], of: "replace", least: 2)
    let count = arguments[2] ?? .null
    guard let old = arguments[0], let new = arguments[1],
      let most = count.isNull ? -1 : count.index
    else { throw JinjaError(.type, "'replace' needs a number as 'count'") }
    return .text(
      try value.string(meter).replacing(
        try old.string(meter), with: try new.string(meter), most: most, meter))
  }

  private func truncate(_ value: Value, _ passed: Passed) throws(JinjaError) -> Value {
    let arguments = try passed.bound(to: ["length", "killwords", "end", "leeway"], of: "truncate")
    guard let text = value.isUndefined ? MarkedText("") : value.text,
      let length = (arguments[0] ?? .integer(255)).index,
      let end = (arguments[2] ?? .text("...")).text,
      let leeway = (arguments[3].flatMap { $0.isNull ? nil : $0 } ?? .integer(5)).index
    else { throw JinjaError(.type, "'truncate' needs a string, a length and an end") }
    if length < end.characterCount || leeway < 0 {
      throw JinjaError(.value, "'truncate' needs a length that its end fits in")
    }
    try meter.scan(8 * text.count)
    let offsets = text.characterOffsets
    if offsets.count - 1 <= length &+ leeway { return value }
    var kept = text[0..<offsets[length - end.characterCount]]
    if !(arguments[1]?.isTrue ?? false) {
      kept = try kept.splitFromRight(at: MarkedText(" "), most: 1, meter)[0]
    }
    return .text(try joined(kept, end))
  }
}
