import CoreMetrics
import Runtime

/// Figures of answers and of the requests for them.
struct AnswerMetrics: Sendable {
  private let factory: any MetricsFactory
  private let promptTokens: Counter
  private let cachedTokens: Counter
  private let answerTokens: Counter
  private let queue: Timer
  private let firstToken: Timer
  private let betweenTokens: Timer

  init(_ factory: any MetricsFactory) {
    self.factory = factory
    promptTokens = Counter(label: "flashinfer_prompt_tokens", factory: factory)
    cachedTokens = Counter(label: "flashinfer_cached_tokens", factory: factory)
    answerTokens = Counter(label: "flashinfer_answer_tokens", factory: factory)
    queue = Timer(label: "flashinfer_time_in_queue", factory: factory)
    firstToken = Timer(label: "flashinfer_time_to_first_token", factory: factory)
    betweenTokens = Timer(label: "flashinfer_time_between_tokens", factory: factory)
  }

  /// What each is, for people.
  static let helps = [
    "flashinfer_prompt_tokens": "Tokens of prompts whose answers ended.",
    "flashinfer_cached_tokens": "Those of them that were known from before.",
    "flashinfer_answer_tokens": "Tokens of answers that ended.",
    "flashinfer_time_in_queue": "Time that an answer waited for a place.",
    "flashinfer_time_to_first_token": "Time from a request to the first token of its answer.",
    "flashinfer_time_between_tokens": "Mean time from one token of an answer to the next.",
    "flashinfer_http_requests": "Requests answered or refused.",
  ]

  /// Counts an answer that ended.
  func note(_ usage: TokenSequence.Usage) {
    promptTokens.increment(by: usage.promptTokenCount)
    cachedTokens.increment(by: usage.reusedTokenCount)
    answerTokens.increment(by: usage.answerTokenCount)
    // Without a place it waited to its end.
    let begin = usage.beginNanoseconds ?? usage.endNanoseconds
    queue.recordNanoseconds(Int64(begin - usage.startNanoseconds))
    guard let first = usage.firstTokenNanoseconds else { return }
    firstToken.recordNanoseconds(Int64(first - usage.startNanoseconds))
    guard usage.answerTokenCount > 1 else { return }
    betweenTokens.recordNanoseconds(
      Int64((usage.endNanoseconds - first) / (usage.answerTokenCount - 1)))
  }

  /// Counts a request that was answered or refused.
  ///
  /// - Parameter route: the pattern that it matched, never what a client wrote.
  func note(route: String, status: Int) {
    Counter(
      label: "flashinfer_http_requests",
      dimensions: [("route", route), ("status", "\(status)")], factory: factory
    ).increment()
  }
}
