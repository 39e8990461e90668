import ModelFormat
import TensorBasics

/// Byte-pair encoding by learned merges, within the pieces of a pre-tokenizer.
struct BytePairEncoder: Sendable {
  let vocabulary: Vocabulary
  private let merges: RankedMerges
  private let preTokenizer: PreTokenizer
  private let options: PreTokenizerRule.Options
  /// nil = a character without a token is written as its bytes, as far as those have one.
  private let fallback: Vocabulary.Fallback?
  /// Whether there are characters that leave nothing behind, and their neighbours neighbours.
  private let dropsUnknown: Bool
  private let spaces: EscapedSpaces

  /// - Parameters:
  ///   - merges: "left right" with one space, best first.
  ///   - fallback: of a Hugging Face folder, whose merges are of characters if the vocabulary is not byte-level.
  init(
    _ original: consuming Vocabulary, merges: PackedStrings,
    steps: [TokenizerPipeline.PreTokenizer], options: PreTokenizerRule.Options,
    fallback: Vocabulary.Fallback? = nil
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
    self.merges = RankedMerges(
      strings: vocabulary.strings, rankedPairs: pairs, takesLast: fallback != nil)
    self.spaces = spaces
    preTokenizer = try PreTokenizer(steps)
    self.options = options
    self.fallback = fallback
    if let fallback, fallback.unknown < 0, !fallback.usesBytes {
      dropsUnknown = vocabulary.spelling != .bytes || vocabulary.byteTokens.contains { $0 < 0 }
    } else {
      dropsUnknown = false
    }
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
        return try encodePieces(of: text, startsText: startsText, into: &output)
      }
      var bytes: [UInt8] = []
      swap(&bytes, &escaped)
      EscapedSpaces.escape(text, startsWithSpace: false, into: &bytes)
      try bytes.withUnsafeBufferPointer { buffer throws(TokenizerError) in
        try encodePieces(of: buffer, startsText: startsText, into: &output)
      }
      swap(&bytes, &escaped)
    }

    private mutating func encodePieces(
      of text: UnsafeBufferPointer<UInt8>, startsText: Bool, into output: inout [Int32]
    ) throws(TokenizerError) {
      var merger = SegmentMerger(rule: encoder.merges)
      swap(&merger, &self.merger)
      defer { swap(&merger, &self.merger) }
      let encoder = self.encoder
      try encoder.preTokenizer.forEachPiece(of: text, startsText: startsText, matcher) { piece in
        encoder.encode(piece, &merger, into: &output)
      }
    }
  }

  private func encode(
    _ piece: UnsafeBufferPointer<UInt8>, _ merger: inout SegmentMerger<RankedMerges>,
    into output: inout [Int32]
  ) {
    // What closures capture is counted anew for every piece: not all of the encoder.
    let vocabulary = vocabulary
    let staysWhole =
      options.contains(.wholePieces) || (options.contains(.wholeNewlines) && piece[0] == 0x0A)
    if staysWhole {
      let token = vocabulary.token(of: vocabulary.strings.find(piece))
      if token >= 0, vocabulary.attributes[Int(token)].isDisjoint(with: .unreachable) {
        output.append(token)
        return
      }
    }
    if let fallback { return encode(piece, fallback, &merger, into: &output) }
    guard options.contains(.escapesSpaces) else {
      merger.merge(piece, isByteLevel: true) { number, bytes in
        vocabulary.appendTokens(of: number, bytes, unknown: -1, to: &output)
      }
      return
    }
    spaces.forEachSegment(of: piece) { segment in
      merger.merge(segment, isByteLevel: false) { number, bytes in
        vocabulary.appendTokens(of: number, bytes, unknown: -1, to: &output)
      }
    }
  }

  private func encode(
    _ piece: UnsafeBufferPointer<UInt8>, _ fallback: Vocabulary.Fallback,
    _ merger: inout SegmentMerger<RankedMerges>, into output: inout [Int32]
  ) {
    var followsUnknown = false
    let vocabulary = vocabulary
    func merge(_ segment: UnsafeBufferPointer<UInt8>, isByteLevel: Bool) {
      merger.merge(segment, isByteLevel: isByteLevel) { number, bytes in
        vocabulary.appendTokens(
          of: number, bytes, fallback, followsUnknown: &followsUnknown, to: &output)
      }
    }
    let isByteLevel = vocabulary.spelling == .bytes
    if dropsUnknown {
      return known(in: piece, isByteLevel: isByteLevel).withUnsafeBufferPointer {
        merge($0, isByteLevel: isByteLevel)
      }
    }
    if isByteLevel { return merge(piece, isByteLevel: true) }
    spaces.forEachSegment(of: piece) { merge($0, isByteLevel: false) }
  }

  /// The characters, or bytes, of a piece that are tokens.
  private func known(in piece: UnsafeBufferPointer<UInt8>, isByteLevel: Bool) -> [UInt8] {
    var bytes: [UInt8] = []
    var position = 0
    while position < piece.count {
      let end = position + (isByteLevel ? 1 : UTF8Scanner.symbolLength(in: piece, at: position))
      let symbol = UnsafeBufferPointer(rebasing: piece[position..<end])
      let token = vocabulary.token(of: vocabulary.strings.find(symbol))
      if token >= 0, vocabulary.attributes[Int(token)].isDisjoint(with: .unreachable) {
        bytes.append(contentsOf: symbol)
      }
      position = end
    }
    return bytes
  }
}
