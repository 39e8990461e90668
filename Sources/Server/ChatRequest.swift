import ModelFormat
import Runtime
import Tokenization

/// A conversation that is to be answered, and how: what all interfaces make of a request for one.
struct ChatRequest {
  let conversation: Conversation
  let tools: ToolOffer
  /// Whether reasoning is told apart from text.
  let separatesReasoning: Bool
  var options: AnswerOptions
  /// A prompt and the answer to it, which the conversation goes on from, and the number of the message that is that
  /// answer; nil = all of it is read as it is written.
  var continued: (tokens: [Int32], answer: Int)?
  /// Whether an answer must not begin with thinking.
  var forbidsThinking = false
  /// What the chat template must read.
  var demands = TemplateDemands()
}

/// The body of `/v1/chat/completions`.
extension ChatRequest {
  static let names = FieldNames(
    "ChatRequest",
    taken: AnswerOptions.fields + Conversation.knownMembers + ToolOffer.fields + [
      "max_completion_tokens", "logprobs", "top_logprobs", "reasoning_format", "verbosity",
    ],
    neutral: AnswerOptions.neutralFields.merging([
      "functions": .empty, "function_call": .texts(["none", "auto"]),
      "modalities": .texts(["text"]), "audio": .none, "prediction": .none, "store": .no,
      "metadata": .empty, "service_tier": .texts(["auto", "default"]),
      "web_search_options": .none, "safety_identifier": .anyText, "prompt_cache_key": .anyText,
    ]) { $1 })

  init(_ body: [UInt8]) throws {
    let fields = try RequestFields(body, Self.names)
    tools = try ToolOffer(fields)
    var conversation = try Self.conversation(fields, tools)
    demands = try TemplateDemands(fields)
    try demands.setVerbosity(of: &conversation, to: fields["verbosity"], at: "verbosity")
    self.conversation = conversation
    separatesReasoning =
      try fields.text("reasoning_format", of: ["auto", "none"]) ?? "auto" == "auto"
    options = try AnswerOptions(fields, limit: ["max_tokens", "max_completion_tokens"])
    let count = try fields.integer("top_logprobs", in: 0...AnswerOptions.mostAlternatives)
    if try fields.flag("logprobs") ?? false {
      options.alternativeCount = count ?? 0
    } else if count != nil {
      throw APIError.bad("top_logprobs", "'top_logprobs' needs \"logprobs\": true")
    }
  }

  /// - Parameter tools: those of the request; where none may be called the model is not told of any.
  static func conversation(_ fields: RequestFields, _ tools: ToolOffer) throws -> Conversation {
    let messages = try fields.required("messages")
    try checkParts(of: messages)
    let own = (fields.json.members ?? []).filter { member in
      guard member.key != "tools" else { return !tools.names.isEmpty }
      return Conversation.knownMembers.contains(member.key)
    }
    do throws(TokenizerError) {
      return try Conversation(
        JSONValue(content: .object(own), offset: fields.json.offset), name: "the body")
    } catch { throw APIError.bad("messages", error.description) }
  }

  /// Refuses what is no text: templates would leave it out.
  private static func checkParts(of messages: JSONValue) throws {
    for (number, message) in (messages.array ?? []).enumerated() {
      for part in message["content"]?.array ?? [] {
        let type = part["type"]?.string
        guard type != "text" || part["text"]?.string == nil else { continue }
        throw APIError.bad(
          "messages[\(number)].content",
          "parts of a message must be texts, {\"type\": \"text\", \"text\": …}; one has the type "
            + "\(type.map { "\"\($0)\"" } ?? "none")")
      }
    }
  }
}

/// The body of `/apply-template`.
struct TemplateRequest {
  let conversation: Conversation
  let tools: ToolOffer
  let model: String?
  let demands: TemplateDemands

  static let names = FieldNames(
    "TemplateRequest", taken: Conversation.knownMembers + ToolOffer.fields + ["model"])

  init(_ body: [UInt8]) throws {
    let fields = try RequestFields(body, Self.names)
    tools = try ToolOffer(fields)
    conversation = try ChatRequest.conversation(fields, tools)
    demands = try TemplateDemands(fields)
    model = try fields.text("model")
  }
}
