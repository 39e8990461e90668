import Grammar
import TensorBasics
import Tokenization

/// An answer while it grows: tokens drawn from logits, their text, and what ends it.
struct Answer {
  let options: GenerationOptions
  private(set) var result: GenerationResult
  private var ending: AnswerEnding
  private var sampler: Sampler
  /// What the answer's grammar says, of all its tokens; nil = it has none.
  private var constraint: GrammarConstraint?
  private var masks: TokenMasks?
  /// The prompt, and what was drawn.
  private(set) var path: [Int32]

  /// - Parameters:
  ///   - vocabularyCount: tokens that the model can give, which may be more or fewer than the tokenizer has.
  ///   - contextLength: positions that prompt and answer share.
  init(
    _ options: GenerationOptions, _ tokenizer: Tokenizer, vocabularyCount: Int, contextLength: Int
  ) {
    self.options = options
    let endTokens = options.ignoresEnd ? [] : tokenizer.endTokens
    ending = AnswerEnding(
      limit: options.maximumTokenCount, promptCount: options.prompt.count,
      contextLength: contextLength, endTokens: endTokens,
      text: AnswerText(tokenizer, stops: options.stops))
    if let grammar = options.grammar {
      constraint = GrammarConstraint(
        grammar, vocabularyCount: vocabularyCount, endTokens: endTokens)
      masks = TokenMasks(tokenizer, vocabularyCount: vocabularyCount)
      sampler = Sampler(forAnyOptionsOf: vocabularyCount)
    } else {
      sampler = Sampler(options: options.sampling, vocabularyCount: vocabularyCount)
    }
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
  ///
  /// - Throws: where the answer's grammar lets it go no further.
  mutating func draw(_ logits: UnsafeMutableBufferPointer<Float>) throws(RuntimeError) {
    if options.logProbabilityCount > 0, options.logProbabilityPromptPosition == nil,
      !options.reportsWholePrompt
    {
      result.topLogProbabilities.append(
        LogProbabilities.top(options.logProbabilityCount, of: UnsafeBufferPointer(logits)))
    }
    let token = try chooseToken(UnsafeBufferPointer(logits))
    noteTime()
    if ending.take(token, text: &result.text) {
      result.tokens.append(token)
      path.append(token)
      if let masks, constraint?.isComplete(masks, after: result.tokens[...]) == true {
        ending.complete(text: &result.text)
      }
    }
    result.sampledTokenCount = ending.drawnCount
    if let reason = ending.reason { result.finishReason = reason }
  }

  private mutating func chooseToken(
    _ logits: UnsafeBufferPointer<Float>
  ) throws(RuntimeError) -> Int32 {
    let start = options.prompt.count
    guard let masks else {
      return sampler.draw(logits, options.sampling, path: path, answerStart: start, mask: nil)
    }
    try constraint?.prepare(masks, after: result.tokens[...])
    return constraint!.withMask {
      sampler.draw(logits, options.sampling, path: path, answerStart: start, mask: $0)
    }
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
