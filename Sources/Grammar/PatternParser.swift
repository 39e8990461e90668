/// Reads a regular expression as ECMAScript has them, as far as it describes a set of texts.
///
/// Refused by name: look-around, back references, word boundaries, Unicode properties, and `^` and `$` elsewhere than
/// where a text begins and ends.
struct PatternParser {
  /// A way that the pattern can match.
  private struct Branch {
    var isAtStart = false
    var body: Expression
    var isAtEnd = false
  }

  private var cursor: TextCursor
  private var depth = 0

  /// What the whole text must be.
  static func whole(_ pattern: String) throws(GrammarError) -> Expression {
    .choice(try parse(pattern).map(\.body))
  }

  /// What a text must contain, as JSON Schema has it.
  static func contained(_ pattern: String) throws(GrammarError) -> Expression {
    let anything = Expression.any(.scalar(.all))
    return .choice(
      try parse(pattern).map { branch in
        .sequence([
          branch.isAtStart ? .empty : anything, branch.body, branch.isAtEnd ? .empty : anything,
        ])
      })
  }

  private static func parse(_ pattern: String) throws(GrammarError) -> [Branch] {
    var parser = PatternParser(cursor: try TextCursor(pattern))
    let branches = try parser.alternatives()
    guard parser.cursor.next == nil else {
      throw parser.cursor.error("')' closes no group")
    }
    return branches
  }

  private init(cursor: TextCursor) { self.cursor = cursor }

  private mutating func alternatives() throws(GrammarError) -> [Branch] {
    depth += 1
    defer { depth -= 1 }
    guard depth <= GrammarLimits.depth else {
      throw cursor.error("groups are nested more than \(GrammarLimits.depth) deep")
    }
    var result = try branches()
    while cursor.accept("|") { result += try branches() }
    return result
  }

  /// One alternative, or those of the only group that it consists of.
  private mutating func branches() throws(GrammarError) -> [Branch] {
    var branch = Branch(body: .empty)
    var parts: [Expression] = []
    var nested: [Branch]?
    while let scalar = cursor.next, scalar != "|", scalar != ")" {
      let start = cursor.offset
      if cursor.accept("^") {
        guard parts.isEmpty, nested == nil, !branch.isAtEnd else {
          throw cursor.error("'^' is not supported but at the beginning", at: start)
        }
        branch.isAtStart = true
        continue
      }
      if cursor.accept("$") {
        branch.isAtEnd = true
        continue
      }
      guard !branch.isAtEnd, nested == nil else {
        throw cursor.error("'^' and '$' are not supported but at the beginning and end", at: start)
      }
      if scalar == "(" {
        let group = try self.group()
        if group.contains(where: { $0.isAtStart || $0.isAtEnd }) {
          guard parts.isEmpty else {
            throw cursor.error("'^' and '$' inside this group are not supported", at: start)
          }
          nested = group
        } else {
          parts.append(try quantified(.choice(group.map(\.body))))
        }
      } else {
        parts.append(try quantified(try atom()))
      }
    }
    guard let nested else {
      branch.body = .sequence(parts)
      return [branch]
    }
    return nested.map {
      Branch(
        isAtStart: $0.isAtStart || branch.isAtStart, body: $0.body,
        isAtEnd: $0.isAtEnd || branch.isAtEnd)
    }
  }

  private mutating func group() throws(GrammarError) -> [Branch] {
    let start = cursor.offset
    try cursor.expect("(")
    if cursor.accept("?") {
      if cursor.accept("<"), let scalar = cursor.next, scalar != "=", scalar != "!" {
        while let scalar = cursor.take(), scalar != ">" {}
      } else if !cursor.accept(":") {
        throw cursor.error("look-around and flags are not supported", at: start)
      }
    }
    let result = try alternatives()
    guard cursor.accept(")") else { throw cursor.error("this group is not closed", at: start) }
    return result
  }

  private mutating func quantified(_ body: Expression) throws(GrammarError) -> Expression {
    let bounds: (minimum: Int, maximum: Int?)
    switch cursor.next {
    case "*": bounds = (0, nil)
    case "+": bounds = (1, nil)
    case "?": bounds = (0, 1)
    // A brace that begins no count stands for itself.
    case "{" where startsCount: bounds = (0, 0)
    default: return body
    }
    let isCount = cursor.take() == "{"
    let (minimum, maximum) = isCount ? try cursor.bounds() : bounds
    // Which of the matches is found first does not matter here.
    _ = cursor.accept("?")
    if let next = cursor.next,
      next == "*" || next == "+" || next == "?" || next == "{" && startsCount
    {
      throw cursor.error("there is nothing to repeat")
    }
    return .repetition(body, minimum: minimum, maximum: maximum)
  }

  private var startsCount: Bool { cursor.afterNext.map { ("0"..."9").contains($0) } ?? false }

