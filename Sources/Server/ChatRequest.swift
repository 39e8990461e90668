import ModelFormat
import Runtime
import Tokenization

/// The body of `/v1/chat/completions`.
struct ChatRequest {
  let conversation: Conversation
  var options: AnswerOptions

  /// Parts of a conversation that the chat template is given; tools come with what reads their calls.
  private static let conversationFields = Conversation.knownMembers.filter { $0 != "tools" }

  private static let names = FieldNames(
    taken: AnswerOptions.fields + conversationFields + [
      "max_completion_tokens", "logprobs", "top_logprobs",
    ],
    neutral: AnswerOptions.neutralFields.merging([
      "tools": .empty, "tool_choice": .texts(["none", "auto"]), "parallel_tool_calls": .anyFlag,
      "functions": .empty, "function_call": .texts(["none", "auto"]), "response_format": .textType,
      "modalities": .texts(["text"]), "audio": .none, "prediction": .none, "store": .no,
      "metadata": .empty, "service_tier": .texts(["auto", "default"]), "verbosity": .none,
      "web_search_options": .none, "safety_identifier": .anyText, "prompt_cache_key": .anyText,
    ]) { $1 })

  init(_ body: [UInt8]) throws {
    let fields = try RequestFields(body, Self.names)
    conversation = try Self.conversation(fields)
    options = try AnswerOptions(fields, limit: ["max_tokens", "max_completion_tokens"])
    let count = try fields.integer("top_logprobs", in: 0...AnswerOptions.mostAlternatives)
    if try fields.flag("logprobs") ?? false {
      options.alternativeCount = count ?? 0
    } else if count != nil {
      throw APIError.bad("top_logprobs", "'top_logprobs' needs \"logprobs\": true")
    }
  }

  static func conversation(_ fields: RequestFields) throws -> Conversation {
    let messages = try fields.required("messages")
    try checkParts(of: messages)
    let own = fields.json.members?.filter { conversationFields.contains($0.key) } ?? []
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
  let model: String?

  private static let names = FieldNames(
    taken: Conversation.knownMembers.filter { $0 != "tools" } + ["model"],
    neutral: ["tools": .empty])

  init(_ body: [UInt8]) throws {
    let fields = try RequestFields(body, Self.names)
    conversation = try ChatRequest.conversation(fields)
    model = try fields.text("model")
  }
}
