import Runtime
import Tokenization

/// The pieces of an answer, made of its sequence's events as they come.
struct AnswerReader {
  private let tokenizer: Tokenizer
  private let isPlain: Bool
  private var text: AnswerText
  private var parser: AnswerParser
  /// Bytes of text that the parser was given.
  private var readByteCount = 0
  /// Control tokens, which may be marks, with the number of bytes before each: a stop string may still cut them off.
  private var marks: [(position: Int, mark: [UInt8])] = []
  /// Whether tools were called.
  private(set) var hasCalls = false

  init(_ tokenizer: Tokenizer, stops: StopStrings, _ syntax: AnswerSyntax) {
    self.tokenizer = tokenizer
    isPlain = syntax.isPlain
    text = AnswerText(tokenizer, stops: stops)
    parser = AnswerParser(syntax)
  }

  /// What an event brings.
  mutating func take(_ event: TokenSequence.Event) -> [AnswerPiece] {
    if case .token(let id, _, _) = event, !isPlain, text.stop == nil { note(id) }
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
    return pieces
  }

  private mutating func note(_ token: Int32) {
    var bytes: [UInt8] = []
    tokenizer.decode(token, into: &bytes)
    guard bytes.isEmpty else { return }
    marks.append((readByteCount + text.heldByteCount, tokenizer.spelling(token)))
  }
}
