import ModelFormat
import Runtime

/// The body of `/v1/completions`.
struct CompletionRequest {
  /// What is to be continued: texts or tokens.
  enum Prompt: Sendable, Equatable {
    case text(String)
    case tokens([Int32])
  }

  let prompts: [Prompt]
  var options: AnswerOptions

  static let names = FieldNames(
    "CompletionRequest", taken: AnswerOptions.fields + ["prompt", "logprobs"],
    neutral: AnswerOptions.neutralFields.merging([
      "echo": .no, "best_of": .one, "suffix": .empty,
    ]) { $1 })
  /// What OpenAI's interface answers with where nothing is said.
  private static let usualLimit = 16

  init(_ body: [UInt8]) throws {
    let fields = try RequestFields(body, Self.names)
    prompts = try Self.prompts(fields.required("prompt"), "prompt")
    options = try AnswerOptions(fields, limit: ["max_tokens"])
    options.limit = options.limit ?? Self.usualLimit
    options.alternativeCount = try fields.integer(
      "logprobs", in: 0...AnswerOptions.mostAlternatives)
  }

  /// - Parameter field: that has them.
  static func prompts(_ value: JSONValue, _ field: String) throws -> [Prompt] {
    if let prompt = prompt(value) { return [prompt] }
    let prompts = value.array?.compactMap(prompt) ?? []
    guard !prompts.isEmpty, prompts.count == value.array?.count else {
      throw APIError.bad(
        field,
        "'\(field)' must be a text, a list of token ids, or a list of such, none of them empty; not "
          + value.found)
    }
    return prompts
  }

  private static func prompt(_ value: JSONValue) -> Prompt? {
    if let text = value.string { return text.isEmpty ? nil : .text(text) }
    return tokens(value).map { .tokens($0) }
  }

  /// A list of token ids that is not empty.
  static func tokens(_ value: JSONValue) -> [Int32]? {
    guard let values = value.array, !values.isEmpty else { return nil }
    let tokens = values.compactMap { $0.integer.flatMap { Int32(exactly: $0) } }
    return tokens.count == values.count ? tokens : nil
  }
}
