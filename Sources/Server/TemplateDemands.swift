import ModelFormat
import Tokenization

/// What a conversation has that not every chat template reads.
///
/// A template passes over what it does not know. Where its source does not name it either, the request is refused.
struct TemplateDemands {
  private enum Use {
    case variable, member, role
    /// The model is to think.
    case thinking
  }

  private var demands: [(name: String, use: Use, refusal: APIError)] = []

  private static let messageNames = FieldNames(
    "Message",
    taken: [
      "role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "reasoning",
      "thinking",
    ],
    // What OpenAI's clients send back of an answer.
    neutral: ["refusal": .empty, "annotations": .empty, "audio": .none, "function_call": .none])
  private static let partNames = FieldNames("TextPart", taken: ["type", "text"])
  private static let callNames = FieldNames("ToolCall", taken: ["id", "type", "function", "index"])
  private static let functionNames = FieldNames("CalledFunction", taken: ["name", "arguments"])
  static let names = [messageNames, partNames, callNames, functionNames]
  /// No template has more names than that; each is kept once, with its refusal.
  private static let mostDemands = 256
  private static let roles = ["system", "developer", "user", "assistant", "tool", "function"]

  /// Nothing.
  init() {}

  /// Those of the body of a chat, which was found to be a conversation.
  ///
  /// - Throws: ``APIError``, where no template could read it.
  init(_ fields: RequestFields) throws {
    var calls: Set<String> = []
    for (number, message) in (fields["messages"]?.array ?? []).enumerated() {
      try note(message, "messages[\(number)]")
      try Self.check(message, "messages[\(number)]", after: &calls)
    }
    for name in ["documents", "reasoning_effort"] {
      guard let value = fields[name], value.array?.isEmpty != true else { continue }
      try demand(name, .variable, Self.unread(name, name))
    }
    let arguments = "chat_template_kwargs"
    for member in fields[arguments]?.members ?? [] {
      let refusal = Self.unread(arguments, "\(arguments).\(member.key)")
      try demand(member.key, .variable, refusal)
    }
  }

  /// Those of arguments of the template, each with where it is in the body.
  init(arguments: [(name: String, place: String)]) {
    demands = arguments.map { name, place in
      (name, .variable, Self.unread(FieldNames.field(of: place), place))
    }
  }

  /// Gives the template an argument, which it must read unless the value asks for nothing.
  ///
  /// - Parameters:
  ///   - value: of what is at `place` in the body; nil = nothing is there.
  ///   - usual: the word that asks for nothing.
  mutating func set(
    _ argument: String, of conversation: inout Conversation, to value: JSONValue?,
    at place: String, words: [String], usual: String
  ) throws {
    guard let value else { return }
    guard let word = value.string, words.contains(word) else {
      let expected = words.map { "\"\($0)\"" }.joined(separator: " or ")
      throw APIError.bad(
        FieldNames.field(of: place), "'\(place)' must be \(expected), not \(value.found)")
    }
    conversation.setArgument(argument, word)
    guard word != usual else { return }
    demands.append((argument, .variable, Self.unread(FieldNames.field(of: place), place)))
  }

  /// Has the model think, which its template must have a switch or marks for.
  ///
  /// - Parameter budget: tokens that thinking is to have, for templates that tell the model.
  mutating func setThinking(of conversation: inout Conversation, budget: Int) {
    conversation.setThinking(true)
    conversation.setArgument("thinking_budget", "\(budget)")
    let refusal = APIError.bad(
      "thinking", "'thinking': by its chat template the model does not think",
      code: "unsupported_parameter")
    demands.append(("thinking", .thinking, refusal))
  }

  /// OpenAI's `verbosity`, of chats and responses.
  mutating func setVerbosity(
    of conversation: inout Conversation, to value: JSONValue?, at place: String
  ) throws {
    try set(
      "verbosity", of: &conversation, to: value, at: place, words: ["low", "medium", "high"],
      usual: "medium")
  }

