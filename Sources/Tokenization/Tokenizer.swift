public import ModelFormat
public import TensorBasics

/// Turns text into a model's tokens and back, exactly as the model was trained to read it.
///
/// Text is bytes: what is no UTF-8 is encoded byte by byte where the vocabulary has bytes. Safe to use
/// from several threads at once; every call has its own memory.
public final class Tokenizer: Sendable {
  private enum Scheme: Sendable {
    case bytePair(BytePairEncoder)
    case sentencePiece(SentencePieceEncoder)
    case unigram(UnigramEncoder)
  }

  /// Longest text that `encode(_:parseSpecial:)` takes.
  public static let maximumTextByteCount = 1 << 29

  private let scheme: Scheme
  private let special: SpecialTokens
  /// Of a Hugging Face folder, what is done before the model.
  private let preparation: TextPreparation?
  let vocabulary: Vocabulary
  /// Beginning of text, where the vocabulary has such a token.
  public let bosToken: Int32?
  /// End of text, where the vocabulary has such a token.
  public let eosToken: Int32?
  /// All tokens that end an answer, ascending: EOS, end of turn, and those known by their spelling.
  public let endTokens: [Int32]
  /// Whether a prompt begins with ``bosToken``.
  public let addsBOS: Bool
  /// Whether a prompt ends with ``eosToken``.
  public let addsEOS: Bool
  /// Tokens before and after every prompt.
  private let prefix: [Int32]
  private let suffix: [Int32]
  /// Whether text begins with a space that the input does not have.
  public let addsSpacePrefix: Bool

  /// Builds the tables; `definition` is not needed afterwards.
  ///
  /// - Parameter modelName: the model's own name, from which Phi-3's rule for white space after
  ///   special tokens is known.
  /// - Throws: `unknownPreTokenizer` or `missingPreTokenizer` for byte-pair vocabularies, and
  ///   `invalidVocabulary` for lists and ids that do not fit each other.
  public init(
    _ definition: consuming TokenizerDefinition, modelName: String? = nil
  ) throws(TokenizerError) {
    let defaults = try Defaults(definition)
    let count = definition.tokens.count
    func token(_ stated: Int?, _ fallback: Int?) throws(TokenizerError) -> Int32? {
      if let stated {
        guard stated >= 0, stated < count else {
          throw .invalidVocabulary("special token \(stated) of \(count)")
        }
        return Int32(stated)
      }
      return fallback.flatMap { $0 < count ? Int32($0) : nil }
    }
    bosToken = try token(definition.bosToken, defaults.bos)
    eosToken = try token(definition.eosToken, defaults.eos)
    let unknown = try token(definition.unknownToken, defaults.unknown)
    let turnEnd = try token(definition.eotToken, nil)
    if let pipeline = definition.pipeline {
      for id in pipeline.prefix + pipeline.suffix { _ = try token(id, nil) }
      prefix = pipeline.prefix.map { Int32($0) }
      suffix = pipeline.suffix.map { Int32($0) }
    } else {
      let addsBOS = defaults.forcesBOS || definition.addsBOS ?? defaults.addsBOS
      let addsEOS = definition.addsEOS ?? defaults.addsEOS
      prefix = addsBOS ? [bosToken].compactMap { $0 } : []
      suffix = addsEOS ? [eosToken].compactMap { $0 } : []
    }
    addsBOS = prefix.first != nil && prefix.first == bosToken
    addsEOS = suffix.last != nil && suffix.last == eosToken
    addsSpacePrefix = definition.addsSpacePrefix ?? defaults.addsSpacePrefix

    let name = modelName?.lowercased() ?? ""
    let vocabulary = try Vocabulary(
      definition, spelling: defaults.spelling,
      stripsRight: name.contains("phi-3") || name.contains("phi3"),
      stated: [eosToken, turnEnd].compactMap { $0.map(Int.init) } + definition.stopTokens)
    preparation = try definition.pipeline.map { (pipeline) throws(TokenizerError) in
      try TextPreparation(definition, pipeline)
    }
    (scheme, self.vocabulary) = try Self.scheme(
      definition, vocabulary, defaults, addsSpacePrefix: addsSpacePrefix, unknown: unknown ?? -1)
    endTokens = vocabulary.endTokens
    special = SpecialTokens(self.vocabulary)
  }

