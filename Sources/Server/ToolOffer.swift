import ModelFormat

/// The tools that a request offers the model.
struct ToolOffer: Sendable {
  /// Their names; none where none may be called.
  private(set) var names: Set<String> = []
  /// Whether an answer may call more than one.
  private(set) var allowsMany = true

  static let fields = ["tools", "tool_choice", "parallel_tool_calls"]
  private static let mostNameBytes = 256

  /// Those of a request of OpenAI's interface.
  ///
  /// - Throws: ``APIError``.
  init(_ fields: RequestFields) throws {
    var mayCall = true
    if let choice = fields["tool_choice"] {
      guard let word = choice.string, ["auto", "none"].contains(word) else {
        throw APIError.bad(
          "tool_choice",
          "'tool_choice' can be \"auto\" or \"none\": that the model must call a tool is not supported",
          code: "unsupported_parameter")
      }
      mayCall = word == "auto"
    }
    try self.init(
      tools: fields["tools"], mayCall: mayCall,
      allowsMany: fields.flag("parallel_tool_calls") ?? true)
  }

  /// - Parameter tools: as OpenAI's interface and chat templates have them.
  init(tools: JSONValue?, mayCall: Bool, allowsMany: Bool) throws {
    self.allowsMany = allowsMany
    guard let tools else { return }
    guard let list = tools.array else {
      throw APIError.bad("tools", "'tools' must be a list, not \(tools.found)")
    }
    for (number, tool) in list.enumerated() {
      let name = try Self.name(of: tool, "tools[\(number)]")
      guard names.insert(name).inserted else {
        throw APIError.bad("tools", "'tools' has two of the name '\(name)'")
      }
    }
    if !mayCall { names = [] }
  }

  private static func name(of tool: JSONValue, _ place: String) throws -> String {
    guard tool["type"]?.string == "function", let function = tool["function"]?.members else {
      throw APIError.bad(
        "tools", "\(place) is not {\"type\": \"function\", \"function\": {\"name\": …}}")
    }
    for (members, known) in [
      (tool.members ?? [], ["type", "function"]),
      (function, ["name", "description", "parameters", "strict"]),
    ] {
      for member in members where !known.contains(member.key) {
        throw APIError.bad(
          "tools",
          "\(place) has no member '\(member.key)'; there are: \(known.joined(separator: ", "))",
          code: "unknown_parameter")
      }
    }
    guard tool["function"]?["strict"]?.bool != true else {
      throw APIError.bad(
        "tools", "\(place): 'strict' is not supported: leave it out", code: "unsupported_parameter")
    }
    guard let name = tool["function"]?["name"]?.string, !name.isEmpty,
      name.utf8.count <= mostNameBytes
    else {
      throw APIError.bad("tools", "\(place) has no name of 1 to \(mostNameBytes) bytes")
    }
    return name
  }
}
