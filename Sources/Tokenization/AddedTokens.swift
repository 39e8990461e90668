import ModelFormat
import TensorBasics

/// Cuts text at the added tokens of a Hugging Face folder: leftmost first, of those the longest.
///
/// Most are looked for in the text as it is, the others, which are normalised themselves, after it is
/// normalised. Flags say which of them take white space in or must stand alone.
struct AddedTokens: Sendable {
  /// Where control tokens are recognised.
  enum Control {
    case nowhere
    case everywhere
    case ranges([Range<Int>])
  }

  private struct Group: Sendable {
    let matcher: PrefixMatcher
    let strings: StringIndex
    let tokens: [Int32]

    init(_ contents: [(token: Int32, bytes: [UInt8])]) {
      var packed = PackedStrings()
      for content in contents { packed.append(content.bytes) }
      strings = StringIndex(packed)
      tokens = contents.map(\.token)
      matcher = PrefixMatcher(0..<UInt32(contents.count), of: strings)
    }
  }

  private let flags: [Int32: AddedTokenFlags]
  private let verbatim: Group
  private let normalized: Group
  /// Those of `normalized`, as they are spelt.
  private let spelled: Group
  /// Whether normalising changes nothing.
  private let keepsText: Bool

  init(
    _ definition: borrowing TokenizerDefinition, _ normalizer: TextNormalizer
  ) throws(TokenizerError) {
    var flags: [Int32: AddedTokenFlags] = [:]
    var contents: (verbatim: [(Int32, [UInt8])], normalized: [(Int32, [UInt8])]) = ([], [])
    var spelled: [(Int32, [UInt8])] = []
    let matcher = try RegularExpression.Matcher()
    var (byteCount, changedByteCount) = (0, 0)
    for id in definition.addedFlags.indices {
      let flag = AddedTokenFlags(rawValue: definition.addedFlags[id])
      guard flag.contains(.added) else { continue }
      let token = Int32(id)
      let bytes = Array(definition.tokens[id])
      flags[token] = flag
      if flag.contains(.normalized) {
        spelled.append((token, bytes))
        let changed = try bytes.withUnsafeBufferPointer { bytes throws(TokenizerError) in
          try normalizer.normalized(bytes, matcher)
        }
        byteCount += bytes.count
        changedByteCount += changed.count
        guard changedByteCount <= 1 << 20 + 64 * byteCount else {
          throw .unsupportedStep("replacements that make added tokens too long")
        }
        contents.normalized.append((token, changed))
      } else {
        contents.verbatim.append((token, bytes))
      }
    }
    self.flags = flags
    verbatim = Group(contents.verbatim)
    normalized = Group(contents.normalized)
    self.spelled = Group(spelled)
    keepsText = normalizer.isEmpty
  }

  /// The fragments of a text before it is normalised.
  ///
  /// - Parameter reserved: user-defined tokens that are recognised only where control tokens are.
  func fragments(
    of text: UnsafeBufferPointer<UInt8>, control: Control, reserved: Set<UInt32>,
    in vocabulary: Vocabulary
  ) -> [SpecialTokens.Fragment] {
    guard case .ranges(let ranges) = control else {
      var isEverywhere = false
      if case .everywhere = control { isEverywhere = true }
      return cut(
        text, at: verbatim, isEligible: { _, _ in true },
        counts: { token, _ in isEverywhere || !isGuarded(token, reserved, vocabulary) })
    }
    func counts(_ token: Int32, _ range: Range<Int>) -> Bool {
      !isGuarded(token, reserved, vocabulary) || SpecialTokens.contains(ranges, range)
    }
    let fragments = cut(text, at: verbatim, isEligible: { _, _ in true }, counts: counts)
    if spelled.matcher.isEmpty { return fragments }
    // After normalising nobody could tell whose text it was: what counts in markup only is found here.
    return fragments.flatMap { fragment in
      if fragment.token >= 0 { return [fragment] }
      let start = fragment.range.lowerBound
      func place(_ range: Range<Int>) -> Range<Int> {
        start + range.lowerBound..<start + range.upperBound
      }
      return cut(
        UnsafeBufferPointer(rebasing: text[fragment.range]), at: spelled,
        isEligible: { token, range in
          keepsText || isGuarded(token, reserved, vocabulary) && counts(token, place(range))
        },
        counts: { token, range in counts(token, place(range)) }
      ).map { SpecialTokens.Fragment(range: place($0.range), token: $0.token) }
    }
  }

