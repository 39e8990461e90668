extension Oniguruma {
  /// What follows a backslash outside of brackets.
  mutating func escape() throws(TokenizerError) -> (text: String, repeats: Bool) {
    let start = position - 1
    guard let character = next else { throw failure("a \\ at the end", at: start) }
    if let set = try escapedSet(isInBrackets: false) { return (try written(set, at: start), true) }
    switch character {
    case "A", "z", "Z":
      position += 1
      return (#"\\#(character)"#, false)
    case "b", "B":
      position += 1
      let word = definition(of: .wordOutsideBrackets)
      let ends = "(?<=\(word))(?!\(word))|(?<!\(word))(?=\(word))"
      let inside = "(?<=\(word))(?=\(word))|(?<!\(word))(?!\(word))"
      return (character == "b" ? "(?:\(ends))" : "(?:\(inside))", false)
    default:
      let value = try escapedCharacter(isInBrackets: false)
      return (try written(CharacterSet([value...value]), at: start), true)
    }
  }

  /// `\d`, `\p{…}` and the like, after the backslash; nil, and nothing stepped over, for anything else.
  private mutating func escapedSet(isInBrackets: Bool) throws(TokenizerError) -> CharacterSet? {
    let word = isInBrackets ? CharacterSet.word : .wordOutsideBrackets
    let known: [Unicode.Scalar: CharacterSet] = [
      "d": .digit, "D": CharacterSet.digit.negated, "s": .space, "S": CharacterSet.space.negated,
      "w": word, "W": word.negated, "h": .hexDigit, "H": CharacterSet.hexDigit.negated,
      "N": CharacterSet([0xA...0xA], isNegated: true), "O": CharacterSet(isNegated: true),
    ]
    guard let character = next else { return nil }
    if let set = known[character], !(isInBrackets && (character == "N" || character == "O")) {
      position += 1
      return set
    }
    guard character == "p" || character == "P" else { return nil }
    let start = position - 1
    position += 1
    guard skip("{") else { throw failure("\\\(character) without a property in braces", at: start) }
    var isNegated = character == "P"
    if skip("^") { isNegated.toggle() }
    var name = ""
    while let letter = next, letter != "}" {
      if letter.isASCII, !" -_".unicodeScalars.contains(letter) {
        name += String(letter).lowercased()
      }
      position += 1
    }
    guard skip("}") else { throw failure("a property that is not closed", at: start) }
    guard let set = Self.property(name) else {
      throw failure("the property \"\(name)\" is not known", at: start)
    }
    return isNegated ? set.negated : set
  }

  private static func property(_ name: String) -> CharacterSet? {
    switch name {
    case "word": return .wordOutsideBrackets
    case "space", "whitespace": return .space
    case "xdigit", "hexdigit", "asciihexdigit": return .hexDigit
    case "ascii": return CharacterSet([0...0x7F])
    case "alpha", "alphabetic", "alnum", "upper", "lower", "graph", "print", "blank": return nil
    default: break
    }
    if let categories = CharacterSet.categories(named: name) {
      return CharacterSet(categories: categories)
    }
    return UnicodeTable.ranges(script: name).map { CharacterSet($0) }
  }

  /// The character that an escape stands for.
  private mutating func escapedCharacter(isInBrackets: Bool) throws(TokenizerError) -> UInt32 {
    let start = position - 1
    guard let character = next else { throw failure("a \\ at the end", at: start) }
    position += 1
    switch character {
    case "t": return 0x9
    case "n": return 0xA
    case "v": return 0xB
    case "f": return 0xC
    case "r": return 0xD
    case "a": return 0x7
    case "e": return 0x1B
    case "b" where isInBrackets: return 0x8
    case "x":
      if skip("{") {
        let value = hexadecimal(8)
        guard let value, value < UnicodeTable.end, skip("}") else {
          throw failure("\\x{…} is no character", at: start)
        }
        return value
      }
      guard let value = hexadecimal(2), value < 0x80 else {
        throw failure("\\x with a byte beyond ASCII", at: start)
      }
      return value
    case "u":
      let digits = position
      guard let value = hexadecimal(4), position == digits + 4 else {
        throw failure("\\u without four digits", at: start)
      }
      return value
    default:
      guard !character.properties.isAlphabetic, !("0"..."9").contains(character) else {
        throw failure("\\\(character) is not supported", at: start)
      }
      return character.value
    }
  }

  private mutating func hexadecimal(_ limit: Int) -> UInt32? {
    var value: UInt32?
    var count = 0
    while count < limit, let digit = next, digit.isASCII,
      let number = Character(digit).hexDigitValue
    {
      value = (value ?? 0) << 4 | UInt32(number)
      position += 1
      count += 1
    }
    return value
  }

  // MARK: Brackets

  /// What stands in brackets, after the opening one, with the closing one.
  mutating func brackets(depth: Int = 0) throws(TokenizerError) -> CharacterSet {
    let start = position - 1
    guard depth < 16 else { throw failure("brackets nested too deep", at: start) }
    let isNegated = skip("^")
    var set = CharacterSet()
    var operands: [CharacterSet] = []
    var isFirst = true
    while true {
      guard let character = next else { throw failure("brackets that are not closed", at: start) }
      if character == "]", !isFirst {
        position += 1
        break
      }
      isFirst = false
      if skip("&&") {
        operands.append(set)
        set = CharacterSet()
      } else if isNext("[:") {
        throw failure("a POSIX bracket, which is not supported")
      } else if character == "[" {
        position += 1
        let inner = try brackets(depth: depth + 1)
        set.formUnion(inner) { definition(of: $0) }
      } else {
        try member(of: &set)
      }
    }
    operands.append(set)
    guard operands.count > 1 else {
      set.isNegated = isNegated
      return set
    }
    var common = ""
    for operand in operands.dropLast() { common += "(?=\(definition(of: operand)))" }
    var result = CharacterSet()
    result.others = ["(?:\(common)\(definition(of: operands[operands.count - 1])))"]
    result.isNegated = isNegated
    return result
  }

  /// A character, a range or an escape in brackets.
  private mutating func member(of set: inout CharacterSet) throws(TokenizerError) {
    let start = position
    if skip("\\"), let other = try escapedSet(isInBrackets: true) {
      if isNext("-"), position + 1 < characters.count, characters[position + 1] != "]" {
        throw failure("a range that begins with a set", at: start)
      }
      set.formUnion(other) { definition(of: $0) }
      return
    }
    position = start
    let lower = try character()
    guard isNext("-"), position + 1 < characters.count, characters[position + 1] != "]" else {
      set.ranges.append(lower...lower)
      return
    }
    guard !isNext("-&&"), !isNext("-[") else { throw failure("a range without an end", at: start) }
    position += 1
    let place = position
    let upper = try character()
    guard lower <= upper else { throw failure("a range that ends before it begins", at: place) }
    set.ranges.append(lower...upper)
  }

  private mutating func character() throws(TokenizerError) -> UInt32 {
    if skip("\\") { return try escapedCharacter(isInBrackets: true) }
    guard let character = next else { throw failure("brackets that are not closed") }
    position += 1
    return character.value
  }
}
