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
    /// Whether they must be of the schema wherever it is called.
    let isStrict: Bool
  }

  /// Their names; none where none may be called.
  private(set) var names: Set<String> = []
  /// Those that may be called.
  private(set) var offered: [Tool] = []
  /// Whether an answer calls one of them and says nothing else.
  let isRequired: Bool
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
    if let choice = value.string.flatMap(Choice.init(word:)) { return choice }
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
    isRequired = choice.isForced
    guard let list = tools?.array ?? (tools == nil ? [] : nil) else {
      throw APIError.bad("tools", "'tools' must be a list, not \(tools?.found ?? "")")
    }
    for (number, tool) in list.enumerated() {
      let place = "tools[\(number)]"
      let name = try Self.name(of: tool, place)
      guard names.insert(name).inserted else {
        throw APIError.bad("tools", "'tools' has two of the name '\(name)'")
      }
      let strict = tool["function"]?["strict"]
      guard strict == nil || strict?.bool != nil else {
        throw APIError.bad("tools", "'strict' of \(place) must be true or false")
      }
      guard choice.includes(name) else { continue }
      offered.append(
        Tool(
          name: name, parameters: tool["function"]?["parameters"], isStrict: strict?.bool == true))
    }
    guard !choice.isForced || !offered.isEmpty else {
      throw APIError.bad("tool_choice", "'tool_choice' asks for a tool that is not in 'tools'")
    }
    // One that is asked for by name is called once.
    if case .named = choice { self.allowsMany = false }
    if choice == .none { names = [] }
  }

  private static func name(
    of tool: JSONValue, _ place: String
  ) throws -> String {
    guard tool["type"]?.string == "function", let function = tool["function"],
      function.members != nil
    else {
      throw APIError.bad(
        "tools", "\(place) is not {\"type\": \"function\", \"function\": {\"name\": …}}")
    }
    try toolNames.check(tool, at: place)
    try functionNames.check(function, at: "\(place).function")
    guard let name = tool["function"]?["name"]?.string, !name.isEmpty,
      name.utf8.count <= mostNameBytes
    else {
      throw APIError.bad("tools", "\(place) has no name of 1 to \(mostNameBytes) bytes")
    }
    return name
  }
}

/// What chat templates are given of tools.
extension ToolOffer {
  static func tool(
    _ name: JSONValue?, _ description: JSONValue?, _ parameters: JSONValue?, strict: JSONValue?
  ) -> JSONValue {
    .object([
      ("type", .text("function")),
      (
        "function",
        .object([
          ("name", name), ("description", description), ("parameters", parameters),
          ("strict", strict),
        ])
      ),
    ])
  }

  static func call(id: JSONValue, _ name: JSONValue, arguments: JSONValue) -> JSONValue {
    .object([
      ("id", id), ("type", .text("function")),
      ("function", .object([("name", name), ("arguments", arguments)])),
    ])
  }
}

extension ToolOffer.Choice {
  /// As OpenAI's interfaces say it.
  init?(word: String) {
    switch word {
    case "auto": self = .auto
    case "none": self = .none
    case "required": self = .required
    default: return nil
    }
  }

  fileprivate var isForced: Bool {
    switch self {
    case .none, .auto: false
    case .required, .named: true
    }
  }

  /// Whether that tool may be called.
  fileprivate func includes(_ name: String) -> Bool {
    switch self {
    case .none: false
    case .auto, .required: true
    case .named(let wanted): name == wanted
    }
  }
}
