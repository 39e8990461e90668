import Runtime
import Tokenization

/// A prompt of a file that is being answered.
struct OpenPrompt {
  let line: PromptLine
  let sequence: TokenSequence
  /// Text and tokens of the answer so far.
  private(set) var bytes: [UInt8] = []
  private(set) var tokenCount = 0
  /// Tokens of the prompt whose keys and values were stored.
  private(set) var reusedTokenCount = 0
  private(set) var reason = FinishReason.cancelled
  private var text: AnswerText

  struct End {
    /// Why the answer is not whole; nil = it is.
    let error: String?
  }

  init(_ line: PromptLine, _ engine: Engine) throws(RuntimeError) {
    self.line = line
    let options = line.options
    text = AnswerText(engine.tokenizer, stops: options.stops)
    var request = SequenceRequest(
      tokens: options.prompt, limit: options.maximumTokenCount, sampling: options.sampling,
      stops: options.stops, ignoresEnd: options.ignoresEnd)
    request.grammar = options.grammar
    request.contextLimit = line.length
    sequence = try engine.open(request, whenFull: .queue)
  }

  /// Takes what came; how the answer ended, if it did.
  mutating func takeEvents() -> End? {
    while let event = sequence.next(timeout: .zero) {
      text.append(event, to: &bytes)
      switch event {
      case .queued, .reading: break
      case .token: tokenCount += 1
      case .finished(let finish):
        reason = finish.reason
        reusedTokenCount = finish.usage.reusedTokenCount
        return End(error: nil)
      case .failed(let error): return End(error: error.description)
      }
    }
    return nil
  }
}
