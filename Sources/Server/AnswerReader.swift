import Runtime
import Tokenization

/// The pieces of an answer and the probabilities of its tokens, made of its sequence's events as they come.
struct AnswerReader {
  private let tokenizer: Tokenizer
  private let isPlain: Bool
  private var text: AnswerText
  private var parser: AnswerParser
  /// Bytes of text that the parser was given.
  private var readByteCount = 0
  /// Control tokens, which may be marks, with the number of bytes before each: a stop string may still cut them off.
  private var marks: [(position: Int, mark: [UInt8])] = []
  /// Most probable tokens to tell of with each; nil = no probabilities.
  private let alternativeCount: Int?
  /// Tokens that a stop string may still cut off, with the number of bytes before each.
  private var held: [(position: Int, report: TokenReport)] = []
  /// Says where the text of each token ends, whatever stop strings do.
  private var spelling: StreamingDetokenizer
  private var spelledByteCount = 0
  /// Whether tools were called.
  private var hasCalls = false
  private var tokens: [Int32] = []
  /// Tokens that came while the model thought.
  private var reasoningCount = 0

  init(
    _ tokenizer: Tokenizer, stops: StopStrings, _ syntax: AnswerSyntax, alternativeCount: Int?
  ) {
    self.alternativeCount = alternativeCount
    self.tokenizer = tokenizer
    isPlain = syntax.isPlain
    text = AnswerText(tokenizer, stops: stops)
    spelling = StreamingDetokenizer(tokenizer)
    parser = AnswerParser(syntax)
  }

  /// What an event brings: more of the answer, and tokens as soon as some of their text is settled.
  mutating func take(
    _ event: TokenSequence.Event
  ) -> (pieces: [AnswerPiece], reports: [TokenReport]) {
    if case .token(let id, _, let probabilities) = event {
      tokens.append(id)
      if parser.isReasoning { reasoningCount += 1 }
      if text.stop == nil { note(id, probabilities) }
    }
    var (bytes, pieces) = ([UInt8](), [AnswerPiece]())
    text.append(event, to: &bytes)
    var start = 0
    while let next = marks.first, next.position <= readByteCount + bytes.count {
      let end = max(start, next.position - readByteCount)
      parser.append(Array(bytes[start..<end]), to: &pieces)
      parser.append(control: next.mark, to: &pieces)
      start = end
      marks.removeFirst()
    }
    parser.append(Array(bytes[start...]), to: &pieces)
    readByteCount += bytes.count
    if case .finished = event { parser.finish(&pieces) }
    hasCalls = hasCalls || pieces.contains { if case .call = $0 { true } else { false } }
    return (pieces, settledReports(event))
  }

  /// The number of bytes of text before a token's own, where it is the next one.
  private mutating func position(of token: Int32) -> Int {
    var (own, text) = ([UInt8](), [UInt8]())
    tokenizer.decode(token, into: &own)
    spelling.append(token, to: &text)
    let start = spelledByteCount
    spelledByteCount += text.count
    // What came with it of tokens before, which could have been part of its character, is not its own.
    return max(start, spelledByteCount - own.count)
  }

  private mutating func settledReports(_ event: TokenSequence.Event) -> [TokenReport] {
    var isOver = false
    if case .finished = event { isOver = text.stop == nil }
    let settled = held.prefix { isOver || $0.position < readByteCount }
    held.removeFirst(settled.count)
    return settled.map(\.report)
  }

  /// What all of it comes to.
  func end(_ finish: TokenSequence.Finish) -> AnswerEnd {
    AnswerEnd(
      finish: finish, hasCalls: hasCalls, tokens: tokens, reasoningCount: reasoningCount)
  }

  private mutating func note(_ token: Int32, _ probabilities: [TokenProbability]) {
    if let alternativeCount {
      let report = TokenReport(token, probabilities, alternativeCount: alternativeCount)
      held.append((position(of: token), report))
    }
    guard !isPlain else { return }
    var bytes: [UInt8] = []
    tokenizer.decode(token, into: &bytes)
    guard bytes.isEmpty else { return }
    marks.append((readByteCount + text.heldByteCount, tokenizer.spelling(token)))
  }
}