  private mutating func note(_ message: JSONValue, _ place: String) throws {
    try note(message, place, Self.messageNames)
    if let role = message["role"]?.string, !Self.roles.contains(role) {
      let refusal = APIError.bad(
        "messages",
        "'\(place).role' is \"\(role.prefix(64))\", which the model's chat template does not name; there are: "
          + Self.roles.joined(separator: ", "))
      try demand(role, .role, refusal)
    }
    for (number, part) in (message["content"]?.array ?? []).enumerated() {
      try note(part, "\(place).content[\(number)]", Self.partNames)
    }
    guard let calls = message["tool_calls"] else { return }
    guard let list = calls.array else {
      throw APIError.bad("messages", "'\(place).tool_calls' must be a list, not \(calls.found)")
    }
    for (number, call) in list.enumerated() {
      let place = "\(place).tool_calls[\(number)]"
      try note(call, place, Self.callNames)
      guard let function = call["function"], function["name"]?.string != nil else {
        throw APIError.bad("messages", "'\(place)' has no 'function' with a 'name'")
      }
      try note(function, "\(place).function", Self.functionNames)
    }
  }

  /// Refuses the result of a call that no message before it has.
  ///
  /// - Parameter calls: ids of those calls.
  private static func check(
    _ message: JSONValue, _ place: String, after calls: inout Set<String>
  ) throws {
    for call in message["tool_calls"]?.array ?? [] {
      if let id = call["id"]?.string { calls.insert(id) }
    }
    guard message["role"]?.string == "tool", let id = message["tool_call_id"], !id.isNull else {
      return
    }
    guard let key = id.string else {
      throw APIError.bad("messages", "'\(place).tool_call_id' must be a text, not \(id.found)")
    }
    guard calls.contains(key) else { throw APIError.noSuchCall(key, "messages", at: place) }
  }

  private mutating func note(_ object: JSONValue, _ place: String, _ names: FieldNames) throws {
    guard let members = object.members else {
      throw APIError.bad("messages", "'\(place)' must be an object, not \(object.found)")
    }
    for member in members {
      guard let refusal = try names.refusal(of: member, at: place) else { continue }
      try demand(member.key, .member, refusal)
    }
  }

  private mutating func demand(_ name: String, _ use: Use, _ refusal: APIError) throws {
    guard !demands.contains(where: { $0.name == name && $0.use == use }) else { return }
    guard demands.count < Self.mostDemands else { throw refusal }
    demands.append((name, use, refusal))
  }

  private static func unread(_ field: String, _ place: String) -> APIError {
    .bad(
      field, "'\(place)' is nothing that the model's chat template reads: leave it out",
      code: "unsupported_parameter")
  }

  /// Refuses what a template does not name.
  func check(_ names: TemplateNames) throws {
    for demand in demands {
      let isNamed =
        switch demand.use {
        case .variable: names.read(demand.name)
        case .member: names.mention(demand.name)
        case .role: names.spell(demand.name)
        case .thinking:
          names.showThinking || ["enable_thinking", "thinking"].contains(where: names.read)
        }
      guard isNamed else { throw demand.refusal }
    }
  }
}

/// What the source of a chat template names.
struct TemplateNames: Sendable {
  private let template: ChatTemplate
  private let words: Set<Substring>
  /// Whether the template writes what stands around a model's thoughts.
  let showThinking: Bool
  /// A name that is longer is in no template.
  private static let mostNameBytes = 256

  init(_ template: ChatTemplate) {
    self.template = template
    showThinking = AnswerSyntax(of: template).reasoning != nil
    words = Set(template.source.split { !$0.isLetter && !$0.isNumber && $0 != "_" })
  }

  /// Whether there is a variable of that name.
  func read(_ name: String) -> Bool { template.reads(name) }

  /// Whether the name stands anywhere.
  func mention(_ name: String) -> Bool { words.contains(name[...]) }

  /// Whether the text stands in quotation marks.
  func spell(_ text: String) -> Bool {
    text.utf8.count <= Self.mostNameBytes
      && ["'", "\""].contains { template.source.contains($0 + text + $0) }
  }
}
