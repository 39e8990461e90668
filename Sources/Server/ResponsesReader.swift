import ModelFormat

/// Turns what a request of `/v1/responses` gives into messages and tools as chat templates are given them.
struct ResponsesReader {
  /// Names of tools by the ids of their calls.
  private var names: [String: JSONValue] = [:]
  private var messages: [JSONValue] = []
  /// The assistant's message that is being put together of items.
  private var open: Assistant?

  private static let messageNames = FieldNames(
    "ResponsesMessage", taken: ["type", "id", "status", "role", "content", "phase"])
  private static let reasoningNames = FieldNames(
    "ReasoningItem", taken: ["type", "id", "status", "summary", "content"],
    neutral: ["encrypted_content": .none])
  private static let callNames = FieldNames(
    "FunctionCallItem", taken: ["type", "id", "status", "call_id", "name", "arguments"])
  private static let resultNames = FieldNames(
    "FunctionCallOutputItem", taken: ["type", "id", "status", "call_id", "output", "name"])
  private static let partNames = FieldNames(
    "ResponsesTextPart", taken: ["type", "text", "annotations", "logprobs"])
  private static let toolNames = FieldNames(
    "ResponsesTool", taken: ["type", "name", "description", "parameters", "strict"])
  private static let choiceNames = FieldNames("ResponsesToolChoice", taken: ["type", "name"])
  static let objectNames = [
    messageNames, reasoningNames, callNames, resultNames, partNames, toolNames, choiceNames,
  ]

  private struct Assistant {
    var thoughts: [String] = []
    var content: JSONValue?
    var calls: [JSONValue] = []

    var message: JSONValue {
      .object([
        ("role", .text("assistant")), ("content", content ?? (calls.isEmpty ? .text("") : nil)),
        ("reasoning_content", thoughts.isEmpty ? nil : .text(thoughts.joined(separator: "\n"))),
        ("tool_calls", calls.isEmpty ? nil : .list(calls)),
      ])
    }
  }

  /// - Parameter messages: of the response that is gone on from.
  init(after messages: [JSONValue]) {
    for message in messages {
      for call in message["tool_calls"]?.array ?? [] {
        if let id = call["id"]?.string { names[id] = call["function"]?["name"] }
      }
    }
  }

  /// The messages of an `input`: a text, or items.
  mutating func messages(_ input: JSONValue) throws -> [JSONValue] {
    if input.string != nil { return [.message("user", input)] }
    guard let items = input.array, !items.isEmpty else {
      throw APIError.bad("input", "'input' must be a text, or a list of at least one item")
    }
    for (number, item) in items.enumerated() { try take(item, "input[\(number)]") }
    close()
    return messages
  }

  private mutating func close() {
    if let open { messages.append(open.message) }
    open = nil
  }

  private mutating func take(_ item: JSONValue, _ place: String) throws {
    guard let type = item["type"] else { return try takeMessage(item, place) }
    switch type.string {
    case "message": try takeMessage(item, place)
    case "reasoning": try takeReasoning(item, place)
    case "function_call": try takeCall(item, place)
    case "function_call_output": try takeResult(item, place)
    default:
      throw APIError.bad(
        "input",
        "'\(place)' is of the type \(type.found), which is not supported; there are: message, "
          + "reasoning, function_call, function_call_output", code: "unsupported_parameter")
    }
  }

  private mutating func takeMessage(_ item: JSONValue, _ place: String) throws {
    try Self.messageNames.check(item, at: place)
    guard let content = item["content"] else {
      throw APIError.bad("input", "'\(place)' has no 'content'")
    }
    let role = item["role"]?.string ?? ""
    guard ["user", "assistant", "system", "developer"].contains(role) else {
      throw APIError.bad(
        "input", "the 'role' of '\(place)' must be user, assistant, system or developer")
    }
    let texts = try Self.texts(content, place + ".content")
    guard role == "assistant" else {
      close()
      return messages.append(.message(role, .content(texts)))
    }
    if open?.content != nil || open?.calls.isEmpty == false { close() }
    open = open ?? Assistant()
    open?.content = .content(texts)
  }

