/// Methods of strings.
extension Interpreter {
  func call(
    _ name: String, of text: MarkedText, _ passed: Passed
  ) throws(JinjaError) -> Value {
    try meter.step(1 + text.count / 16)
    switch name {
    case "format": return .text(try BraceFormat.format(text, passed, self))
    case "format_map":
      let mapping = try passed.bound(to: ["mapping"], of: name, least: 1)[0]
      guard case .dictionary(let mapping)? = mapping else {
        throw JinjaError(.type, "'format_map' needs a dictionary")
      }
      try meter.hold(mapping.keys.count)
      let named = mapping.pairs.compactMap { key, value in
        key.text.map { (name: $0.string, value: value) }
      }
      return .text(try BraceFormat.format(text, Passed(named: named), self))
    case "split", "rsplit": return try split(name, text, passed)
    case "strip", "lstrip", "rstrip": return try strip(name, text, passed)
    case "splitlines":
      let keeps = try passed.bound(to: ["keepends"], of: name)[0]
      return try texts(text.lines(keepingEnds: keeps?.isTrue ?? false, meter))
    case "replace", "removeprefix", "removesuffix", "join", "partition", "rpartition":
      return try rearrange(name, text, passed)
    case "startswith", "endswith", "find", "rfind", "index", "rindex", "count":
      return try find(name, text, passed)
    case "center", "ljust", "rjust", "zfill", "expandtabs": return try pad(name, text, passed)
    case "encode", "translate", "maketrans":
      throw JinjaError(.unsupported, "the method '\(name)' of strings is not supported")
    default: break
    }
    _ = try passed.bound(to: [], of: name)
    try meter.change(text.count)
    switch name {
    case "lower": return .text(text.lowercased)
    case "upper": return .text(text.uppercased)
    case "capitalize": return .text(text.capitalized)
    case "title": return .text(text.titled)
    case "casefold": return .text(text.casefolded)
    case "swapcase": return .text(text.swappedCase)
    default: return .bool(Self.isKind(name, text))
    }
  }

  private static func isKind(_ name: String, _ text: MarkedText) -> Bool {
    switch name {
    case "isascii": return text.bytes.allSatisfy { $0 < 0x80 }
    case "isprintable": return text.isEmpty || text.allScalars(\.isPrintable)
    case "islower": return text.isCase(upper: false)
    case "isupper": return text.isCase(upper: true)
    case "istitle":
      return text.titled.bytes == text.bytes
        && text.containsScalar(\.properties.isCased)
    case "isspace": return text.allScalars(\.isPythonSpace)
    case "isalpha": return text.allScalars(\.isLetter)
    case "isdigit": return text.allScalars(\.isPythonDigit)
    case "isdecimal": return text.allScalars(\.isDecimal)
    case "isnumeric": return text.allScalars { $0.properties.numericType != nil }
    case "isalnum":
      return text.allScalars { $0.isLetter || $0.properties.numericType != nil }
    default:
      guard !text.isEmpty, let first = text.bytes.scalar(at: 0).scalar,
        first == "_" || first.properties.isXIDStart
      else { return false }
      return text.allScalars(\.properties.isXIDContinue)
    }
  }

  private func texts(_ parts: [MarkedText]) throws(JinjaError) -> Value {
    try .list(of: parts.map { .text($0) })
  }

  /// An argument that must be a string; escaped where it is put into `Markup`.
  private func text(
    _ value: Value?, of name: String, into other: MarkedText? = nil
  ) throws(JinjaError) -> MarkedText {
    guard case .text(let text)? = value else {
      throw JinjaError(.type, "'\(name)' needs a string, not '\(value?.typeName ?? "nothing")'")
    }
    return other?.isSafe ?? false ? try text.escaped(meter) : text
  }

  private func integer(
    _ value: Value?, of name: String, standard: Int
  ) throws(JinjaError) -> Int {
    guard let value else { return standard }
    guard let index = value.index else {
      throw JinjaError(.type, "'\(name)' needs an integer, not '\(value.typeName)'")
    }
    return index
  }

