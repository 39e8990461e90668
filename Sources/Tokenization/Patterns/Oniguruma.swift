/// Translates a regular expression from Oniguruma's syntax and meaning, which Hugging Face's tokenizers use,
/// to PCRE2's (`docs/decisions/0040`).
///
/// Groups do not capture. What has no translation, or might have another meaning, is refused with its place.
struct Oniguruma {
  /// What a pattern becomes.
  struct Translation {
    /// With PCRE2's own properties, which are of the Unicode version it was built with.
    var plain: String
    /// With code points of Unicode 16 in their place; nil if there is no difference.
    var expanded: String?
  }

  /// - Throws: ``TokenizerError/unsupportedPattern(pattern:offset:reason:)``.
  static func translate(_ pattern: String) throws(TokenizerError) -> Translation {
    guard pattern.utf8.count <= patternByteLimit else {
      throw .unsupportedPattern(
        pattern: String(pattern.prefix(40)) + "…", offset: patternByteLimit,
        reason: "more than the \(patternByteLimit) bytes that it may have")
    }
    var translator = Oniguruma(pattern, expands: false)
    let plain = try translator.whole()
    guard translator.usesCategories else { return Translation(plain: plain) }
    var second = Oniguruma(pattern, expands: true)
    return Translation(plain: plain, expanded: try second.whole())
  }

  private static let patternByteLimit = 1 << 14
  private static let depthLimit = 64

  let pattern: String
  let characters: [Unicode.Scalar]
  /// Index of the next character.
  var position = 0
  private let expands: Bool
  private(set) var usesCategories = false
  private var depth = 0
  private var isCaseless = false
  private var crossesLines = false
  /// Sets that are long, each written once and called by its number.
  private var definitions: [String] = []

  private init(_ pattern: String, expands: Bool) {
    self.pattern = pattern
    self.expands = expands
    characters = Array(pattern.unicodeScalars)
  }

  func failure(_ reason: String, at place: Int? = nil) -> TokenizerError {
    .unsupportedPattern(pattern: pattern, offset: place ?? position, reason: reason)
  }

  var next: Unicode.Scalar? { position < characters.count ? characters[position] : nil }

  func isNext(_ text: String) -> Bool {
    let wanted = text.unicodeScalars
    return characters[position...].starts(with: wanted)
  }

  /// Steps over `text` if it comes next.
  mutating func skip(_ text: String) -> Bool {
    guard isNext(text) else { return false }
    position += text.unicodeScalars.count
    return true
  }

  private mutating func whole() throws(TokenizerError) -> String {
    let result = try alternatives()
    guard position == characters.count else { throw failure("a ) that closes nothing") }
    if definitions.isEmpty { return result }
    return "(?(DEFINE)" + definitions.map { "(\($0))" }.joined() + ")(?:" + result + ")"
  }

  /// Everything up to the end of a group, whose options it ends with.
  private mutating func alternatives() throws(TokenizerError) -> String {
    let (caseless, crosses) = (isCaseless, crossesLines)
    defer { (isCaseless, crossesLines) = (caseless, crosses) }
    depth += 1
    defer { depth -= 1 }
    guard depth <= Self.depthLimit else { throw failure("groups nested too deep") }
    var result = ""
    while let character = next, character != ")" {
      if character == "|" {
        position += 1
        result += "|"
      } else {
        result += try term()
      }
    }
    return result
  }

  /// One character, set, group or assertion with its quantifiers.
  private mutating func term() throws(TokenizerError) -> String {
    let start = position
    let (text, repeats) = try atom()
    var result = text
    var isFirst = true
    while let quantifier = try quantifier() {
      guard repeats else { throw failure("nothing to repeat", at: start) }
      // A quantifier of a quantifier, such as {1,3}+, repeats the repetition.
      result = (isFirst ? result : "(?:\(result))") + quantifier
      isFirst = false
    }
    return result
  }

  private mutating func quantifier() throws(TokenizerError) -> String? {
    guard let character = next else { return nil }
    switch character {
    case "*", "+", "?":
      position += 1
      if skip("?") { return "\(character)?" }
      if skip("+") { return "\(character)+" }
      return String(character)
    case "{":
      let start = position
      guard let bounds = interval() else { return nil }
      guard (bounds.upper ?? bounds.lower) >= bounds.lower,
        max(bounds.lower, bounds.upper ?? 0) < 65536
      else { throw failure("an interval that PCRE2 does not have", at: start) }
      let text =
        "{\(bounds.lower)"
        + (bounds.upper == bounds.lower ? "" : ",\(bounds.upper.map(String.init) ?? "")") + "}"
      guard isNext("?") else { return text }
      guard bounds.upper != bounds.lower else { throw failure("{n}? has several meanings") }
      position += 1
      return text + "?"
    default: return nil
    }
  }

  /// `{n}`, `{n,}`, `{,m}` or `{n,m}`; anything else is text, and nothing is stepped over.
  private mutating func interval() -> (lower: Int, upper: Int?)? {
    let start = position
    position += 1
    let lower = number()
    let hasComma = skip(",")
    let upper = hasComma ? number() : lower
    guard skip("}"), lower != nil || (hasComma && upper != nil) else {
      position = start
      return nil
    }
    return (lower ?? 0, upper)
  }