  private mutating func takeReasoning(_ item: JSONValue, _ place: String) throws {
    try Self.reasoningNames.check(item, at: place)
    let lists = try ["content", "summary"].compactMap { name -> [JSONValue]? in
      guard let value = name == "content" ? item["content"] : item["summary"] else { return nil }
      guard value.array != nil else {
        throw APIError.bad("input", "'\(place).\(name)' must be a list, not \(value.found)")
      }
      return try Self.texts(value, "\(place).\(name)")
    }
    if open?.content != nil || open?.calls.isEmpty == false { close() }
    open = open ?? Assistant()
    // A summary says the same in fewer words.
    open?.thoughts += lists.first { !$0.isEmpty }?.compactMap(\.string) ?? []
  }

  private mutating func takeCall(_ item: JSONValue, _ place: String) throws {
    try Self.callNames.check(item, at: place)
    guard let id = item["call_id"], let key = id.string, let name = item["name"],
      name.string != nil, let arguments = item["arguments"], arguments.string != nil
    else {
      throw APIError.bad("input", "'\(place)' lacks its 'call_id', 'name' or 'arguments'")
    }
    names[key] = name
    open = open ?? Assistant()
    open?.calls.append(ToolOffer.call(id: id, name, arguments: arguments))
  }

  private mutating func takeResult(_ item: JSONValue, _ place: String) throws {
    try Self.resultNames.check(item, at: place)
    guard let id = item["call_id"], let key = id.string, let output = item["output"] else {
      throw APIError.bad("input", "'\(place)' lacks its 'call_id' or 'output'")
    }
    guard let called = names[key] else { throw APIError.noSuchCall(key, "input", at: place) }
    if let name = item["name"], name.string == nil {
      throw APIError.bad("input", "'\(place).name' must be a text, not \(name.found)")
    }
    close()
    messages.append(
      .object([
        ("role", .text("tool")), ("tool_call_id", id),
        ("content", .content(try Self.texts(output, place + ".output"))),
        ("name", item["name"] ?? called),
      ]))
  }

  /// A text, or parts that are texts.
  private static func texts(_ value: JSONValue, _ place: String) throws -> [JSONValue] {
    if value.string != nil { return [value] }
    guard let parts = value.array else {
      throw APIError.bad(
        "input", "'\(place)' must be a text or a list of parts, not \(value.found)")
    }
    return try parts.enumerated().map { number, part in
      let place = "\(place)[\(number)]"
      let types = ["input_text", "output_text", "text", "summary_text", "reasoning_text"]
      guard let type = part["type"]?.string, types.contains(type), let text = part["text"],
        text.string != nil
      else {
        throw APIError.bad(
          "input", "'\(place)' is no text, {\"type\": \"input_text\", \"text\": …}",
          code: "unsupported_parameter")
      }
      try partNames.check(part, at: place)
      return text
    }
  }

  // MARK: Tools

  /// Tools in the form of chats.
  static func tools(_ value: JSONValue) throws -> JSONValue {
    guard let list = value.array else {
      throw APIError.bad("tools", "'tools' must be a list, not \(value.found)")
    }
    return .list(
      try list.enumerated().map { number, tool in
        let place = "tools[\(number)]"
        guard tool["type"]?.string == "function" else {
          throw APIError.bad(
            "tools", "'\(place)' is no function: only those are supported",
            code: "unsupported_parameter")
        }
        try toolNames.check(tool, at: place)
        return ToolOffer.tool(
          tool["name"], tool["description"], tool["parameters"], strict: tool["strict"])
      })
  }

  static func choice(_ value: JSONValue) throws -> ToolOffer.Choice {
    if let choice = value.string.flatMap(ToolOffer.Choice.init(word:)) { return choice }
    guard value["type"]?.string == "function", let name = value["name"]?.string else {
      throw APIError.bad(
        "tool_choice",
        "'tool_choice' must be \"auto\", \"none\", \"required\" or {\"type\": \"function\", \"name\": …}"
      )
    }
    try choiceNames.check(value, at: "tool_choice")
    return .named(name)
  }
}
