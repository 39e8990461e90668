import Jinja
package import ModelFormat

/// What a chat template is given: messages, tools, documents and named arguments.
public struct Conversation: @unchecked Sendable {
  // Safety: it holds values made of JSON or text alone, which nothing can change.
  private(set) var messages: [Value]
  private(set) var tools: Value?
  private(set) var documents: Value?
  private(set) var arguments: [(name: String, value: Value)] = []
  /// Whether the template is asked to begin the model's answer.
  public var addsGenerationPrompt = true
  /// Seconds since 1970 that `strftime_now` tells as local time; nil = the present time.
  public private(set) var now: Int?

  /// Roles that templates write and compare; any other is what somebody typed.
  private static let roles: Set<String> = [
    "system", "user", "assistant", "tool", "developer", "function", "model", "ipython",
  ]
  /// Names under which reasoning is passed, the standard one first.
  private static let reasoning = ["reasoning_content", "thinking", "reasoning"]

  /// Members of the object that ``init(json:name:)`` reads.
  public static let knownMembers = [
    "messages", "tools", "documents", "add_generation_prompt", "reasoning_effort",
    "chat_template_kwargs",
  ]

  /// Names that arguments cannot have, because they are those of the conversation's own parts.
  public static let reservedNames = ["messages", "tools", "documents", "add_generation_prompt"]

  public init(_ messages: [ChatMessage]) {
    self.messages = messages.compactMap { message in
      let pairs = [
        (key: MarkedText("role"), value: Value.text(message.role.rawValue)),
        (key: MarkedText("content"), value: .text(MarkedText(message.content, isData: true))),
      ]
      // Two texts are never nested too deep.
      return try? .dictionary(Mapping(pairs))
    }
  }

  /// Reads a list of messages as chat APIs take it, or an object with more than those.
  ///
  /// The object has `messages` and, where there are some, `tools`, `documents`,
  /// `add_generation_prompt`, `reasoning_effort` and `chat_template_kwargs`.
  ///
  /// - Parameter name: what the document is called in errors.
  /// - Throws: ``TokenizerError/badMessages(_:)``.
  public init(json bytes: [UInt8], name: String) throws(TokenizerError) {
    let json: JSONValue
    do throws(FormatError) {
      json = try bytes.withUnsafeBytes { bytes in
        Result { () throws(FormatError) in try JSONParser.parse(bytes, path: name) }
      }.get()
    } catch { throw .badMessages(error.description) }
    try self.init(json, name: name)
  }

  /// As ``init(json:name:)``, of JSON that was parsed.
  package init(_ json: JSONValue, name: String) throws(TokenizerError) {
    do throws(FormatError) { try self.init(json, name) } catch {
      throw .badMessages(error.description)
    }
  }

  private init(_ json: JSONValue, _ name: String) throws(FormatError) {
    self.messages = []
    func fail(_ value: JSONValue, _ message: String) -> FormatError {
      FormatError(.malformed, at: value.offset, path: name, message)
    }
    func value(_ json: JSONValue) throws(FormatError) -> Value {
      do throws(JinjaError) { return try Value(data: json) } catch {
        throw fail(json, error.description)
      }
    }
    for member in json.members ?? [] where !Self.knownMembers.contains(member.key) {
      throw fail(
        member.value,
        "'\(member.key)' is no part of a conversation; there are: \(Self.knownMembers.joined(separator: ", "))"
      )
    }
    for name: StaticString in ["tools", "documents"] {
      if let value = json[name], value.array == nil { throw fail(value, "'\(name)' is not a list") }
    }
    guard let list = json.array ?? json["messages"]?.array else {
      throw fail(json, "there is no list of messages")
    }
    for (index, message) in list.enumerated() {
      guard let members = message.members, let role = message["role"]?.string else {
        throw fail(message, "messages[\(index)] is not an object with a 'role'")
      }
      guard message["content"] != nil || !["system", "user"].contains(role) else {
        throw fail(message, "messages[\(index)], of role '\(role)', has no 'content'")
      }
      if let content = message["content"], content.string == nil, content.array == nil {
        var what = "neither text nor a list of parts"
        if case .unusable(let found) = content.content { what = "not text: it holds \(found)" }
        throw fail(content, "the content of messages[\(index)] is \(what)")
      }
      messages.append(try Self.message(members, value))
    }
    if messages.isEmpty { throw fail(json["messages"] ?? json, "the list of messages is empty") }
    tools = try json["tools"].map(value)
    documents = try json["documents"].map(value)
    if let value = json["add_generation_prompt"] {
      guard let adds = value.bool else {
        throw fail(value, "'add_generation_prompt' is neither true nor false")
      }
      addsGenerationPrompt = adds
    }
    if let effort = json["reasoning_effort"] {
      arguments.append(("reasoning_effort", try value(effort)))
    }
    let named = json["chat_template_kwargs"]
    if let named, named.members == nil {
      throw fail(named, "'chat_template_kwargs' is not an object")
    }
    for member in named?.members ?? [] {
      guard !Self.reservedNames.contains(member.key) else {
        throw fail(
          member.value, "'\(member.key)' is a part of the conversation, and no argument's name")
      }
      set(member.key, to: try value(member.value))
    }
  }