  private mutating func number() -> Int? {
    var value: Int?
    while let digit = next, ("0"..."9").contains(digit) {
      value = min((value ?? 0) * 10 + Int(digit.value - 48), 1 << 20)
      position += 1
    }
    return value
  }

  private mutating func atom() throws(TokenizerError) -> (text: String, repeats: Bool) {
    let start = position
    let character = characters[position]
    position += 1
    switch character {
    case "(": return try group()
    case "[":
      let set = try brackets()
      return (try written(set, at: start), true)
    case ".": return (crossesLines ? "(?s:.)" : #"[^\n]"#, true)
    case "^": return ("^", false)
    case "$": return ("$", false)
    case "\\": return try escape()
    case "*", "+", "?": throw failure("nothing to repeat", at: start)
    default: return (try literal(character, at: start), true)
    }
  }

  /// A character that stands for itself; some of neighbours in any case stand for one character too.
  private func literal(_ character: Unicode.Scalar, at place: Int) throws(TokenizerError) -> String
  {
    if isCaseless {
      guard character.isASCII else { throw failure("a letter beyond ASCII in any case", at: place) }
      if let follower = place + 1 < characters.count ? characters[place + 1] : nil {
        let pair = "\(character)\(follower)".lowercased()
        if ["ss", "ff", "fi", "fl", "st"].contains(pair) {
          throw failure("\"\(pair)\" in any case, for which one character can stand", at: place)
        }
      }
    }
    return CharacterSet.escaped(character.value)
  }

  /// The expression for one character of a set.
  func write(_ set: CharacterSet) -> (body: String, isLong: Bool) {
    let isLong = expands && set.categories != 0
    let brackets = set.brackets(expands: expands)
    if set.others.isEmpty { return (brackets ?? (set.isNegated ? "(?s:.)" : "(?!)"), isLong) }
    let either = "(?:" + (set.others + [brackets].compactMap { $0 }).joined(separator: "|") + ")"
    return (set.isNegated ? "(?:(?!\(either))(?s:.))" : either, isLong)
  }

  mutating func written(_ set: CharacterSet, at place: Int) throws(TokenizerError) -> String {
    if isCaseless, !set.isASCII {
      throw failure("a set with more than ASCII, or a negated one, in any case", at: place)
    }
    return definition(of: set)
  }

  /// The expression for a set: in place, or where that is long a call.
  mutating func definition(of set: CharacterSet) -> String {
    usesCategories = usesCategories || set.categories != 0
    let (body, isLong) = write(set)
    guard isLong else { return body }
    if let known = definitions.firstIndex(of: body) { return "(?\(known + 1))" }
    definitions.append(body)
    return "(?\(definitions.count))"
  }

  // MARK: Groups

  private mutating func group() throws(TokenizerError) -> (text: String, repeats: Bool) {
    let start = position - 1
    func close(_ translator: inout Oniguruma, _ opening: String) throws(TokenizerError) -> String {
      let inside = try translator.alternatives()
      guard translator.skip(")") else {
        throw translator.failure("a group that is not closed", at: start)
      }
      return opening + inside + ")"
    }
    guard skip("?") else { return (try close(&self, "(?:"), true) }
    for kind in [":", ">"] where skip(kind) { return (try close(&self, "(?" + kind), true) }
    for kind in ["=", "!", "<=", "<!"] where skip(kind) {
      return (try close(&self, "(?" + kind), false)
    }
    if skip("#") {
      while let character = next, character != ")" { position += character == "\\" ? 2 : 1 }
      guard skip(")") else { throw failure("a comment that is not closed", at: start) }
      return ("", false)
    }
    if isNext("<") || isNext("'") {
      let end: Unicode.Scalar = isNext("<") ? ">" : "'"
      position += 1
      while let character = next, character != end,
        character.properties.isAlphabetic || character == "_"
          || ("0"..."9").contains(character)
      {
        position += 1
      }
      guard next == end else { throw failure("a group of unknown kind", at: start) }
      position += 1
      return (try close(&self, "(?:"), true)
    }
    return try options(start, close)
  }

  /// `(?i-m:…)`, or `(?i)`, which reaches to the end of the group around it, alternatives included.
  private mutating func options(
    _ start: Int, _ close: (inout Oniguruma, String) throws(TokenizerError) -> String
  ) throws(TokenizerError) -> (text: String, repeats: Bool) {
    let before = (isCaseless, crossesLines)
    var isOn = true
    while let character = next, character != ":", character != ")" {
      switch character {
      case "-": isOn = false
      case "i": isCaseless = isOn
      case "m": crossesLines = isOn
      default: throw failure("a group of unknown kind or with an unknown option", at: start)
      }
      position += 1
    }
    let opening = isCaseless ? "(?i:" : "(?-i:"
    if skip(":") {
      let text = try close(&self, opening)
      (isCaseless, crossesLines) = before
      return (text, true)
    }
    guard skip(")") else { throw failure("a group that is not closed", at: start) }
    let rest = try alternatives()
    (isCaseless, crossesLines) = before
    return (opening + rest + ")", false)
  }
}
