import ModelFormat

/// What a Hugging Face folder's tokenizer does before its model: it cuts text at added tokens, normalises what
/// is between them, and cuts that at the other added tokens.
struct TextPreparation: Sendable {
  private let normalizer: TextNormalizer
  private let added: AddedTokens

  init(
    _ definition: borrowing TokenizerDefinition, _ pipeline: TokenizerPipeline
  ) throws(TokenizerError) {
    normalizer = try TextNormalizer(pipeline.normalizers)
    added = try AddedTokens(definition, normalizer)
  }

  /// Appends the tokens of a text, whose stretches between added tokens `session` encodes.
  func encode<Session: EncodingSession & ~Copyable>(
    _ text: UnsafeBufferPointer<UInt8>, _ controlRanges: [Range<Int>], _ reserved: Set<UInt32>,
    of vocabulary: Vocabulary, in session: inout Session, to tokens: inout [Int32]
  ) throws(TokenizerError) {
    var control = AddedTokens.Control.ranges(controlRanges)
    if controlRanges.isEmpty { control = .nowhere }
    if controlRanges == [0..<text.count] { control = .everywhere }
    let matcher = try RegularExpression.Matcher()
    for fragment in added.fragments(of: text, control: control, reserved: reserved, in: vocabulary)
    {
      if fragment.token >= 0 {
        tokens.append(fragment.token)
        continue
      }
      let startsText = fragment.range.lowerBound == 0
      let run = UnsafeBufferPointer(rebasing: text[fragment.range])
      if normalizer.isEmpty {
        try encodeNormalized(
          run, startsText, control, reserved, of: vocabulary, in: &session, to: &tokens)
      } else {
        let normalized = try normalizer.normalized(run, matcher)
        try normalized.withUnsafeBufferPointer { bytes throws(TokenizerError) in
          try encodeNormalized(
            bytes, startsText, control, reserved, of: vocabulary, in: &session, to: &tokens)
        }
      }
    }
  }

  private func encodeNormalized<Session: EncodingSession & ~Copyable>(
    _ text: UnsafeBufferPointer<UInt8>, _ startsText: Bool, _ control: AddedTokens.Control,
    _ reserved: Set<UInt32>, of vocabulary: Vocabulary, in session: inout Session,
    to tokens: inout [Int32]
  ) throws(TokenizerError) {
    let fragments = added.fragments(
      ofNormalized: text, control: control, reserved: reserved, in: vocabulary)
    for fragment in fragments {
      if fragment.token >= 0 {
        tokens.append(fragment.token)
      } else {
        try session.encode(
          UnsafeBufferPointer(rebasing: text[fragment.range]),
          startsText: startsText && fragment.range.lowerBound == 0, into: &tokens)
      }
    }
  }
}
