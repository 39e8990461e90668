import TensorBasics
import Tokenization

/// An answer while it grows: tokens drawn from logits, their text, and what ends it.
struct Answer {
  let options: GenerationOptions
  private(set) var result: GenerationResult
  /// Whether nothing more is to be drawn.
  private(set) var isOver = false
  private let tokenizer: Tokenizer
  private let limit: Int
  private var sampler: Sampler
  /// The prompt, and what was drawn.
  private var path: [Int32]
  private var detokenizer: StreamingDetokenizer

  /// - Parameters:
  ///   - vocabularyCount: tokens that the model can give, which may be more or fewer than the tokenizer has.
  ///   - contextLength: positions that prompt and answer share.
  init(
    _ options: GenerationOptions, _ tokenizer: Tokenizer, vocabularyCount: Int, contextLength: Int
  ) {
    self.options = options
    self.tokenizer = tokenizer
    limit = min(options.maximumTokenCount, max(1, contextLength - options.prompt.count))
    sampler = Sampler(options: options.sampling, vocabularyCount: vocabularyCount)
    path = options.prompt
    path.reserveCapacity(path.count + limit)
    detokenizer = StreamingDetokenizer(tokenizer)
    result = GenerationResult()
    result.promptTokenCount = options.prompt.count
    result.finishReason = limit < options.maximumTokenCount ? .context : .length
    result.tokens.reserveCapacity(limit)
    result.text.reserveCapacity(limit * 8)
    result.startNanoseconds = monotonicNanoseconds()
  }

  /// Tokens that can still be drawn.
  var leftCount: Int { isOver ? 0 : limit - result.sampledTokenCount }

  /// The token to be read next; nil before the first is drawn and when nothing more is.
  var next: Int32? { isOver ? nil : result.tokens.last }

  /// Bytes of ``GenerationResult/text`` that no stop string can take back any more.
  var settledByteCount: Int {
    isOver ? result.text.count : result.text.count - options.stops.heldByteCount(of: result.text)
  }

  /// Draws the next token from `logits` [vocabularyCount].
  mutating func draw(_ logits: UnsafeMutableBufferPointer<Float>) {
    if options.logProbabilityCount > 0, options.logProbabilityPromptPosition == nil,
      !options.reportsWholePrompt
    {
      result.topLogProbabilities.append(
        LogProbabilities.top(options.logProbabilityCount, of: UnsafeBufferPointer(logits)))
    }
    let token = Self.draw(&sampler, logits, after: path)
    result.sampledTokenCount += 1
    noteTime()
    if !options.ignoresEnd, tokenizer.endTokens.contains(token) {
      result.finishReason = .stop
      return end()
    }
    result.tokens.append(token)
    path.append(token)
    let written = result.text.count
    detokenizer.append(token, to: &result.text)
    if let end = options.stops.firstEnd(in: result.text, from: written) {
      result.text.removeSubrange(end...)
      result.finishReason = .stop
      isOver = true
      return
    }
    if result.sampledTokenCount == limit { end() }
  }

  private static func draw(
    _ sampler: inout Sampler, _ logits: UnsafeMutableBufferPointer<Float>, after path: [Int32]
  ) -> Int32 {
    sampler.draw(logits.span, history: path.span, position: path.count)
  }

  private mutating func end() {
    isOver = true
    let written = result.text.count
    detokenizer.finish(&result.text)
    if let end = options.stops.firstEnd(in: result.text, from: written) {
      result.text.removeSubrange(end...)
      result.finishReason = .stop
    }
  }

  /// Ends the answer where it is.
  mutating func cancel() {
    isOver = true
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

/// Texts that end an answer, which are not part of it.
public struct StopStrings: Sendable, ExpressibleByArrayLiteral {
  private let texts: [[UInt8]]
  private let longest: Int

  /// Empty texts, which would end every answer before it began, are left out.
  public init(_ texts: [String]) {
    self.texts = texts.map { Array($0.utf8) }.filter { !$0.isEmpty }
    longest = self.texts.lazy.map(\.count).max() ?? 0
  }

  public init(arrayLiteral texts: String...) { self.init(texts) }

  /// Where the earliest of them begins in `text`, of those that reach beyond its first `written` bytes.
  func firstEnd(in text: [UInt8], from written: Int) -> Int? {
    guard longest > 0 else { return nil }
    for start in max(0, written - longest + 1)..<max(0, text.count) {
      let rest = text[start...]
      if texts.contains(where: { rest.starts(with: $0) && start + $0.count > written }) {
        return start
      }
    }
    return nil
  }

  /// Bytes at the end of `text` that may be the beginning of one of them.
  func heldByteCount(of text: [UInt8]) -> Int {
    for count in stride(from: min(longest - 1, text.count), to: 0, by: -1) {
      let end = text.suffix(count)
      if texts.contains(where: { $0.count > count && $0.starts(with: end) }) { return count }
    }
    return 0
  }
}
