/// Reads a grammar in GBNF, llama.cpp's notation.
///
/// ```
/// root   ::= item ("," item)*          # "root" is what the answer is
/// item   ::= [a-z]+ | "\"" [^"\x00-\x1F]{1,40} "\""
/// ```
struct GrammarParser {
  private var cursor: TextCursor
  private var builder = GrammarBuilder()
  private var numbers: [String: Int] = [:]
  /// Where each rule was named first.
  private var offsets: [Int] = []
  private var depth = 0

  /// - Returns: the rules, the number of the root, and where each rule is written.
  static func parse(
    _ text: String
  ) throws(GrammarError) -> (GrammarBuilder, root: Int, offsets: [Int]) {
    var parser = GrammarParser(cursor: try TextCursor(text))
    while true {
      parser.skipSpace(lines: true)
      guard parser.cursor.next != nil else { break }
      try parser.definition()
    }
    let rules = parser.builder.rules
    for (rule, offset) in zip(rules, parser.offsets) where !rule.isDefined {
      throw parser.cursor.error("the rule '\(rule.name)' is not defined", at: offset)
    }
    guard let root = parser.numbers["root"] else {
      throw parser.cursor.error("there is no rule 'root'", at: 0)
    }
    return (parser.builder, root, parser.offsets)
  }

  private init(cursor: TextCursor) { self.cursor = cursor }

  private mutating func skipSpace(lines: Bool) {
    while let next = cursor.next {
      if next == "#" {
        while let next = cursor.next, next != "\n", next != "\r" { _ = cursor.take() }
      } else if next == " " || next == "\t" || lines && (next == "\n" || next == "\r") {
        _ = cursor.take()
      } else {
        return
      }
    }
  }

  private func isName(_ scalar: Unicode.Scalar) -> Bool {
    scalar == "-" || scalar == "_" || scalar.isASCII && scalar.properties.isAlphabetic
      || ("0"..."9").contains(scalar)
  }

  /// The number of the rule that is named here.
  private mutating func name() throws(GrammarError) -> Int {
    let start = cursor.offset
    var name = ""
    while let next = cursor.next, isName(next) {
      name.unicodeScalars.append(next)
      _ = cursor.take()
    }
    guard !name.isEmpty else { throw cursor.error("the name of a rule is missing") }
    if let number = numbers[name] { return number }
    let number = try declare(name, at: start)
    numbers[name] = number
    return number
  }

  private mutating func declare(_ name: String, at offset: Int) throws(GrammarError) -> Int {
    let number = try builder.declare(name)
    // Rules between are parts of others.
    while offsets.count < number { offsets.append(offset) }
    offsets.append(offset)
    return number
  }

  private mutating func definition() throws(GrammarError) {
    let start = cursor.offset
    let rule = try name()
    skipSpace(lines: false)
    for scalar: Unicode.Scalar in [":", ":", "="] { try cursor.expect(scalar) }
    guard !builder.rules[rule].isDefined else {
      throw cursor.error("the rule '\(builder.rules[rule].name)' is defined twice", at: start)
    }
    skipSpace(lines: true)
    let body = try alternatives(isGroup: false)
    do { try builder.define(rule, as: body) } catch {
      throw cursor.error(error.reason, at: start)
    }
    while offsets.count < builder.rules.count { offsets.append(start) }
    guard cursor.next.map({ $0 == "\n" || $0 == "\r" }) ?? true else {
      throw cursor.error("a new line is missing after the rule")
    }
  }

  private mutating func alternatives(isGroup: Bool) throws(GrammarError) -> Expression {
    depth += 1
    defer { depth -= 1 }
    guard depth <= GrammarLimits.depth else {
      throw cursor.error("groups are nested more than \(GrammarLimits.depth) deep")
    }
    var result = [try sequence(isGroup: isGroup)]
    while cursor.accept("|") {
      skipSpace(lines: true)
      result.append(try sequence(isGroup: isGroup))
    }
    return result.count == 1 ? result[0] : .choice(result)
  }

