import ModelFormat

/// SentencePiece's unigram model: the segmentation whose tokens' scores add up to the most.
///
/// Of a GGUF file text is taken as it is but for spaces: a model's own normalisation map (NFKC and the like)
/// is not part of its definition. Of a Hugging Face folder a ``PreTokenizer`` cuts it.
struct UnigramEncoder: Sendable {
  let vocabulary: Vocabulary
  private let matcher: PrefixMatcher
  private let scores: [Float]
  private let unknown: Int32
  private let unknownScore: Double
  private let addsSpacePrefix: Bool
  private let removesExtraWhitespace: Bool
  private let preTokenizer: PreTokenizer?
  private let usesBytes: Bool

  /// How much worse than the worst token an unknown character is.
  private static let unknownPenalty: Float = 10

  init(
    _ vocabulary: Vocabulary, scores: [Float], addsSpacePrefix: Bool, removesExtraWhitespace: Bool,
    unknown: Int32, pipeline: TokenizerPipeline? = nil
  ) throws(TokenizerError) {
    guard scores.count >= vocabulary.count else {
      throw .invalidVocabulary("\(scores.count) scores for \(vocabulary.count) tokens")
    }
    guard unknown >= 0 else { throw .invalidVocabulary("it has no unknown token") }
    self.vocabulary = vocabulary
    self.scores = scores
    self.unknown = unknown
    self.addsSpacePrefix = addsSpacePrefix
    self.removesExtraWhitespace = removesExtraWhitespace
    usesBytes = pipeline?.byteFallback ?? false
    let isOurs: (UInt32) -> Bool = { vocabulary.attributes[Int($0)].isDisjoint(with: .outside) }
    if let pipeline {
      preTokenizer = try PreTokenizer(pipeline.preTokenizers)
    } else {
      preTokenizer = nil
    }
    let ids = 0..<UInt32(vocabulary.count)
    var text: TokenAttributes = [.normal, .userDefined, .unused]
    if pipeline != nil { text.insert(.byte) }
    matcher = PrefixMatcher(
      ids.filter { !vocabulary.attributes[Int($0)].isDisjoint(with: text) && isOurs($0) },
      of: vocabulary.strings)
    var lowest = Float.greatestFiniteMagnitude
    for id in ids
    where pipeline == nil ? vocabulary.attributes[Int(id)].contains(.normal) : isOurs(id) {
      lowest = min(lowest, scores[Int(id)])
    }
    unknownScore = Double(lowest - Self.unknownPenalty)
  }

  func makeSession() throws(TokenizerError) -> Session { try Session(self) }

  struct Session: EncodingSession, ~Copyable {
    private let encoder: UnigramEncoder
    private let matcher: RegularExpression.Matcher

    fileprivate init(_ encoder: UnigramEncoder) throws(TokenizerError) {
      self.encoder = encoder
      matcher = try RegularExpression.Matcher()
    }

    mutating func encode(
      _ text: UnsafeBufferPointer<UInt8>, startsText: Bool, into output: inout [Int32]
    ) throws(TokenizerError) {
      let encoder = self.encoder
      guard let preTokenizer = encoder.preTokenizer else {
        let normalized = encoder.normalize(text)
        return normalized.withUnsafeBufferPointer { encoder.appendBest(of: $0, to: &output) }
      }
      try preTokenizer.forEachPiece(of: text, startsText: startsText, matcher) { piece in
        encoder.appendBest(of: piece, to: &output)
      }
    }
  }

  /// `text` with spaces escaped, added and removed as the model wants it, and U+FFFD for bytes that
  /// are no UTF-8.
  private func normalize(_ text: UnsafeBufferPointer<UInt8>) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(text.count + text.count / 2)
    var hasPrefix = !addsSpacePrefix
    var isInWord = false
    var position = 0
    while position < text.count {
      if text[position] == 0x20 {
        isInWord = false
        if !removesExtraWhitespace { result.append(contentsOf: Vocabulary.escapedSpace) }
        position += 1
        continue
      }
      if !isInWord {
        isInWord = true
        if !hasPrefix || removesExtraWhitespace {
          result.append(contentsOf: Vocabulary.escapedSpace)
          hasPrefix = true
        }
      }
      if case .character(let count) = UTF8Scanner.unit(in: text, at: position) {
        result.append(contentsOf: text[position..<position + count])
        position += count
      } else {
        result.append(contentsOf: UTF8Scanner.replacement)
        position += 1
      }
    }
    return result
  }

  /// The best way to the end of each prefix of the text (Viterbi).
  private struct Step {
    var score: Double
    /// Where the last token begins.
    var start: UInt32
    var token: Int32
  }

  private func appendBest(of text: UnsafeBufferPointer<UInt8>, to output: inout [Int32]) {
    if text.isEmpty { return }
    var steps = [Step](
      repeating: Step(score: -.greatestFiniteMagnitude, start: 0, token: unknown),
      count: text.count + 1)
    steps[0].score = 0
    var position = 0
    while position < text.count {
      let characterEnd = position + UTF8Scanner.symbolLength(in: text, at: position)
      let base = steps[position].score
      var hasCharacter = false
      func offer(_ token: Int32, end: Int, score: Double) {
        if score > steps[end].score {
          steps[end] = Step(score: score, start: UInt32(position), token: token)
        }
      }
      matcher.forEachMatch(in: text, at: position) { number, count in
        if position + count == characterEnd { hasCharacter = true }
        let isUserDefined = vocabulary.attributes[Int(number)].contains(.userDefined)
        let score = isUserDefined ? 0 : Double(scores[Int(number)])
        offer(Int32(number), end: position + count, score: base + score)
      }
      if !hasCharacter { offer(unknown, end: characterEnd, score: base + unknownScore) }
      position = characterEnd
    }
    // Backwards; neighbouring unknown characters are one token, or the bytes of all of them.
    let first = output.count
    var end = text.count
    var unknownEnd = 0
    func closeUnknown(at start: Int) {
      guard unknownEnd > start else { return }
      let bytes = text[start..<unknownEnd]
      if usesBytes, bytes.allSatisfy({ vocabulary.byteTokens[Int($0)] >= 0 }) {
        for byte in bytes.reversed() { output.append(vocabulary.byteTokens[Int(byte)]) }
      } else {
        output.append(unknown)
      }
      unknownEnd = 0
    }
    while end > 0 {
      let step = steps[end]
      if step.token == unknown {
        unknownEnd = max(unknownEnd, end)
      } else {
        closeUnknown(at: end)
        output.append(step.token)
      }
      end = Int(step.start)
    }
    closeUnknown(at: 0)
    output[first...].reverse()
  }
}
