import ModelFormat
import Tokenization

/// The bodies of `/v1/messages` and `/v1/messages/count_tokens`.
extension ChatRequest {
  private static let countedFields = [
    "model", "messages", "system", "tools", "tool_choice", "thinking", "output_config",
  ]
  private static let messageFields =
    countedFields + [
      "max_tokens", "stop_sequences", "stream", "temperature", "top_p", "top_k", "metadata",
      // Beyond Anthropic's interface.
      "min_p", "repetition_penalty", "seed", "ignore_eos",
    ] + AnswerOptions.loadFields + AnswerConstraint.fields
  static let messageNames = FieldNames(
    "MessagesRequest", taken: messageFields,
    neutral: ["service_tier": .texts(["auto", "standard_only"]), "mcp_servers": .empty])
  static let countedNames = FieldNames("CountTokensRequest", taken: countedFields)
  private static let metadataNames = FieldNames("Metadata", taken: ["user_id"])
  private static let choiceNames = FieldNames(
    "AnthropicToolChoice", taken: ["type", "name", "disable_parallel_tool_use"])
  private static let thinkingNames = FieldNames(
    "Thinking", taken: ["type", "budget_tokens", "display"])
  private static let outputNames = FieldNames("OutputConfig", taken: ["format", "effort"])
  static let objectNames = [metadataNames, choiceNames, thinkingNames, outputNames]

  /// A request of Anthropic's interface.
  ///
  /// - Parameter isAnswered: false where its tokens are only counted.
  init(messages body: [UInt8], isAnswered: Bool) throws {
    let fields = try RequestFields(body, isAnswered ? Self.messageNames : Self.countedNames)
    if isAnswered { _ = try fields.required("max_tokens") }
    try fields["metadata"].map { try Self.metadataNames.check($0, at: "metadata") }
    let reader = MessagesReader()
    let (choice, allowsMany) = try Self.toolChoice(fields["tool_choice"])
    let list = try fields["tools"].map(reader.tools)
    tools = try ToolOffer(tools: list, choice, allowsMany: allowsMany)
    var members = [
      JSONMember(
        key: "messages",
        value: try reader.messages(fields.required("messages"), system: fields["system"]))
    ]
    if let list, !tools.names.isEmpty { members.append(JSONMember(key: "tools", value: list)) }
    let thinking = try Self.thinking(fields)
    var conversation: Conversation
    do throws(TokenizerError) {
      conversation = try Conversation(
        JSONValue(content: .object(members), offset: 0), name: "the body")
    } catch { throw APIError.bad("messages", error.description) }
    switch thinking {
    case .wanted(let budget): demands.setThinking(of: &conversation, budget: budget)
    case .unwanted:
      conversation.setThinking(false)
      forbidsThinking = true
    // A model that never thinks has chosen so.
    case .allowed: conversation.setThinking(true)
    case nil: break
    }
    let output = fields["output_config"]
    try output.map { try Self.outputNames.check($0, at: "output_config") }
    try demands.set(
      "reasoning_effort", of: &conversation, to: output?["effort"], at: "output_config.effort",
      words: ["low", "medium", "high", "xhigh", "max"], usual: "high")
    self.conversation = conversation
    separatesReasoning = true
    options = try AnswerOptions(fields, limit: ["max_tokens"], stops: "stop_sequences")
  }

  private static func toolChoice(
    _ choice: JSONValue?
  ) throws -> (ToolOffer.Choice, allowsMany: Bool) {
    guard let choice else { return (.auto, true) }
    try choiceNames.check(choice, at: "tool_choice")
    let kinds: [String: ToolOffer.Choice] = ["auto": .auto, "none": .none, "any": .required]
    let name = choice["name"]?.string
    guard let type = choice["type"]?.string,
      let found = kinds[type] ?? (type == "tool" ? name.map { .named($0) } : nil)
    else {
      throw APIError.bad(
        "tool_choice",
        "the type of 'tool_choice' must be \"auto\", \"none\", \"any\", or \"tool\" with a 'name'")
    }
    let isSingle = choice["disable_parallel_tool_use"]
    guard isSingle == nil || isSingle?.bool != nil else {
      throw APIError.bad(
        "tool_choice", "'disable_parallel_tool_use' of 'tool_choice' must be true or false")
    }
    return (found, isSingle?.bool != true)
  }

  private enum Thinking {
    /// About so many tokens.
    case wanted(budget: Int)
    case allowed, unwanted
  }

  /// Whether the model is to think; nil = nothing is said.
  private static func thinking(_ fields: RequestFields) throws -> Thinking? {
    guard let thinking = fields["thinking"] else { return nil }
    try thinkingNames.check(thinking, at: "thinking")
    if let display = thinking["display"], !display.isNull, display.string != "summarized" {
      throw APIError.bad(
        "thinking",
        "'thinking.display' is not supported but as \"summarized\": thinking is told whole",
        code: "unsupported_parameter")
    }
    let type = thinking["type"]?.string
    guard let type, ["enabled", "adaptive", "disabled"].contains(type) else {
      throw APIError.bad(
        "thinking",
        "the type of 'thinking' must be \"enabled\", \"adaptive\" or \"disabled\"")
    }
    guard type == "enabled" else {
      if let budget = thinking["budget_tokens"], !budget.isNull {
        throw APIError.bad("thinking", "'thinking.budget_tokens' goes with the type \"enabled\"")
      }
      return type == "disabled" ? .unwanted : .allowed
    }
    let limit = fields["max_tokens"]?.integer ?? .max
    guard let budget = thinking["budget_tokens"]?.integer, budget >= leastThinking, budget < limit
    else {
      throw APIError.bad(
        "thinking",
        "'thinking.budget_tokens' must be a whole number from \(leastThinking) to less than 'max_tokens'"
      )
    }
    return .wanted(budget: budget)
  }

  /// Tokens, as of Anthropic's interface.
  private static let leastThinking = 1024
}