  /// What encodes, and the vocabulary with what that has added to it.
  private static func scheme(
    _ definition: TokenizerDefinition, _ vocabulary: Vocabulary, _ defaults: Defaults,
    addsSpacePrefix: Bool, unknown: Int32
  ) throws(TokenizerError) -> (Scheme, Vocabulary) {
    switch definition.model {
    case .byteLevelBPE, .spacedBPE:
      let encoder = try BytePairEncoder(
        vocabulary, merges: definition.merges, steps: defaults.rule!.steps,
        options: defaults.rule!.options)
      return (.bytePair(encoder), encoder.vocabulary)
    case .bytePairs:
      let pipeline = definition.pipeline ?? TokenizerPipeline()
      let encoder = try BytePairEncoder(
        vocabulary, merges: definition.merges, steps: pipeline.preTokenizers,
        options: pipeline.ignoresMerges ? .wholePieces : [],
        fallback: Vocabulary.Fallback(
          unknown: unknown, usesBytes: pipeline.byteFallback, fuses: pipeline.fusesUnknown))
      return (.bytePair(encoder), encoder.vocabulary)
    case .sentencePieceBPE:
      let encoder = try SentencePieceEncoder(
        vocabulary, scores: definition.scores, addsSpacePrefix: addsSpacePrefix, unknown: unknown)
      return (.sentencePiece(encoder), vocabulary)
    case .unigram, .unigramPieces:
      let encoder = try UnigramEncoder(
        vocabulary, scores: definition.scores, addsSpacePrefix: addsSpacePrefix,
        removesExtraWhitespace: definition.removesExtraWhitespace ?? false, unknown: unknown,
        pipeline: definition.pipeline)
      return (.unigram(encoder), vocabulary)
    }
  }

  /// A model's tokenizer; nil if its file has no vocabulary that can be read.
  ///
  /// - Throws: as `init(_:modelName:)`.
  public convenience init?(of model: ModelDescription) throws(TokenizerError) {
    guard let definition = model.tokenizer else { return nil }
    try self.init(definition, modelName: model.name)
  }

  /// A tokenizer for a model without a vocabulary: there are ids, and no text.
  public convenience init(idsBelow count: Int) {
    var tokens = PackedStrings()
    for _ in 0..<max(1, count) { tokens.append([]) }
    var definition = TokenizerDefinition(model: .bytePairs, tokens: tokens)
    definition.pipeline = TokenizerPipeline()
    do { try self.init(definition) } catch { preconditionFailure("\(error)") }
  }

  /// Number of tokens.
  public var vocabularyCount: Int { vocabulary.count }

  /// The tokens of `text`, without BOS and EOS.
  ///
  /// - Parameters:
  ///   - text: any bytes.
  ///   - parseSpecial: whether control tokens spelt out in the text are recognised. User-defined
  ///     tokens always are. Text from outside must not be given the choice.
  /// - Throws: `textTooLong`, or `patternFailed` where PCRE2 gives up.
  public func encode(
    _ text: some Collection<UInt8>, parseSpecial: Bool = false
  ) throws(TokenizerError) -> [Int32] {
    try Array(text).withUnsafeBufferPointer { bytes throws(TokenizerError) in
      try encode(UnsafeRawBufferPointer(bytes), parseSpecial: parseSpecial)
    }
  }

  /// As `encode(_:parseSpecial:)`, of memory lent for the call.
  public func encode(
    _ text: UnsafeRawBufferPointer, parseSpecial: Bool = false
  ) throws(TokenizerError) -> [Int32] {
    var tokens: [Int32] = []
    let whole = 0..<text.count
    let bytes = text.assumingMemoryBound(to: UInt8.self)
    try append(bytes, controlRanges: parseSpecial ? [whole] : [], to: &tokens)
    return tokens
  }

  /// The tokens of a whole prompt: with BOS before and EOS after it where the model wants them.
  public func encodePrompt(
    _ text: some Collection<UInt8>, parseSpecial: Bool = false
  ) throws(TokenizerError) -> [Int32] {
    try encodePrompt([ChatPiece(Array(text), isMarkup: parseSpecial)])
  }

  /// The tokens of a prompt in pieces: control tokens are recognised in markup only, so that nobody
  /// can write them into a message. The pieces are one text: tokens may reach across their bounds.
  ///
  /// - Parameters:
  ///   - addsBOS: nil = as the model wants it.
  ///   - addsEOS: nil = as the model wants it.
  public func encodePrompt(
    _ pieces: [ChatPiece], addsBOS: Bool? = nil, addsEOS: Bool? = nil
  ) throws(TokenizerError) -> [Int32] {
    try encodePrompt(pieces, addsBOS: addsBOS, addsEOS: addsEOS, markupTexts: [])
  }