  private func split(
    _ name: String, _ text: MarkedText, _ passed: Passed
  ) throws(JinjaError) -> Value {
    let arguments = try passed.bound(to: ["sep", "maxsplit"], of: name)
    let most = try integer(arguments[1], of: name, standard: -1)
    guard let separator = arguments[0], !separator.isNull else {
      return try texts(
        name == "split"
          ? text.splitAtSpace(most: most, meter) : text.splitAtSpaceFromRight(most: most, meter))
    }
    let mark = try self.text(separator, of: name)
    if mark.isEmpty { throw JinjaError(.value, "the separator is empty") }
    return try texts(
      name == "split"
        ? text.split(at: mark, most: most, meter)
        : text.splitFromRight(at: mark, most: most, meter))
  }

  private func strip(
    _ name: String, _ text: MarkedText, _ passed: Passed
  ) throws(JinjaError) -> Value {
    let characters = try passed.bound(to: ["chars"], of: name)[0]
    let side: MarkedText.Side = name == "strip" ? .both : name == "lstrip" ? .left : .right
    var set: MarkedText?
    if let characters, !characters.isNull { set = try self.text(characters, of: name) }
    return .text(try strip(text, side, of: set))
  }

  /// Strips white space, or any of the characters of `set`.
  func strip(
    _ text: MarkedText, _ side: MarkedText.Side, of set: MarkedText?
  ) throws(JinjaError) -> MarkedText {
    if let set { try meter.hold(set.count) }
    let result = text.stripped(side, of: set)
    try meter.step((text.count - result.count) / 8)
    try meter.copy(result.count)
    return result
  }

  private func rearrange(
    _ name: String, _ text: MarkedText, _ passed: Passed
  ) throws(JinjaError) -> Value {
    switch name {
    case "replace":
      let arguments = try passed.bound(to: ["old", "new", "count"], of: name, least: 2)
      return .text(
        try text.replacing(
          self.text(arguments[0], of: name), with: self.text(arguments[1], of: name, into: text),
          most: integer(arguments[2], of: name, standard: -1), meter))
    case "join":
      let parts = try passed.bound(to: ["iterable"], of: name, least: 1)[0] ?? .null
      var joined = Joined(text)
      for part in try elements(of: parts) {
        try joined.append(try self.text(part, of: name, into: text), meter)
      }
      return .text(joined.text)
    default: break
    }
    let mark = try self.text(passed.bound(to: ["sep"], of: name, least: 1)[0], of: name)
    try meter.copy(text.count)
    switch name {
    case "removeprefix":
      return .text(text.bytes.has(mark.bytes, at: 0) ? text[mark.count..<text.count] : text)
    case "removesuffix":
      let start = text.count - mark.count
      return .text(text.bytes.has(mark.bytes, at: start) ? text[0..<start] : text)
    default:
      if mark.isEmpty { throw JinjaError(.value, "the separator is empty") }
      try meter.hold(3)
      let whole = 0..<text.count
      let isFirst = name == "partition"
      let found =
        isFirst
        ? text.bytes.firstIndex(of: mark.bytes, in: whole)
        : text.bytes.lastIndex(of: mark.bytes, in: whole)
      guard let found else {
        let nothing = Value.text("")
        return try .tuple(
          of: isFirst ? [.text(text), nothing, nothing] : [nothing, nothing, .text(text)])
      }
      let end = found + mark.count
      return try .tuple(of: [
        .text(text[0..<found]), .text(text[found..<end]), .text(text[end..<text.count]),
      ])
    }
  }

