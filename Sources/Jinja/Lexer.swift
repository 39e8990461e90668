/// Cuts a template into tokens, with `trim_blocks` and `lstrip_blocks` as transformers sets them.
struct Lexer {
  let source: [UInt8]
  var offset = 0
  var tokens: [Token] = []
  /// Brackets that are open in a tag.
  var brackets: [UInt8] = []
  /// Whether what was read last ended a line.
  private var isLineStart = true

  private init(_ source: [UInt8]) { self.source = source }

  /// A template with single line feeds as line ends, and without the last one.
  static func normalised(_ source: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(source.count)
    for (index, byte) in source.enumerated() {
      if byte == 0x0D {
        result.append(0x0A)
      } else if byte != 0x0A || index == 0 || source[index - 1] != 0x0D {
        result.append(byte)
      }
    }
    if result.last == 0x0A { result.removeLast() }
    return result
  }

  /// - Parameter source: a normalised template.
  static func tokens(of source: [UInt8]) throws(JinjaError) -> [Token] {
    var lexer = Lexer(source)
    try lexer.run()
    return lexer.tokens
  }

  mutating func add(_ kind: Token.Kind, at offset: Int) {
    tokens.append(Token(kind: kind, offset: offset))
  }

  func has(_ text: StaticString, at offset: Int) -> Bool {
    text.withUTF8Buffer { source.has($0, at: offset) }
  }

  private mutating func run() throws(JinjaError) {
    while offset < source.count {
      guard let tag = nextTag() else {
        add(.data(Array(source[offset...])), at: offset)
        offset = source.count
        break
      }
      let signAt = tag + 2
      let sign = signAt < source.count && "+-".utf8.contains(source[signAt]) ? source[signAt] : nil
      let inner = sign == nil ? signAt : signAt + 1
      let isVariable = source[tag + 1] == UInt8(ascii: "{")
      addText(upTo: tag, sign: sign, isVariable: isVariable)
      offset = inner
      if isVariable {
        isLineStart = false
        add(.variableBegin, at: tag)
        try readTag(isVariable: true)
      } else if source[tag + 1] == UInt8(ascii: "#") {
        try readComment(from: tag)
      } else if let raw = rawBegin(at: inner) {
        offset = raw
        isLineStart = source[raw - 1] == 0x0A
        try readRaw(from: tag)
      } else {
        isLineStart = false
        add(.blockBegin, at: tag)
        try readTag(isVariable: false)
      }
    }
    add(.end, at: source.count)
  }

  /// Where the next `{{`, `{%` or `{#` begins.
  private func nextTag() -> Int? {
    var index = offset
    while index + 1 < source.count {
      if source[index] == UInt8(ascii: "{"), "{%#".utf8.contains(source[index + 1]) { return index }
      index += 1
    }
    return nil
  }

  /// Adds the text before a tag, with white space taken off as the tag asks for.
  private mutating func addText(upTo end: Int, sign: UInt8?, isVariable: Bool) {
    var text = Array(source[offset..<end])
    if sign == UInt8(ascii: "-") {
      text = MarkedText(text).stripped(.right).bytes
    } else if sign == nil, !isVariable {
      let line = text.lastIndex(of: 0x0A).map { $0 + 1 } ?? 0
      if line > 0 || isLineStart, line < text.count, text.whiteSpaceEnd(from: line) == text.count {
        text.removeSubrange(line...)
      }
    }
    if !text.isEmpty { add(.data(text), at: offset) }
  }

  /// Goes to `end`, and past the white space that the sign before a tag's end asks to take off.
  private mutating func finishTag(at end: Int, sign: UInt8?, trims: Bool) {
    offset = end
    if sign == UInt8(ascii: "-") {
      offset = source.whiteSpaceEnd(from: end)
    } else if trims, sign == nil, end < source.count, source[end] == 0x0A {
      offset = end + 1
    }
    isLineStart = source[offset - 1] == 0x0A
  }

  private mutating func readComment(from tag: Int) throws(JinjaError) {
    guard let end = source.firstIndex(of: Array("#}".utf8), in: offset..<source.count) else {
      throw JinjaError(.syntax, "the comment has no end", at: tag)
    }
    let before = end > offset && "+-".utf8.contains(source[end - 1]) ? source[end - 1] : nil
    finishTag(at: end + 2, sign: before, trims: true)
  }

  /// Where the text of a raw block begins, if a tag is one.
  private func rawBegin(at inner: Int) -> Int? {
    let word = source.whiteSpaceEnd(from: inner)
    guard has("raw", at: word) else { return nil }
    let end = source.whiteSpaceEnd(from: word + 3)
    if has("-%}", at: end) { return source.whiteSpaceEnd(from: end + 3) }
    return has("%}", at: end) ? end + 2 : nil
  }

  private mutating func readRaw(from tag: Int) throws(JinjaError) {
    var index = offset
    while index < source.count {
      defer { index += 1 }
      guard has("{%", at: index) else { continue }
      let signAt = index + 2
      let sign = has("-", at: signAt) || has("+", at: signAt) ? source[signAt] : nil
      let word = source.whiteSpaceEnd(from: sign == nil ? signAt : signAt + 1)
      guard has("endraw", at: word) else { continue }
      let last = source.whiteSpaceEnd(from: word + 6)
      let endSign = has("-%}", at: last) || has("+%}", at: last) ? source[last] : nil
      let end = endSign == nil ? last : last + 1
      guard has("%}", at: end) else { continue }
      addText(upTo: index, sign: sign, isVariable: false)
      finishTag(at: end + 2, sign: endSign, trims: true)
      return
    }
    throw JinjaError(.syntax, "the raw block has no end", at: tag)
  }

  /// Reads tokens up to the end of a tag.
  private mutating func readTag(isVariable: Bool) throws(JinjaError) {
    brackets = []
    while offset < source.count {
      if brackets.isEmpty, let (end, sign) = tagEnd(isVariable) {
        add(isVariable ? .variableEnd : .blockEnd, at: offset)
        finishTag(at: end, sign: sign, trims: !isVariable)
        return
      }
      try readToken()
    }
  }

  private func tagEnd(_ isVariable: Bool) -> (end: Int, sign: UInt8?)? {
    if isVariable {
      if has("-}}", at: offset) { return (offset + 3, source[offset]) }
      return has("}}", at: offset) ? (offset + 2, nil) : nil
    }
    if has("-%}", at: offset) || has("+%}", at: offset) { return (offset + 3, source[offset]) }
    return has("%}", at: offset) ? (offset + 2, nil) : nil
  }
}
