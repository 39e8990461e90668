import ModelFormat

/// The tools that a request offers the model.
struct ToolOffer {
  /// Whether an answer may, or must, call tools.
  enum Choice: Equatable {
    case none
    case auto
    /// It calls tools and says nothing else.
    case required
    /// It calls that one.
    case named(String)
  }

  struct Tool {
    let name: String
    /// A schema of its arguments; nil = any object.
    let parameters: JSONValue?
  }

  /// Their names; none where none may be called.
  private(set) var names: Set<String> = []
  /// Those of which an answer calls one; none where it need not.
  private(set) var required: [Tool] = []
  /// Whether an answer may call more than one.
  private(set) var allowsMany = true

  /// Beside `tools`, which are a part of the conversation.
  static let fields = ["tool_choice", "parallel_tool_calls"]
  private static let mostNameBytes = 256
  private static let toolNames = FieldNames("Tool", taken: ["type", "function"])
  private static let functionNames = FieldNames(
    "ToolFunction", taken: ["name", "description", "parameters", "strict"])
  private static let choiceNames = FieldNames("NamedToolChoice", taken: ["type", "function"])
  private static let chosenNames = FieldNames("ChosenFunction", taken: ["name"])
  static let objectNames = [toolNames, functionNames, choiceNames, chosenNames]

  /// Those of a request of OpenAI's interface.
  ///
  /// - Throws: ``APIError``.
  init(_ fields: RequestFields) throws {
    try self.init(
      tools: fields["tools"], try fields["tool_choice"].map(Self.choice) ?? .auto,
      allowsMany: fields.flag("parallel_tool_calls") ?? true)
  }

  private static func choice(_ value: JSONValue) throws -> Choice {
    switch value.string {
    case "auto": return .auto
    case "none": return .none
    case "required": return .required
    default: break
    }
    guard value["type"]?.string == "function", let name = value["function"]?["name"]?.string else {
      throw APIError.bad(
        "tool_choice",
        "'tool_choice' must be \"auto\", \"none\", \"required\" or {\"type\": \"function\", \"function\": "
          + "{\"name\": …}}")
    }
    try choiceNames.check(value, at: "tool_choice")
    try value["function"].map { try chosenNames.check($0, at: "tool_choice.function") }
    return .named(name)
  }

  /// - Parameter tools: as OpenAI's interface and chat templates have them.
  init(tools: JSONValue?, _ choice: Choice, allowsMany: Bool) throws {
    self.allowsMany = allowsMany
    guard let list = tools?.array ?? (tools == nil ? [] : nil) else {
      throw APIError.bad("tools", "'tools' must be a list, not \(tools?.found ?? "")")
    }
    for (number, tool) in list.enumerated() {
      let name = try Self.name(of: tool, "tools[\(number)]", mayBeStrict: choice.isForced)
      guard names.insert(name).inserted else {
        throw APIError.bad("tools", "'tools' has two of the name '\(name)'")
      }
      guard choice.includes(name) else { continue }
      required.append(Tool(name: name, parameters: tool["function"]?["parameters"]))
    }
    guard !choice.isForced || !required.isEmpty else {
      throw APIError.bad("tool_choice", "'tool_choice' asks for a tool that is not in 'tools'")
    }
    // One that is asked for by name is called once.
    if case .named = choice { self.allowsMany = false }
    if choice == .none { names = [] }
  }

  private static func name(
    of tool: JSONValue, _ place: String, mayBeStrict: Bool
  ) throws -> String {
    guard tool["type"]?.string == "function", let function = tool["function"],
      function.members != nil
    else {
      throw APIError.bad(
        "tools", "\(place) is not {\"type\": \"function\", \"function\": {\"name\": …}}")
    }
    try toolNames.check(tool, at: place)
    try functionNames.check(function, at: "\(place).function")
    guard mayBeStrict || tool["function"]?["strict"]?.bool != true else {
      throw APIError.bad(
        "tools",
        "\(place): 'strict' is supported where 'tool_choice' asks for a call: leave it out, or ask for one",
        code: "unsupported_parameter")
    }
    guard let name = tool["function"]?["name"]?.string, !name.isEmpty,
      name.utf8.count <= mostNameBytes
    else {
      throw APIError.bad("tools", "\(place) has no name of 1 to \(mostNameBytes) bytes")
    }
    return name
  }
}

extension ToolOffer.Choice {
  fileprivate var isForced: Bool {
    switch self {
    case .none, .auto: false
    case .required, .named: true
    }
  }

  /// Whether a call of that tool is asked for.
  fileprivate func includes(_ name: String) -> Bool {
    switch self {
    case .none, .auto: false
    case .required: true
    case .named(let wanted): name == wanted
    }
  }
}
