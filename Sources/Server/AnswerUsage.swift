import ModelFormat
import Runtime

/// What the answers to a request took.
struct AnswerUsage: Sendable {
  private(set) var promptCount = 0
  private(set) var cachedCount = 0
  private(set) var answerCount = 0
  private(set) var drafts = DraftCounts()
  /// Tokens of answers that were drawn while the model thought.
  private(set) var reasoningCount = 0
  private let choicesPerPrompt: Int

  init(_ job: Answers.Job) { choicesPerPrompt = job.options.choiceCount }

  /// Adds an answer; a prompt counts once, however many choices it has.
  mutating func add(_ end: AnswerEnd, choice: Int) {
    let finish = end.finish
    reasoningCount += end.reasoningCount
    answerCount += finish.usage.answerTokenCount
    drafts += finish.usage.drafts
    guard choice % choicesPerPrompt == 0 else { return }
    promptCount += finish.usage.promptTokenCount
    cachedCount += finish.usage.reusedTokenCount
  }

  func write(to json: inout JSONWriter) {
    json.object("usage") { json in
      json.number("prompt_tokens", promptCount)
      json.number("completion_tokens", answerCount)
      json.number("total_tokens", promptCount + answerCount)
      json.object("prompt_tokens_details") { $0.number("cached_tokens", cachedCount) }
      json.object("completion_tokens_details") { json in
        json.number("reasoning_tokens", reasoningCount)
        json.number("accepted_prediction_tokens", drafts.acceptedCount)
        json.number("rejected_prediction_tokens", drafts.draftedCount - drafts.acceptedCount)
      }
    }
  }
}
