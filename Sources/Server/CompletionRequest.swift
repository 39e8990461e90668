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
    let forms = "must be a text, a list of token ids, or a list of such, none of them empty"
    guard let list = value.array, let first = list.first else {
      let found = value.array == nil && value.string == nil ? value.found : "empty"
      throw APIError.bad(field, "'\(field)' \(forms); it is \(found)")
    }
    // A list that begins with a number is one of token ids.
    let isOfTokens = first.integer != nil
    let wrong = list.firstIndex { isOfTokens ? token($0) == nil : prompt($0) == nil }
    if let wrong {
      let isEmpty = list[wrong].string?.isEmpty ?? list[wrong].array?.isEmpty ?? false
      let what = isEmpty ? "empty" : isOfTokens ? "no token id" : "none of them"
      throw APIError.bad(field, "'\(field)' \(forms); '\(field)[\(wrong)]' is \(what)")
    }
    return list.compactMap(prompt)
  }

  private static func prompt(_ value: JSONValue) -> Prompt? {
    if let text = value.string { return text.isEmpty ? nil : .text(text) }
    return tokens(value).map { .tokens($0) }
  }

  /// A list of token ids that is not empty.
  static func tokens(_ value: JSONValue) -> [Int32]? {
    guard let values = value.array, !values.isEmpty else { return nil }
    let tokens = values.compactMap(token)
    return tokens.count == values.count ? tokens : nil
  }

  private static func token(_ value: JSONValue) -> Int32? {
    value.integer.flatMap { Int32(exactly: $0) }
  }
}
