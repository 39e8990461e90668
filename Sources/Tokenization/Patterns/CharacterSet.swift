/// A set of characters in a pattern: what stands in brackets, or a property.
struct CharacterSet {
  var ranges: UnicodeTable.Ranges = []
  /// Bits of general categories.
  var categories: UInt32 = 0
  /// Expressions for sets of their own, each of which matches one character.
  var others: [String] = []
  var isNegated = false

  static let allCategories: UInt32 = 1 << 30 - 1

  init(_ ranges: UnicodeTable.Ranges = [], categories: UInt32 = 0, isNegated: Bool = false) {
    self.ranges = ranges
    self.categories = categories
    self.isNegated = isNegated
  }

  static let space = CharacterSet(UnicodeTable.whiteSpace)
  static let digit = CharacterSet(categories: 1 << 8)
  static let hexDigit = CharacterSet([0x30...0x39, 0x41...0x46, 0x61...0x66])
  /// `\w` in brackets; outside, Oniguruma takes six numbers more.
  static let word = CharacterSet(
    UnicodeTable.wordExtras, categories: UnicodeTable.wordCategories)
  static let wordOutsideBrackets = CharacterSet(
    [0xB2...0xB3, 0xB9...0xB9, 0xBC...0xBE] + UnicodeTable.wordExtras,
    categories: UnicodeTable.wordCategories)

  var negated: CharacterSet {
    var copy = self
    copy.isNegated.toggle()
    return copy
  }

  /// Whether it consists of ASCII alone, and is not negated.
  var isASCII: Bool {
    categories == 0 && others.isEmpty && !isNegated && ranges.allSatisfy { $0.upperBound < 0x80 }
  }

  /// Adds the characters of another set.
  mutating func formUnion(_ other: CharacterSet, _ written: (CharacterSet) -> String) {
    if !other.isNegated {
      ranges += other.ranges
      categories |= other.categories
      others += other.others
    } else if other.ranges.isEmpty, other.others.isEmpty {
      categories |= ~other.categories & Self.allCategories
    } else if other.categories == 0, other.others.isEmpty {
      let sorted = other.ranges.sorted { $0.lowerBound < $1.lowerBound }
      ranges += UnicodeTable.complement(Self.joined(sorted))
    } else {
      others.append(written(other))
    }
  }

  private static func joined(_ sorted: UnicodeTable.Ranges) -> UnicodeTable.Ranges {
    var result: UnicodeTable.Ranges = []
    for range in sorted {
      if let last = result.last, last.upperBound + 1 >= range.lowerBound {
        result[result.count - 1] = last.lowerBound...max(last.upperBound, range.upperBound)
      } else {
        result.append(range)
      }
    }
    return result
  }

  /// A bracket expression of PCRE2 for ``ranges`` and ``categories``; nil for none of them.
  ///
  /// - Parameter expands: whether categories are written as the code points of ``UnicodeTable``.
  func brackets(expands: Bool) -> String? {
    if ranges.isEmpty, categories == 0 { return nil }
    var contents = ""
    if categories != 0, !expands { contents += Self.properties(categories) }
    let expanded = expands && categories != 0 ? UnicodeTable.ranges(categories: categories) : []
    for range in Self.joined((ranges + expanded).sorted { $0.lowerBound < $1.lowerBound }) {
      contents += Self.escaped(range.lowerBound)
      if range.count > 1 { contents += "-" + Self.escaped(range.upperBound) }
    }
    return (isNegated && others.isEmpty ? "[^" : "[") + contents + "]"
  }

  /// Properties of PCRE2 for the categories of a mask, as few as may be.
  private static func properties(_ mask: UInt32) -> String {
    for (bits, name) in names where mask == ~bits & allCategories { return #"\P{\#(name)}"# }
    var rest = mask
    var result = ""
    for (bits, name) in names where rest & bits == bits {
      rest &= ~bits
      result += #"\p{\#(name)}"#
    }
    return result
  }

  /// Names of one letter first.
  private static let names: [(bits: UInt32, name: String)] = {
    let single = UnicodeTable.categoryNames.enumerated().map {
      (bits: UInt32(1) << UInt32($0.offset), name: $0.element)
    }
    let majors = "LMNPSZC".map { major in
      (
        bits: single.filter { $0.name.first == major }.reduce(UInt32(0)) { $0 | $1.bits },
        name: String(major)
      )
    }
    return majors + single
  }()

  /// The categories that a property's name stands for, in lower case without separators; nil for none.
  static func categories(named name: String) -> UInt32? {
    if name == "any" { return allCategories }
    if name == "assigned" { return allCategories & ~(1 << 29) }
    if name == "lc" || name == "casedletter" { return 0b111 }
    let short = longNames[name] ?? name
    return names.first { $0.name.lowercased() == short }?.bits
  }

  private static let longNames = [
    "letter": "l", "uppercaseletter": "lu", "lowercaseletter": "ll", "titlecaseletter": "lt",
    "modifierletter": "lm", "otherletter": "lo", "mark": "m", "nonspacingmark": "mn",
    "spacingmark": "mc", "enclosingmark": "me", "number": "n", "decimalnumber": "nd",
    "letternumber": "nl", "othernumber": "no", "punctuation": "p", "connectorpunctuation": "pc",
    "dashpunctuation": "pd", "openpunctuation": "ps", "closepunctuation": "pe",
    "initialpunctuation": "pi", "finalpunctuation": "pf", "otherpunctuation": "po", "symbol": "s",
    "mathsymbol": "sm", "currencysymbol": "sc", "modifiersymbol": "sk", "othersymbol": "so",
    "separator": "z", "spaceseparator": "zs", "lineseparator": "zl", "paragraphseparator": "zp",
    "other": "c", "control": "cc", "format": "cf", "privateuse": "co", "surrogate": "cs",
    "unassigned": "cn", "punct": "p", "digit": "nd", "cntrl": "cc",
  ]

  static func escaped(_ codePoint: UInt32) -> String {
    switch codePoint {
    case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: String(UnicodeScalar(UInt8(codePoint)))
    default: #"\x{\#(String(codePoint, radix: 16))}"#
    }
  }
}
