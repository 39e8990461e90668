/// SentencePiece's unigram model: the segmentation whose tokens' scores add up to the most.
///
/// Text is taken as it is but for spaces: a model's own normalisation map (NFKC and the like) is
/// not part of a ``TokenizerDefinition``.
struct UnigramEncoder: Sendable {
  let vocabulary: Vocabulary
  private let matcher: PrefixMatcher
  private let scores: [Float]
  private let unknown: Int32
  private let unknownScore: Double
  private let addsSpacePrefix: Bool
  private let removesExtraWhitespace: Bool

  /// How much worse than the worst token an unknown character is.
  private static let unknownPenalty: Float = 10

  init(
    _ vocabulary: Vocabulary, scores: [Float], addsSpacePrefix: Bool, removesExtraWhitespace: Bool,
    unknown: Int32
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
    let ids = 0..<UInt32(vocabulary.count)
    let text: TokenAttributes = [.normal, .userDefined, .unused]
    matcher = PrefixMatcher(
      ids.filter { !vocabulary.attributes[Int($0)].isDisjoint(with: text) }, of: vocabulary.strings)
    var lowest = Float.greatestFiniteMagnitude
    for id in ids where vocabulary.attributes[Int(id)].contains(.normal) {
      lowest = min(lowest, scores[Int(id)])
    }
    unknownScore = Double(lowest - Self.unknownPenalty)
  }

  func makeSession() -> Session { Session(encoder: self) }

  struct Session: EncodingSession, ~Copyable {
    fileprivate let encoder: UnigramEncoder

    mutating func encode(
      _ text: UnsafeBufferPointer<UInt8>, startsText: Bool, into output: inout [Int32]
    ) throws(TokenizerError) {
      let normalized = encoder.normalize(text)
      normalized.withUnsafeBufferPointer { encoder.appendBest(of: $0, to: &output) }
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
    // Backwards; neighbouring unknown characters are one token.
    let first = output.count
    var end = text.count
    var follower: Int32 = -1
    while end > 0 {
      let step = steps[end]
      if !(step.token == unknown && follower == unknown) { output.append(step.token) }
      follower = step.token
      end = Int(step.start)
    }
    output[first...].reverse()
  }
}