  private mutating func sequence(isGroup: Bool) throws(GrammarError) -> Expression {
    var parts: [Expression] = []
    while let next = cursor.next, next != "|", next != ")", next != "\n", next != "\r" {
      let item = try self.item()
      parts.append(try quantified(item))
      skipSpace(lines: isGroup)
    }
    if isGroup { skipSpace(lines: true) }
    return .sequence(parts)
  }

  private mutating func item() throws(GrammarError) -> Expression {
    let start = cursor.offset
    switch cursor.next {
    case "\"":
      _ = cursor.take()
      var text = String.UnicodeScalarView()
      while !cursor.accept("\"") { text.append(try character(in: "a literal", from: start)) }
      return .literal(String(text))
    case "[":
      _ = cursor.take()
      return .scalar(try characterClass(from: start))
    case ".":
      _ = cursor.take()
      return .scalar(.all)
    case "(":
      _ = cursor.take()
      skipSpace(lines: true)
      let body = try alternatives(isGroup: true)
      guard cursor.accept(")") else { throw cursor.error("this group is not closed", at: start) }
      return body
    case "<", "!": throw cursor.error("tokens as elements are not supported: write their text")
    case let next? where isName(next): return .rule(try name())
    default: throw cursor.error("a rule, a text, a class or a group is missing")
    }
  }

  private mutating func quantified(_ body: Expression) throws(GrammarError) -> Expression {
    var body = body
    var count = 0
    // As llama.cpp has it, one quantifier can follow another.
    while let next = cursor.next, next == "*" || next == "+" || next == "?" || next == "{" {
      count += 1
      guard count <= GrammarLimits.depth else {
        throw cursor.error("more than \(GrammarLimits.depth) quantifiers follow each other")
      }
      _ = cursor.take()
      body =
        switch next {
        case "*": .any(body)
        case "+": .repetition(body, minimum: 1, maximum: nil)
        case "?": .optional(body)
        default: try counted(body)
        }
    }
    return body
  }

  private mutating func counted(_ body: Expression) throws(GrammarError) -> Expression {
    let bounds = try cursor.bounds()
    return .repetition(body, minimum: bounds.minimum, maximum: bounds.maximum)
  }

  private mutating func characterClass(from start: Int) throws(GrammarError) -> ScalarSet {
    let isNegated = cursor.accept("^")
    var ranges: [ClosedRange<UInt32>] = []
    while !cursor.accept("]") {
      let low = try character(in: "a class", from: start)
      guard cursor.next == "-", cursor.afterNext != "]" else {
        ranges.append(low.value...low.value)
        continue
      }
      _ = cursor.take()
      let high = try character(in: "a class", from: start)
      guard low <= high else {
        throw cursor.error("a range of this class is the wrong way round", at: start)
      }
      ranges.append(low.value...high.value)
    }
    let set = ScalarSet(ranges)
    return isNegated ? set.complement : set.encodable
  }

  private mutating func character(
    in what: String, from start: Int
  ) throws(GrammarError) -> Unicode.Scalar {
    guard let scalar = cursor.take(), scalar != "\n" else {
      throw cursor.error("\(what) is not closed", at: start)
    }
    guard scalar == "\\" else { return scalar }
    let offset = cursor.offset - 1
    let value: UInt32
    switch cursor.take() {
    case "n": value = 0x0A
    case "r": value = 0x0D
    case "t": value = 0x09
    case "x": value = try cursor.hexadecimal(2)
    case "u": value = try cursor.hexadecimal(4)
    case "U": value = try cursor.hexadecimal(8)
    case let scalar? where "\\\"[]^-.".unicodeScalars.contains(scalar): value = scalar.value
    default: throw cursor.error("this escape is unknown", at: offset)
    }
    guard let scalar = Unicode.Scalar(value) else {
      throw cursor.error("it is half a surrogate pair", at: offset)
    }
    return scalar
  }
}
