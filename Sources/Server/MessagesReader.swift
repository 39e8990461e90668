import ModelFormat

/// Turns messages and tools of Anthropic's interface into those that chat templates are given.
struct MessagesReader {
  private static let toolNames = FieldNames(
    "AnthropicTool",
    taken: ["type", "name", "description", "input_schema", "strict", "cache_control"])
  private static let messageNames = FieldNames("AnthropicMessage", taken: ["role", "content"])
  private static let resultNames = FieldNames(
    "ToolResultBlock", taken: ["type", "tool_use_id", "content", "is_error", "cache_control"])
  private static let thinkingNames = FieldNames(
    "ThinkingBlock", taken: ["type", "thinking", "signature"])
  private static let useNames = FieldNames(
    "ToolUseBlock", taken: ["type", "id", "name", "input", "cache_control"])
  private static let textNames = FieldNames(
    "TextBlock", taken: ["type", "text", "cache_control"], neutral: ["citations": .empty])
  static let names = [
    toolNames, messageNames, resultNames, thinkingNames, useNames, textNames,
  ]

  // MARK: Tools

  func tools(_ value: JSONValue) throws -> JSONValue {
    guard let list = value.array else {
      throw APIError.bad("tools", "'tools' must be a list, not \(value.found)")
    }
    return .list(
      try list.enumerated().map { number, tool in
        let place = "tools[\(number)]"
        try Self.toolNames.check(tool, at: place)
        guard tool["type"] == nil || tool["type"]?.string == "custom" else {
          throw APIError.bad(
            "tools", "'\(place)' is none of the client's: only those are supported")
        }
        return ToolOffer.tool(
          tool["name"], tool["description"], tool["input_schema"], strict: tool["strict"])
      })
  }

  // MARK: Messages

  /// Messages as chat templates are given them, the system's first.
  func messages(_ value: JSONValue, system: JSONValue?) throws -> JSONValue {
    guard let list = value.array, !list.isEmpty else {
      throw APIError.bad("messages", "'messages' must be a list of at least one message")
    }
    var messages: [JSONValue] = []
    if let system {
      messages.append(.message("system", try content(system, "system")))
    }
    /// Names of tools by the ids of their calls.
    var names: [String: JSONValue] = [:]
    for (number, message) in list.enumerated() {
      let place = "messages[\(number)]"
      try Self.messageNames.check(message, at: place)
      guard let content = message["content"] else {
        throw APIError.bad("messages", "'\(place)' has no 'content'")
      }
      switch message["role"]?.string {
      case "user": messages += try user(content, "\(place).content", names)
      case "assistant":
        guard number + 1 < list.count else {
          throw APIError.bad(
            "messages", "'messages' ends with the assistant's: going on with it is not supported")
        }
        messages.append(try assistant(content, "\(place).content", &names))
      default:
        throw APIError.bad(
          "messages", "the 'role' of '\(place)' must be \"user\" or \"assistant\"")
      }
    }
    return .list(messages)
  }

  private func user(
    _ content: JSONValue, _ place: String, _ names: [String: JSONValue]
  ) throws -> [JSONValue] {
    guard let blocks = content.array else {
      return [.message("user", try self.content(content, place))]
    }
    var (messages, texts) = ([JSONValue](), [JSONValue]())
    func flush() {
      if !texts.isEmpty { messages.append(.message("user", .content(texts))) }
      texts = []
    }
    for (number, block) in blocks.enumerated() {
      let place = "\(place)[\(number)]"
      switch block["type"]?.string {
      case "text": texts.append(try text(block, place))
      case "tool_result":
        flush()
        messages.append(try result(block, place, names))
      default: throw Self.unsupported(block, place)
      }
    }
    flush()
    guard !messages.isEmpty else { throw APIError.bad("messages", "'\(place)' is empty") }
    return messages
  }

  private func result(
    _ block: JSONValue, _ place: String, _ names: [String: JSONValue]
  ) throws -> JSONValue {
    try Self.resultNames.check(block, at: place)
    guard let id = block["tool_use_id"], let key = id.string else {
      throw APIError.bad("messages", "'\(place)' has no 'tool_use_id'")
    }
    let content = try block["content"].map { try self.content($0, "\(place).content") }
    if let isError = block["is_error"], isError.bool == nil {
      throw APIError.bad("messages", "'\(place).is_error' must be true or false")
    }
    guard let name = names[key] else {
      throw APIError.noSuchCall(key, "messages", at: place)
    }
    return .object([
      ("role", .text("tool")), ("tool_call_id", id), ("content", content ?? .text("")),
      ("name", name), ("is_error", block["is_error"]),
    ])
  }

  private func assistant(
    _ content: JSONValue, _ place: String, _ names: inout [String: JSONValue]
  ) throws -> JSONValue {
    guard let blocks = content.array else {
      return .message("assistant", try self.content(content, place))
    }
    var (texts, calls, thoughts) = ([JSONValue](), [JSONValue](), [String]())
    for (number, block) in blocks.enumerated() {
      let place = "\(place)[\(number)]"
      switch block["type"]?.string {
      case "text": texts.append(try text(block, place))
      case "thinking":
        try Self.thinkingNames.check(block, at: place)
        guard let thought = block["thinking"]?.string else {
          throw APIError.bad("messages", "'\(place)' has no 'thinking'")
        }
        thoughts.append(thought)
      case "tool_use":
        try Self.useNames.check(block, at: place)
        guard let id = block["id"], let key = id.string, let name = block["name"],
          name.string != nil, let input = block["input"], input.members != nil
        else { throw APIError.bad("messages", "'\(place)' lacks its 'id', 'name' or 'input'") }
        names[key] = name
        calls.append(ToolOffer.call(id: id, name, arguments: input))
      default: throw Self.unsupported(block, place)
      }
    }
    return .object([
      ("role", .text("assistant")), ("content", .content(texts)),
      ("reasoning_content", thoughts.isEmpty ? nil : .text(thoughts.joined(separator: "\n"))),
      ("tool_calls", calls.isEmpty ? nil : .list(calls)),
    ])
  }

  /// A text, or blocks of text.
  private func content(_ value: JSONValue, _ place: String) throws -> JSONValue {
    if value.string != nil { return value }
    guard let blocks = value.array else {
      throw APIError.bad(
        FieldNames.field(of: place),
        "'\(place)' must be a text or a list of blocks, not \(value.found)")
    }
    return .content(
      try blocks.enumerated().map { try text($1, "\(place)[\($0)]") })
  }

  /// What a block of text says.
  private func text(_ block: JSONValue, _ place: String) throws -> JSONValue {
    guard block["type"]?.string == "text" else { throw Self.unsupported(block, place) }
    try Self.textNames.check(block, at: place)
    guard let text = block["text"], text.string != nil else {
      throw APIError.bad(FieldNames.field(of: place), "'\(place)' has no 'text'")
    }
    return text
  }

  private static func unsupported(_ block: JSONValue, _ place: String) -> APIError {
    let type = block["type"]?.string.map { "of the type \"\($0.prefix(64))\"" } ?? "without a type"
    return .bad(
      FieldNames.field(of: place), "'\(place)' is a block \(type), which has no place here",
      code: "unsupported_parameter")
  }
}