  /// The fragments of a normalised text.
  func fragments(
    ofNormalized text: UnsafeBufferPointer<UInt8>, control: Control, reserved: Set<UInt32>,
    in vocabulary: Vocabulary
  ) -> [SpecialTokens.Fragment] {
    var isEverywhere = false
    if case .everywhere = control { isEverywhere = true }
    return cut(
      text, at: normalized, isEligible: { _, _ in true },
      counts: { token, _ in isEverywhere || !isGuarded(token, reserved, vocabulary) })
  }

  private func isGuarded(
    _ token: Int32, _ reserved: Set<UInt32>, _ vocabulary: Vocabulary
  ) -> Bool {
    reserved.contains(UInt32(token))
      || !vocabulary.attributes[Int(token)].isDisjoint(with: .hidden)
  }

  /// Cuts at every token that counts. One that does not is stepped over, with all that begins in it.
  private func cut(
    _ text: UnsafeBufferPointer<UInt8>, at group: Group,
    isEligible: (Int32, Range<Int>) -> Bool, counts: (Int32, Range<Int>) -> Bool
  ) -> [SpecialTokens.Fragment] {
    var fragments: [SpecialTokens.Fragment] = []
    var (textStart, position, spaceEnd) = (0, 0, 0)
    while position < text.count, !group.matcher.isEmpty {
      var longest: (token: Int32, end: Int)?
      group.matcher.forEachMatch(in: text, at: position) { number, count in
        let token = group.tokens[Int(number)]
        if isEligible(token, position..<position + count) { longest = (token, position + count) }
      }
      guard let (token, end) = longest else {
        position += 1
        continue
      }
      let range = position..<end
      position = end
      guard counts(token, range),
        let (start, stop) = taken(range, by: token, from: textStart, in: text, &spaceEnd)
      else { continue }
      if start > textStart {
        fragments.append(SpecialTokens.Fragment(range: textStart..<start, token: -1))
      }
      fragments.append(SpecialTokens.Fragment(range: start..<max(start, stop), token: token))
      // A token in the white space that the one before it took gives the rest of that back.
      textStart = stop
    }
    if textStart < text.count {
      fragments.append(SpecialTokens.Fragment(range: textStart..<text.count, token: -1))
    }
    return fragments
  }

  /// What a token at `range` takes of the text from `lowest` on, which may lie after it; nil where it may
  /// not stand.
  ///
  /// - Parameter spaceEnd: where the white space ends that was looked at last, so that no more than once.
  private func taken(
    _ range: Range<Int>, by token: Int32, from lowest: Int, in text: UnsafeBufferPointer<UInt8>,
    _ spaceEnd: inout Int
  ) -> (start: Int, stop: Int)? {
    let flags = flags[token, default: []]
    var (start, end) = (max(range.lowerBound, lowest), range.upperBound)
    if flags.contains(.singleWord) {
      let before = WhiteSpace.character(before: range.lowerBound, in: text, from: 0)
      if let before, UnicodeTable.isWord(before.codePoint) { return nil }
      if end < text.count, case .character = UTF8Scanner.unit(in: text, at: end),
        UnicodeTable.isWord(UTF8Scanner.codePoint(in: text, at: end).codePoint)
      {
        return nil
      }
    }
    if flags.contains(.stripsLeft) {
      start -= WhiteSpace.count(before: start, in: text, from: lowest)
    }
    if flags.contains(.stripsRight) {
      if end >= spaceEnd { spaceEnd = end + WhiteSpace.count(after: end, in: text) }
      end = spaceEnd
    }
    return (start, end)
  }
}