  /// As `encodePrompt(_:addsBOS:addsEOS:)`; user-defined tokens that are spelt out in any of
  /// `markupTexts` are recognised in markup only, as control tokens are.
  func encodePrompt(
    _ pieces: [ChatPiece], addsBOS: Bool?, addsEOS: Bool?, markupTexts: [[UInt8]]
  ) throws(TokenizerError) -> [Int32] {
    var text: [UInt8] = []
    var controlRanges: [Range<Int>] = []
    for piece in pieces {
      let start = text.count
      text.append(contentsOf: piece.bytes)
      guard piece.isMarkup, !piece.bytes.isEmpty else { continue }
      if let last = controlRanges.last, last.upperBound == start {
        controlRanges[controlRanges.count - 1] = last.lowerBound..<text.count
      } else {
        controlRanges.append(start..<text.count)
      }
    }
    var tokens: [Int32] = []
    tokens += addsBOS.map { $0 ? [bosToken].compactMap { $0 } : [] } ?? prefix
    try text.withUnsafeBufferPointer { bytes throws(TokenizerError) in
      try append(
        bytes, controlRanges: controlRanges,
        reserved: special.userDefined(in: markupTexts, of: vocabulary), to: &tokens)
    }
    tokens += addsEOS.map { $0 ? [eosToken].compactMap { $0 } : [] } ?? suffix
    return tokens
  }

  private func append(
    _ text: UnsafeBufferPointer<UInt8>, controlRanges: [Range<Int>], reserved: Set<UInt32> = [],
    to tokens: inout [Int32]
  ) throws(TokenizerError) {
    guard text.count <= Self.maximumTextByteCount else {
      throw .textTooLong(byteCount: text.count)
    }
    switch scheme {
    case .bytePair(let encoder):
      try encode(text, controlRanges, reserved, in: try encoder.makeSession(), to: &tokens)
    case .sentencePiece(let encoder):
      try encode(text, controlRanges, reserved, in: encoder.makeSession(), to: &tokens)
    case .unigram(let encoder):
      try encode(text, controlRanges, reserved, in: try encoder.makeSession(), to: &tokens)
    }
  }

  private func encode<Session: EncodingSession & ~Copyable>(
    _ text: UnsafeBufferPointer<UInt8>, _ controlRanges: [Range<Int>], _ reserved: Set<UInt32>,
    in session: consuming Session, to tokens: inout [Int32]
  ) throws(TokenizerError) {
    if let preparation {
      return try preparation.encode(
        text, controlRanges, reserved, of: vocabulary, in: &session, to: &tokens)
    }
    let fragments = special.partition(
      text, controlRanges: controlRanges, reserved: reserved, of: vocabulary)
    var startsText = true
    for fragment in fragments {
      if fragment.token >= 0 {
        tokens.append(fragment.token)
        startsText = true
      } else {
        let run = UnsafeBufferPointer(rebasing: text[fragment.range])
        try session.encode(run, startsText: startsText, into: &tokens)
        startsText = false
      }
    }
  }

  /// Appends the bytes that `token` stands for; nothing for ids outside the vocabulary.
  ///
  /// Allocates nothing when `output` has room for ``longestTokenByteCount`` more.
  ///
  /// - Parameter includesControl: whether control tokens are spelt out; otherwise they are nothing.
  public func decode(_ token: Int32, into output: inout [UInt8], includesControl: Bool = false) {
    vocabulary.append(token, to: &output, includesHidden: includesControl)
  }

  /// The bytes that `tokens` stand for, control tokens left out.
  public func decode(_ tokens: some Sequence<Int32>) -> [UInt8] {
    var bytes: [UInt8] = []
    for token in tokens { decode(token, into: &bytes) }
    return bytes
  }

  /// The bytes that each of `count` tokens stands for; none for control tokens and ids outside the vocabulary.
  public func texts(count: Int) -> PackedStrings {
    var (texts, bytes) = (PackedStrings(), [UInt8]())
    texts.reserveCapacity(strings: count, bytes: 8 * count)
    for token in 0..<Int32(count) {
      bytes.removeAll(keepingCapacity: true)
      decode(token, into: &bytes)
      texts.append(bytes)
    }
    return texts
  }

  /// Bytes of the longest token.
  public var longestTokenByteCount: Int { vocabulary.strings.longestByteCount }

  /// The token that is spelt exactly so in the vocabulary's text form, such as `<|im_end|>`.
  public func token(spelled spelling: String) -> Int32? {
    let number = Array(spelling.utf8).withUnsafeBufferPointer { vocabulary.strings.find($0) }
    let token = vocabulary.token(of: number)
    return token >= 0 ? token : nil
  }
}