  private func find(
    _ name: String, _ text: MarkedText, _ passed: Passed
  ) throws(JinjaError) -> Value {
    let arguments = try passed.bound(to: ["sub", "start", "end"], of: name, least: 1)
    try meter.scan(8 * text.count)
    let offsets = text.characterOffsets
    let count = offsets.count - 1
    func clamp(_ value: Value?, _ standard: Int) throws(JinjaError) -> Int {
      guard let value, !value.isNull else { return standard }
      let index = try integer(value, of: name, standard: 0)
      return min(max(index < 0 ? index + count : index, 0), count)
    }
    let start = try clamp(arguments[1], 0)
    let stop = try clamp(arguments[2], count)
    var marks: [MarkedText] = []
    if name.hasSuffix("with"), case .tuple(let choices)? = arguments[0] {
      for choice in choices.elements { marks.append(try self.text(choice, of: name)) }
    } else {
      marks = [try self.text(arguments[0], of: name)]
    }
    guard start <= stop else { return name.hasSuffix("with") ? .bool(false) : .integer(-1) }
    let range = offsets[start]..<offsets[stop]
    switch name {
    case "startswith":
      return .bool(
        marks.contains { $0.count <= range.count && text.bytes.has($0.bytes, at: range.lowerBound) }
      )
    case "endswith":
      return .bool(
        marks.contains {
          $0.count <= range.count && text.bytes.has($0.bytes, at: range.upperBound - $0.count)
        })
    case "count":
      if marks[0].isEmpty { return .integer(stop - start + 1) }
      return .integer(text.bytes.count(of: marks[0].bytes, in: range))
    default:
      let found =
        name.hasPrefix("r")
        ? text.bytes.lastIndex(of: marks[0].bytes, in: range)
        : text.bytes.firstIndex(of: marks[0].bytes, in: range)
      if let found { return .integer(text[0..<found].characterCount) }
      if name.hasSuffix("index") { throw JinjaError(.value, "the string is not found") }
      return .integer(-1)
    }
  }

  private func pad(
    _ name: String, _ text: MarkedText, _ passed: Passed
  ) throws(JinjaError) -> Value {
    if name == "expandtabs" {
      let size = try integer(passed.bound(to: ["tabsize"], of: name)[0], of: name, standard: 8)
      return .text(try expandTabs(text, size))
    }
    let isZeros = name == "zfill"
    let arguments = try passed.bound(
      to: isZeros ? ["width"] : ["width", "fillchar"], of: name, least: 1)
    let width = try integer(arguments[0], of: name, standard: 0)
    let count = text.characterCount
    if width <= count { return .text(text) }
    if isZeros {
      var start = 0
      if let first = text.bytes.first, "+-".utf8.contains(first) { start = 1 }
      var result = text[0..<start]
      result.append(try MarkedText("0").repeated(width - count, meter))
      result.append(text, start..<text.count)
      return .text(result)
    }
    let fill =
      try arguments.count > 1 && arguments[1] != nil
      ? self.text(arguments[1], of: name) : MarkedText(" ")
    guard fill.characterCount == 1 else {
      throw JinjaError(.type, "the fill character must be exactly one character long")
    }
    let all = width - count
    // Python's `center` puts the odd one left where the width is odd.
    let left =
      name == "ljust" ? 0 : name == "rjust" ? all : all / 2 + (all & width & 1)
    try meter.copy(text.count)
    var result = try fill.repeated(left, meter)
    result.append(text)
    result.append(try fill.repeated(all - left, meter))
    result.isSafe = text.isSafe
    return .text(result)
  }

  private func expandTabs(_ text: MarkedText, _ size: Int) throws(JinjaError) -> MarkedText {
    var result = MarkedText()
    var column = 0
    try meter.hold(text.count)
    for character in text.characters {
      switch character.bytes {
      case [0x09]:
        guard size > 0 else { continue }
        let width = size - column % size
        var tab = try MarkedText(" ").repeated(width, meter)
        if !character.data.isEmpty { tab = MarkedText(tab.bytes, isData: true) }
        result.append(tab)
        column += width
      case [0x0A], [0x0D]:
        result.append(character)
        column = 0
      default:
        result.append(character)
        column += 1
      }
    }
    result.isSafe = text.isSafe
    return result
  }
}
