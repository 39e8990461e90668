/// SentencePiece's byte-pair encoding: any neighbours that spell a token are merged, best score
/// first; what stays no token is written as bytes.
struct SentencePieceEncoder: Sendable {
  let vocabulary: Vocabulary
  private let merges: ScoredMerges
  private let spaces: EscapedSpaces
  private let addsSpacePrefix: Bool
  private let unknown: Int32

  /// - Parameters:
  ///   - scores: one a token.
  ///   - unknown: token for bytes that have none; -1 leaves them out.
  init(
    _ vocabulary: Vocabulary, scores: [Float], addsSpacePrefix: Bool, unknown: Int32
  ) throws(TokenizerError) {
    guard scores.count >= vocabulary.count else {
      throw .invalidVocabulary("\(scores.count) scores for \(vocabulary.count) tokens")
    }
    self.vocabulary = vocabulary
    merges = ScoredMerges(
      strings: vocabulary.strings, scores: scores, attributes: vocabulary.attributes)
    spaces = EscapedSpaces(vocabulary.strings)
    self.addsSpacePrefix = addsSpacePrefix
    self.unknown = unknown
  }

  func makeSession() -> Session { Session(self) }

  struct Session: EncodingSession, ~Copyable {
    private let encoder: SentencePieceEncoder
    private var merger: SegmentMerger<ScoredMerges>
    private var escaped: [UInt8] = []

    fileprivate init(_ encoder: SentencePieceEncoder) {
      self.encoder = encoder
      merger = SegmentMerger(rule: encoder.merges)
    }

    mutating func encode(
      _ text: UnsafeBufferPointer<UInt8>, startsText: Bool, into output: inout [Int32]
    ) throws(TokenizerError) {
      let vocabulary = encoder.vocabulary
      var bytes: [UInt8] = []
      swap(&bytes, &escaped)
      EscapedSpaces.escape(
        text, startsWithSpace: startsText && encoder.addsSpacePrefix, into: &bytes)
      bytes.withUnsafeBufferPointer { buffer in
        encoder.spaces.forEachSegment(of: buffer) { segment in
          merger.merge(segment, isByteLevel: false) { number, bytes in
            vocabulary.appendTokens(of: number, bytes, unknown: encoder.unknown, to: &output)
          }
        }
      }
      swap(&bytes, &escaped)
    }
  }
}