  private mutating func atom() throws(GrammarError) -> Expression {
    let start = cursor.offset
    guard let scalar = cursor.take() else { throw cursor.error("a character is missing") }
    switch scalar {
    case ".": return .scalar(Self.lineEnds.complement)
    case "[": return .scalar(try characterClass(from: start))
    case "\\": return .scalar(try escape(from: start, inClass: false))
    case "*", "+", "?": throw cursor.error("there is nothing to repeat", at: start)
    default: return .scalar(ScalarSet([scalar]))
    }
  }

  private mutating func characterClass(from start: Int) throws(GrammarError) -> ScalarSet {
    let isNegated = cursor.accept("^")
    var result = ScalarSet()
    while !cursor.accept("]") {
      let (low, isSet) = try member(from: start)
      guard cursor.next == "-", cursor.afterNext != "]", !isSet else {
        result = result.union(low)
        continue
      }
      _ = cursor.take()
      let (high, isHighSet) = try member(from: start)
      guard !isHighSet, let first = low.ranges.first?.lowerBound,
        let last = high.ranges.last?.upperBound, first <= last
      else { throw cursor.error("a range of this class is the wrong way round", at: start) }
      result = result.union(ScalarSet([first...last]))
    }
    return isNegated ? result.complement : result.encodable
  }

  /// One character of a class, or the set that an escape stands for.
  private mutating func member(from start: Int) throws(GrammarError) -> (ScalarSet, isSet: Bool) {
    let offset = cursor.offset
    guard let scalar = cursor.take() else {
      throw cursor.error("this class is not closed", at: start)
    }
    guard scalar == "\\" else { return (ScalarSet([scalar]), false) }
    let set = try escape(from: offset, inClass: true)
    return (set, set.ranges.count != 1 || set.ranges[0].count != 1)
  }

  private mutating func escape(from start: Int, inClass: Bool) throws(GrammarError) -> ScalarSet {
    guard let scalar = cursor.take() else { throw cursor.error("an escape is not complete") }
    switch scalar {
    case "d": return Self.digits
    case "D": return Self.digits.complement
    case "w": return Self.wordCharacters
    case "W": return Self.wordCharacters.complement
    case "s": return Self.spaces
    case "S": return Self.spaces.complement
    case "n": return ScalarSet(["\n" as Unicode.Scalar])
    case "r": return ScalarSet(["\r" as Unicode.Scalar])
    case "t": return ScalarSet(["\t" as Unicode.Scalar])
    case "f": return ScalarSet([0x0C...0x0C])
    case "v": return ScalarSet([0x0B...0x0B])
    case "b" where inClass: return ScalarSet([0x08...0x08])
    case "0" where !(cursor.next.map { ("0"..."9").contains($0) } ?? false):
      return ScalarSet([0...0])
    case "x":
      let value = try cursor.hexadecimal(2)
      return ScalarSet([value...value])
    case "u": return try unicodeEscape(from: start)
    case _ where scalar.properties.isAlphabetic || ("0"..."9").contains(scalar):
      throw cursor.error("'\\\(scalar)' is not supported", at: start)
    default: return ScalarSet([scalar])
    }
  }

  private mutating func unicodeEscape(from start: Int) throws(GrammarError) -> ScalarSet {
    var value: UInt32
    if cursor.accept("{") {
      value = 0
      var count = 0
      while let digit = cursor.next, digit != "}", count < 6 {
        value = value << 4 | (try cursor.hexadecimal(1))
        count += 1
      }
      try cursor.expect("}")
    } else {
      value = try cursor.hexadecimal(4)
      if (0xD800..<0xDC00).contains(value), cursor.next == "\\", cursor.afterNext == "u" {
        (_, _) = (cursor.take(), cursor.take())
        let low = try cursor.hexadecimal(4)
        guard (0xDC00..<0xE000).contains(low) else {
          throw cursor.error("half a surrogate pair is not supported", at: start)
        }
        value = 0x10000 + (value - 0xD800) << 10 + (low - 0xDC00)
      }
    }
    guard Unicode.Scalar(value) != nil else {
      throw cursor.error("half a surrogate pair is not supported", at: start)
    }
    return ScalarSet([value...value])
  }

  private static let digits = ScalarSet([0x30...0x39])
  private static let wordCharacters = ScalarSet([
    0x30...0x39, 0x41...0x5A, 0x5F...0x5F, 0x61...0x7A,
  ])
  private static let lineEnds = ScalarSet([0x0A...0x0A, 0x0D...0x0D, 0x2028...0x2029])
  private static let spaces = ScalarSet([
    0x09...0x0D, 0x20...0x20, 0xA0...0xA0, 0x1680...0x1680, 0x2000...0x200A, 0x2028...0x2029,
    0x202F...0x202F, 0x205F...0x205F, 0x3000...0x3000, 0xFEFF...0xFEFF,
  ])
}
