import HTTPTypes
import Runtime
import Tokenization
import WeightLoader

/// A model as requests see it: its name, its vocabulary, its chat template and its context.
struct ServedModel: @unchecked Sendable {
  // Safety: of the model only what never changes is used, its vocabulary and description, and its templates, which
  // have a lock. What reads weights is the engine's alone.
  private let model: LanguageModel
  /// What requests call it.
  let name: String
  /// Tokens of a prompt and its answer.
  let contextLength: Int

  init(_ model: LanguageModel, name: String, contextLength: Int) {
    self.model = model
    self.name = name
    self.contextLength = contextLength
  }

  var tokenizer: Tokenizer { model.tokenizer }
  var trainedContextLength: Int { model.configuration.contextLength }
  var chatTemplate: String? { model.source.description.chatTemplate(hasTools: false) }

  /// Refuses a request for another model.
  func check(_ asked: String?) throws {
    guard let asked, asked != name else { return }
    throw APIError(
      .notFound, "there is no model '\(asked)' here, but '\(name)'", field: "model",
      code: "model_not_found")
  }

  /// The tokens of a prompt to be continued.
  func tokens(_ prompt: CompletionRequest.Prompt) throws -> [Int32] {
    switch prompt {
    case .text(let text):
      try checked("prompt") { () throws(RuntimeError) in try model.prompt(text) }
    case .tokens(let tokens): try checked("prompt") { tokens }
    }
  }

  /// The tokens of a conversation to be answered.
  func tokens(_ conversation: Conversation) throws -> [Int32] {
    try checked("messages") { () throws(RuntimeError) in try model.prompt(conversation) }
  }

  /// The text that the chat template makes of a conversation.
  func text(of conversation: Conversation) throws -> [UInt8] {
    do throws(RuntimeError) { return try model.text(of: conversation) } catch {
      throw APIError(error, field: "messages")
    }
  }

  /// Tokens that a context has room for, with an answer.
  private func checked(
    _ field: String, _ tokens: () throws(RuntimeError) -> [Int32]
  ) throws -> [Int32] {
    let result: [Int32]
    do throws(RuntimeError) { result = try tokens() } catch { throw APIError(error, field: field) }
    guard result.count < contextLength else {
      throw APIError.bad(
        field,
        "the prompt has \(result.count) tokens; a context of \(contextLength) has room for "
          + "\(contextLength - 1) and an answer (the server's --context)",
        code: "context_length_exceeded")
    }
    return result
  }
}
