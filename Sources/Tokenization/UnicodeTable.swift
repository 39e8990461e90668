import ModelFormat

/// General categories and scripts of Unicode 16, whatever version the system's libraries know.
enum UnicodeTable {
  /// Neighbouring code points of one value; they end where the next run begins.
  struct Run: Sendable {
    var start: UInt32
    var value: UInt8
  }

  /// Code points, as ascending ranges with gaps between them.
  typealias Ranges = [ClosedRange<UInt32>]

  static let end: UInt32 = 0x110000

  /// Two-letter names by number; `LC` and one-letter names stand for several.
  static let categoryNames = [
    "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi",
    "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cs", "Cn",
  ]

  private static let categories = unpack(UnicodeData.categories)
  private static let scripts = unpack(UnicodeData.scripts)

  private static func unpack(_ text: String) -> [Run] {
    var runs: [Run] = []
    var start: UInt32 = 0
    var bytes = (Base64.decode(text.utf8) ?? []).makeIterator()
    while var byte = bytes.next() {
      var count: UInt32 = 0
      var shift: UInt32 = 0
      while byte & 0x80 != 0, let next = bytes.next() {
        count |= UInt32(byte & 0x7F) << shift
        shift += 7
        byte = next
      }
      count |= UInt32(byte) << shift
      runs.append(Run(start: start, value: bytes.next() ?? 0))
      start += count
    }
    return runs
  }

  private static func ranges(_ runs: [Run], where isWanted: (UInt8) -> Bool) -> Ranges {
    var result: Ranges = []
    for (index, run) in runs.enumerated() where isWanted(run.value) {
      let last = (index + 1 < runs.count ? runs[index + 1].start : end) - 1
      if let before = result.last, before.upperBound + 1 == run.start {
        result[result.count - 1] = before.lowerBound...last
      } else {
        result.append(run.start...last)
      }
    }
    return result
  }

  /// The code points of the categories whose bits are set.
  static func ranges(categories mask: UInt32) -> Ranges {
    ranges(categories) { mask >> UInt32($0) & 1 != 0 }
  }

  /// The code points of a script, named in lower case without underscores; nil for none.
  static func ranges(script name: String) -> Ranges? {
    guard let index = UnicodeData.scriptNames.firstIndex(of: name) else { return nil }
    return ranges(scripts) { $0 == index }
  }

  /// What is not in ascending `ranges`.
  static func complement(_ ranges: Ranges) -> Ranges {
    var result: Ranges = []
    var next: UInt32 = 0
    for range in ranges {
      if range.lowerBound > next { result.append(next...range.lowerBound - 1) }
      next = range.upperBound + 1
    }
    if next < end { result.append(next...end - 1) }
    return result
  }

  /// The number of a code point's category.
  static func category(of codePoint: UInt32) -> Int { Int(value(of: codePoint, in: categories)) }

  private static func value(of codePoint: UInt32, in runs: [Run]) -> UInt8 {
    var (low, high) = (0, runs.count)
    while low < high {
      let middle = (low + high) / 2
      if runs[middle].start <= codePoint { low = middle + 1 } else { high = middle }
    }
    return low > 0 ? runs[low - 1].value : 0
  }

  // MARK: Characters of words and white space

  /// What words consist of beside letters, marks, digits, letter-like numbers and connectors:
  /// Unicode's other alphabetic characters.
  static let wordExtras: Ranges = [
    0x24B6...0x24E9, 0x1F130...0x1F149, 0x1F150...0x1F169, 0x1F170...0x1F189,
  ]
  /// Categories of words: L, M, Nd, Nl, Pc.
  static let wordCategories: UInt32 = 0b1011_1111_1111

  static let whiteSpace: Ranges = [
    0x9...0xD, 0x20...0x20, 0x85...0x85, 0xA0...0xA0, 0x1680...0x1680, 0x2000...0x200A,
    0x2028...0x2029, 0x202F...0x202F, 0x205F...0x205F, 0x3000...0x3000,
  ]

  static func isWhiteSpace(_ codePoint: UInt32) -> Bool {
    whiteSpace.contains { $0.contains(codePoint) }
  }

  /// Whether words consist of such characters, joiners among them.
  static func isWord(_ codePoint: UInt32) -> Bool {
    wordCategories >> UInt32(category(of: codePoint)) & 1 != 0
      || (0x200C...0x200D).contains(codePoint)
      || wordExtras.contains { $0.contains(codePoint) }
  }

  // MARK: Young characters

  private static let young = unpack(UnicodeData.young)
  /// Which blocks of 256 code points have young ones.
  private static let youngPages: [Bool] = {
    var pages = [Bool](repeating: false, count: Int(end) >> 8)
    for range in ranges(young, where: { $0 == 1 }) {
      for page in range.lowerBound >> 8...range.upperBound >> 8 { pages[Int(page)] = true }
    }
    return pages
  }()

  /// Whether well-formed UTF-8 has a character that Unicode 14 lacks or has in another category.
  static func hasYoung(_ text: UnsafeBufferPointer<UInt8>) -> Bool {
    youngPages.withUnsafeBufferPointer { pages in
      var position = 0
      while position < text.count {
        let lead = text[position]
        // Two-byte characters have young ones too, but nothing below U+0250.
        if lead < 0xC9 {
          position += lead < 0x80 ? 1 : 2
          continue
        }
        let (codePoint, count) = UTF8Scanner.codePoint(in: text, at: position)
        if pages[Int(codePoint >> 8)], value(of: codePoint, in: young) == 1 { return true }
        position += count
      }
      return false
    }
  }
}
