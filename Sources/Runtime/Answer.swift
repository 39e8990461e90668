import TensorBasics
import Tokenization

/// An answer while it grows: tokens drawn from logits, their text, and what ends it.
struct Answer {
  let options: GenerationOptions
  private(set) var result: GenerationResult
  private var ending: AnswerEnding
  private var sampler: Sampler
  /// The prompt, and what was drawn.
  private var path: [Int32]

  /// - Parameters:
  ///   - vocabularyCount: tokens that the model can give, which may be more or fewer than the tokenizer has.
  ///   - contextLength: positions that prompt and answer share.
  init(
    _ options: GenerationOptions, _ tokenizer: Tokenizer, vocabularyCount: Int, contextLength: Int
  ) {
    self.options = options
    ending = AnswerEnding(
      limit: options.maximumTokenCount, promptCount: options.prompt.count,
      contextLength: contextLength, endTokens: options.ignoresEnd ? [] : tokenizer.endTokens,
      text: AnswerText(tokenizer, stops: options.stops))
    sampler = Sampler(options: options.sampling, vocabularyCount: vocabularyCount)
    path = options.prompt
    path.reserveCapacity(path.count + ending.limit)
    result = GenerationResult()
    result.promptTokenCount = options.prompt.count
    result.tokens.reserveCapacity(ending.limit)
    result.text.reserveCapacity(ending.limit * 8)
    result.startNanoseconds = monotonicNanoseconds()
  }

  /// Tokens that can still be drawn.
  var leftCount: Int { ending.leftCount }

  /// The token to be read next; nil before the first is drawn and when nothing more is.
  var next: Int32? { ending.reason == nil ? result.tokens.last : nil }

  /// Draws the next token from `logits` [vocabularyCount].
  mutating func draw(_ logits: UnsafeMutableBufferPointer<Float>) {
    if options.logProbabilityCount > 0, options.logProbabilityPromptPosition == nil,
      !options.reportsWholePrompt
    {
      result.topLogProbabilities.append(
        LogProbabilities.top(options.logProbabilityCount, of: UnsafeBufferPointer(logits)))
    }
    let token = sampler.draw(UnsafeBufferPointer(logits), options.sampling, path: path)
    noteTime()
    if ending.take(token, text: &result.text) {
      result.tokens.append(token)
      path.append(token)
    }
    result.sampledTokenCount = ending.drawnCount
    if let reason = ending.reason { result.finishReason = reason }
  }

  /// Ends the answer where it is.
  mutating func cancel() {
    ending.cancel(text: &result.text)
    result.finishReason = .cancelled
  }

  /// Changes what is known of how the answer came about.
  mutating func note(_ change: (inout GenerationResult) -> Void) { change(&result) }

  private mutating func noteTime() {
    result.lastTokenNanoseconds = monotonicNanoseconds()
    if result.firstTokenNanoseconds == nil {
      result.firstTokenNanoseconds = result.lastTokenNanoseconds
    }
  }
}