  /// A message without what is null, its reasoning under the names that templates read.
  private static func message(
    _ members: [JSONMember], _ value: (JSONValue) throws(FormatError) -> Value
  ) throws(FormatError) -> Value {
    var pairs: [(key: MarkedText, value: Value)] = []
    for member in members {
      if case .null = member.value.content { continue }
      if member.key == "role", let role = member.value.string, roles.contains(role) {
        pairs.append((MarkedText("role"), .text(role)))
      } else {
        pairs.append((MarkedText(member.key, isData: true), try value(member.value)))
      }
    }
    func find(_ name: String) -> Value? {
      pairs.last { $0.key.bytes.elementsEqual(name.utf8) }?.value
    }
    if let thought = reasoning.lazy.compactMap(find).first {
      if find("thinking") == nil { pairs.insert((MarkedText("thinking"), thought), at: 0) }
      pairs.append((MarkedText("reasoning_content"), thought))
    }
    do throws(JinjaError) { return .dictionary(try Mapping(pairs)) } catch {
      throw FormatError(.malformed, error.description)
    }
  }

  /// Gives the template a named argument, in place of one of the same name.
  mutating func set(_ name: String, to value: Value) {
    arguments.removeAll { $0.name == name }
    arguments.append((name, value))
  }

  /// Gives the template a named argument: a value of JSON, or else the text itself.
  public mutating func setArgument(_ name: String, _ text: String) {
    let json = Array(text.utf8).withUnsafeBytes { bytes in
      try? JSONParser.parse(bytes, path: name)
    }
    let value = json.flatMap { try? Value(data: $0) }
    set(name, to: value ?? .text(text, isData: true))
  }

  /// Fixes the time that templates are told: a local time, `2026-01-31` or `2026-01-31T18:30:00`, or
  /// seconds since 1970.
  ///
  /// - Returns: whether the text is one.
  @discardableResult
  public mutating func setNow(_ text: String) -> Bool {
    now = Clock(text)?.seconds
    return now != nil
  }

  /// Whether the model is offered tools.
  public var hasTools: Bool { tools != nil }

  /// Turns thinking off or on, under the names that templates ask for.
  public mutating func setThinking(_ isEnabled: Bool) {
    set("enable_thinking", to: .bool(isEnabled))
    set("thinking", to: .bool(isEnabled))
  }

  /// Whether a message has the role of the system, or of the developer, which stands for it.
  public var hasSystemMessage: Bool {
    messages.contains { message in
      guard case .dictionary(let mapping) = message,
        case .text(let role)? = mapping["role"]
      else { return false }
      return ["system", "developer"].contains { role.bytes.elementsEqual($0.utf8) }
    }
  }

  /// Adds a system message before the others.
  public mutating func insertSystemMessage(_ content: [UInt8]) {
    messages = Conversation([ChatMessage(role: .system, content: content)]).messages + messages
  }

  public var messageCount: Int { messages.count }

  /// The role of the last message; nil where there is none.
  public var lastRole: String? {
    guard case .dictionary(let mapping)? = messages.last, case .text(let role)? = mapping["role"]
    else { return nil }
    return role.string
  }

  /// Adds a message after the others.
  public mutating func append(_ message: ChatMessage) {
    messages += Conversation([message]).messages
  }

  /// Takes the last message away.
  ///
  /// - Precondition: there is one.
  public mutating func removeLast() { messages.removeLast() }

