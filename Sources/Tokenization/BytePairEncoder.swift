import ModelFormat
import TensorBasics

/// Byte-pair encoding by learned merges, within the pieces of a pre-tokenizer.
struct BytePairEncoder: Sendable {
  let vocabulary: Vocabulary
  private let merges: RankedMerges
  private let preTokenizer: PreTokenizer
  private let options: PreTokenizerRule.Options
  private let spaces: EscapedSpaces

  /// - Parameter merges: "left right" with one space, best first.
  init(
    _ original: consuming Vocabulary, merges: PackedStrings, rule: PreTokenizerRule
  ) throws(TokenizerError) {
    guard merges.count < Int(Int32.max) else {
      throw .invalidVocabulary("it has \(merges.count) merges")
    }
    var vocabulary = original
    var spaces = EscapedSpaces(vocabulary.strings)
    var pairs: [UInt64] = []
    pairs.reserveCapacity(merges.count)
    var left: [UInt8] = []
    var right: [UInt8] = []
    for index in 0..<merges.count {
      let merge = merges[index]
      // The first character may itself be a space.
      guard let space = merge.dropFirst().firstIndex(of: 0x20),
        Self.decode(merge[..<space], vocabulary.spelling, into: &left),
        Self.decode(merge[(space + 1)...], vocabulary.spelling, into: &right)
      else {
        pairs.append(UInt64.max)
        continue
      }
      spaces.note(left: left[...], right: right[...])
      let leftNumber = vocabulary.internSide(left[...])
      let rightNumber = vocabulary.internSide(right[...])
      pairs.append(UInt64(leftNumber) << 32 | UInt64(rightNumber))
    }
    self.vocabulary = vocabulary
    self.merges = RankedMerges(strings: vocabulary.strings, rankedPairs: pairs)
    self.spaces = spaces
    preTokenizer = try PreTokenizer(rule)
    options = rule.options
  }

  /// One side of a merge as the bytes it stands for; false for one that no text can contain.
  private static func decode(
    _ side: ArraySlice<UInt8>, _ spelling: Vocabulary.Spelling, into bytes: inout [UInt8]
  ) -> Bool {
    bytes.removeAll(keepingCapacity: true)
    if spelling == .bytes { return ByteAlphabet.decode(side, into: &bytes) && !bytes.isEmpty }
    bytes.append(contentsOf: side)
    return !bytes.isEmpty
  }

  func makeSession() throws(TokenizerError) -> Session { try Session(self) }

  struct Session: EncodingSession, ~Copyable {
    private let encoder: BytePairEncoder
    private let matcher: RegularExpression.Matcher
    private var merger: SegmentMerger<RankedMerges>
    private var escaped: [UInt8] = []

    fileprivate init(_ encoder: BytePairEncoder) throws(TokenizerError) {
      self.encoder = encoder
      matcher = try RegularExpression.Matcher()
      merger = SegmentMerger(rule: encoder.merges)
    }

    mutating func encode(
      _ text: UnsafeBufferPointer<UInt8>, startsText: Bool, into output: inout [Int32]
    ) throws(TokenizerError) {
      guard encoder.options.contains(.escapesSpaces) else {
        return try encodePieces(of: text, into: &output)
      }
      var bytes: [UInt8] = []
      swap(&bytes, &escaped)
      EscapedSpaces.escape(text, startsWithSpace: false, into: &bytes)
      try bytes.withUnsafeBufferPointer { buffer throws(TokenizerError) in
        try encodePieces(of: buffer, into: &output)
      }
      swap(&bytes, &escaped)
    }

    private mutating func encodePieces(
      of text: UnsafeBufferPointer<UInt8>, into output: inout [Int32]
    ) throws(TokenizerError) {
      let ends = try encoder.preTokenizer.pieceEnds(of: text, matcher)
      var start = 0
      for end in ends {
        encodePiece(UnsafeBufferPointer(rebasing: text[start..<Int(end)]), into: &output)
        start = Int(end)
      }
    }

    private mutating func encodePiece(
      _ piece: UnsafeBufferPointer<UInt8>, into output: inout [Int32]
    ) {
      let vocabulary = encoder.vocabulary
      let staysWhole =
        encoder.options.contains(.wholePieces)
        || (encoder.options.contains(.wholeNewlines) && piece[0] == 0x0A)
      if staysWhole {
        let token = vocabulary.token(of: vocabulary.strings.find(piece))
        if token >= 0, vocabulary.attributes[Int(token)].isDisjoint(with: .hidden) {
          output.append(token)
          return
        }
      }
      guard encoder.options.contains(.escapesSpaces) else {
        merger.merge(piece, isByteLevel: true) { number, bytes in
          vocabulary.appendTokens(of: number, bytes, unknown: -1, to: &output)
        }
        return
      }
      encoder.spaces.forEachSegment(of: piece) { segment in
        merger.merge(segment, isByteLevel: false) { number, bytes in
          vocabulary.appendTokens(of: number, bytes, unknown: -1, to: &output)
        }
      }
    }
  }
}
