import Glibc

/// Cuts text at the special tokens spelt out in it, before anything else looks at it.
///
/// Longer tokens are looked for before shorter ones, in the whole text: a long token is found even
/// where a shorter one begins before it. Equal lengths go by id.
struct SpecialTokens: Sendable {
  /// A run of text, or a token that was spelt out.
  struct Fragment {
    var range: Range<Int>
    /// -1 for text.
    var token: Int32
  }

  private let matcher: PrefixMatcher

  init(_ vocabulary: Vocabulary) {
    let special = (0..<UInt32(vocabulary.count)).filter {
      !vocabulary.attributes[Int($0)].isDisjoint(with: .special)
    }
    matcher = PrefixMatcher(special, of: vocabulary.strings)
  }

  /// The fragments of `text` in order.
  ///
  /// - Parameters:
  ///   - controlRanges: where control and unknown tokens are recognised; elsewhere their spelling is
  ///     text. User-defined tokens are recognised everywhere.
  ///   - reserved: user-defined tokens that are recognised only where control tokens are.
  func partition(
    _ text: UnsafeBufferPointer<UInt8>, controlRanges: [Range<Int>], reserved: Set<UInt32>,
    of vocabulary: Vocabulary
  ) -> [Fragment] {
    var fragments = [Fragment(range: 0..<text.count, token: -1)]
    if text.isEmpty { return [] }
    if matcher.isEmpty { return fragments }
    let present = tokensPresent(
      in: text, of: vocabulary, includesHidden: !controlRanges.isEmpty)
    for token in present {
      fragments = split(
        fragments, at: token, in: text, controlRanges: controlRanges,
        isReserved: reserved.contains(token), of: vocabulary)
    }
    return fragments
  }

  /// User-defined tokens of more than white space that are spelt out in any of `texts`.
  func userDefined(in texts: [[UInt8]], of vocabulary: Vocabulary) -> Set<UInt32> {
    var found = Set<UInt32>()
    for text in texts {
      text.withUnsafeBufferPointer { text in
        for position in 0..<text.count {
          matcher.forEachMatch(in: text, at: position) { number, count in
            let isBlank = text[position..<position + count].allSatisfy(Self.isSpace)
            let attributes = vocabulary.attributes[Int(number)]
            if attributes.contains(.userDefined), !isBlank { found.insert(number) }
          }
        }
      }
    }
    return found
  }

  /// Special tokens whose spelling occurs at all, in the order in which they are looked for.
  private func tokensPresent(
    in text: UnsafeBufferPointer<UInt8>, of vocabulary: Vocabulary, includesHidden: Bool
  ) -> [UInt32] {
    var found = Set<UInt32>()
    for position in 0..<text.count {
      matcher.forEachMatch(in: text, at: position) { number, _ in
        if includesHidden || vocabulary.attributes[Int(number)].isDisjoint(with: .hidden) {
          found.insert(number)
        }
      }
    }
    return found.sorted {
      let (first, second) = (
        vocabulary.strings.byteCount(of: $0), vocabulary.strings.byteCount(of: $1)
      )
      return first == second ? $0 < $1 : first > second
    }
  }

  private func split(
    _ fragments: [Fragment], at token: UInt32, in text: UnsafeBufferPointer<UInt8>,
    controlRanges: [Range<Int>], isReserved: Bool, of vocabulary: Vocabulary
  ) -> [Fragment] {
    let attributes = vocabulary.attributes[Int(token)]
    let isHidden = isReserved || !attributes.isDisjoint(with: .hidden)
    let count = vocabulary.strings.byteCount(of: token)
    return vocabulary.strings[token].withUnsafeBufferPointer { spelling in
      var result: [Fragment] = []
      for fragment in fragments {
        guard fragment.token < 0 else {
          result.append(fragment)
          continue
        }
        var textStart = fragment.range.lowerBound
        var searchStart = textStart
        while let match = Self.find(spelling, in: text, searchStart..<fragment.range.upperBound) {
          if isHidden, !Self.contains(controlRanges, match..<match + count) {
            searchStart = match + 1
            continue
          }
          if match > textStart { result.append(Fragment(range: textStart..<match, token: -1)) }
          result.append(Fragment(range: match..<match + count, token: Int32(token)))
          textStart = match + count
          if attributes.contains(.stripsRight) {
            while textStart < fragment.range.upperBound, Self.isSpace(text[textStart]) {
              textStart += 1
            }
          }
          searchStart = textStart
        }
        if textStart < fragment.range.upperBound {
          result.append(Fragment(range: textStart..<fragment.range.upperBound, token: -1))
        }
      }
      return result
    }
  }

  /// Whether one of the ascending `ranges` contains all of `range`.
  static func contains(_ ranges: [Range<Int>], _ range: Range<Int>) -> Bool {
    var (low, high) = (0, ranges.count)
    while low < high {
      let middle = (low + high) / 2
      if ranges[middle].upperBound < range.upperBound { low = middle + 1 } else { high = middle }
    }
    return low < ranges.count && ranges[low].lowerBound <= range.lowerBound
  }

  /// White space of the C locale.
  private static func isSpace(_ byte: UInt8) -> Bool {
    byte == 0x20 || (0x09...0x0D).contains(byte)
  }

  private static func find(
    _ needle: UnsafeBufferPointer<UInt8>, in text: UnsafeBufferPointer<UInt8>, _ range: Range<Int>
  ) -> Int? {
    guard range.count >= needle.count, let base = text.baseAddress else { return nil }
    var position = range.lowerBound
    let last = range.upperBound - needle.count
    while position <= last,
      let hit = memchr(base + position, Int32(needle[0]), last - position + 1)
    {
      position = UnsafePointer(hit.assumingMemoryBound(to: UInt8.self)) - base
      if memcmp(base + position, needle.baseAddress!, needle.count) == 0 { return position }
      position += 1
    }
    return nil
  }
}