  /// It as JSON that ``init(json:name:)`` reads: a list of messages, or an object where there is more than those.
  ///
  /// - Throws: ``TokenizerError/badMessages(_:)`` where there is more than any prompt has.
  public func json() throws(TokenizerError) -> [UInt8] {
    do throws(JinjaError) {
      var lines: [MarkedText] = []
      for message in messages {
        if case .text(let line) = try message.json() { lines.append(line) }
      }
      let list = lines.map { "\n  " + $0.string }.joined(separator: ",")
      var members: [String] = []
      for (name, value) in [("tools", tools), ("documents", documents)] {
        guard let value, case .text(let text) = try value.json() else { continue }
        members.append(#""\#(name)": "# + text.string)
      }
      let pairs = arguments.map { (key: MarkedText($0.name), value: $0.value) }
      if !pairs.isEmpty, case .text(let text) = try Value.dictionary(Mapping(pairs)).json() {
        members.append(#""chat_template_kwargs": "# + text.string)
      }
      guard !members.isEmpty else { return Array("[\(list)\n]\n".utf8) }
      let all = ["\"messages\": [\(list)\n]"] + members
      return Array("{\(all.joined(separator: ",\n"))}\n".utf8)
    } catch { throw .badMessages(error.description) }
  }

  /// It up to a message, after which nothing is asked.
  func prefix(through index: Int) -> Conversation {
    var beginning = self
    beginning.messages.removeSubrange((index + 1)...)
    beginning.addsGenerationPrompt = false
    return beginning
  }

  /// It with some text in place of what a message says: its content, or the arguments of its last call.
  ///
  /// - Precondition: there is such a message.
  func replacing(
    _ index: Int, with text: String
  ) throws(JinjaError) -> (conversation: Conversation, isCall: Bool) {
    var (changed, isCall) = (self, false)
    guard case .dictionary(let message) = messages[index] else { return (changed, isCall) }
    let text = Value.text(text, isData: true)
    var pairs = [(key: MarkedText("role"), value: message["role"] ?? .text("assistant"))]
    if case .list(let calls)? = message["tool_calls"],
      case .dictionary(let last)? = calls.elements.last
    {
      isCall = true
      let call = try last.replacing("function") { (function) throws(JinjaError) in
        guard case .dictionary(let function) = function else { return function }
        return .dictionary(
          try function.replacing("arguments") { (_) throws(JinjaError) in
            .dictionary(try Mapping([(MarkedText("text", isData: true), text)]))
          })
      }
      let list = try Value.list(of: calls.elements.dropLast() + [.dictionary(call)])
      pairs += [(MarkedText("content"), .text("")), (MarkedText("tool_calls"), list)]
    } else {
      pairs.append((MarkedText("content"), text))
    }
    changed.messages[index] = .dictionary(try Mapping(pairs))
    return (changed, isCall)
  }

  /// Bytes of text in it, for the interpreter's limits.
  var byteCount: Int {
    (messages + [tools, documents].compactMap { $0 } + arguments.map(\.value)).reduce(0) {
      $0 + $1.textByteCount
    }
  }

  /// Each message changed.
  mutating func mapMessages(
    _ change: (Mapping) throws(JinjaError) -> Mapping
  ) throws(JinjaError) {
    for (index, message) in messages.enumerated() {
      if case .dictionary(let mapping) = message {
        messages[index] = .dictionary(try change(mapping))
      }
    }
  }
}

extension Mapping {
  /// It with another value under a name that it has.
  func replacing(
    _ name: String, _ change: (Value) throws(JinjaError) -> Value
  ) throws(JinjaError) -> Mapping {
    var pairs: [(key: MarkedText, value: Value)] = []
    for (key, value) in zip(keys, values) {
      guard case .text(let text) = key else { continue }
      pairs.append((text, text.bytes.elementsEqual(name.utf8) ? try change(value) : value))
    }
    return try Mapping(pairs)
  }
}

extension Value {
  /// Bytes of its texts and a few for everything else.
  fileprivate var textByteCount: Int {
    switch self {
    case .text(let text): 8 + text.bytes.count
    case .list(let list): list.elements.reduce(8) { $0 + $1.textByteCount }
    case .dictionary(let mapping):
      (mapping.keys + mapping.values).reduce(8) { $0 + $1.textByteCount }
    default: 8
    }
  }
}
