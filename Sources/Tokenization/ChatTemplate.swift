package import Jinja
import ModelFormat

/// How a model wants a conversation written down: a Jinja template, run as it is.
public struct ChatTemplate: Sendable {
  /// What the template was found to need when it was opened, by rendering small conversations.
  public struct Needs: Sendable, Equatable {
    /// Arguments of tool calls as text of JSON, not as objects.
    public var argumentsAsText = false
    /// Content as a list of parts, not as a string.
    public var contentAsParts = false
    /// A list of parts must be joined to a string.
    public var joinsParts = false
  }

  /// The template as it was given.
  public let source: String
  private let template: Template
  /// What errors begin with.
  private let prefix: String
  public private(set) var needs = Needs()
  /// Whether it writes tools that it is given.
  public private(set) var takesTools = false
  /// Whether it has words for the developer's role; where not, those messages are the system's.
  private let namesDeveloper: Bool
  /// Whether it takes a system message.
  public private(set) var takesSystemMessage = false
  /// Whether `enable_thinking` or `thinking` changes what it writes.
  public private(set) var switchesThinking = false

  /// Parses a template and finds out what it needs.
  ///
  /// - Parameter name: the file that it is from, for errors; nil = the model's.
  /// - Throws: ``TokenizerError/badChatTemplate(_:)``.
  public init(_ source: String, name: String? = nil) throws(TokenizerError) {
    self.source = source
    namesDeveloper = ["'developer'", "\"developer\""].contains(where: source.contains)
    prefix = name.map { "\($0): " } ?? ""
    do throws(JinjaError) { template = try Template(source) } catch {
      throw .badChatTemplate(prefix + error.description)
    }
    probe()
  }

  /// Writes a conversation down, marking what is data.
  ///
  /// - Parameters:
  ///   - bos: spelling of the token at the beginning of a text.
  ///   - eos: spelling of the token at the end of a text.
  /// - Throws: ``TokenizerError/unsupportedConversation(_:)``.
  package func render(
    _ conversation: Conversation, bos: [UInt8] = [], eos: [UInt8] = []
  ) throws(TokenizerError) -> MarkedText {
    do throws(JinjaError) {
      return try run(try normalised(conversation), bos: bos, eos: eos)
    } catch { throw .unsupportedConversation(prefix + error.description) }
  }

  private func run(
    _ conversation: Conversation, bos: [UInt8] = [], eos: [UInt8] = [], isProbe: Bool = false
  ) throws(JinjaError) -> MarkedText {
    var variables: [(name: String, value: Value)] = [
      ("messages", try .list(of: conversation.messages)),
      ("tools", conversation.tools ?? .null),
      ("documents", conversation.documents ?? .null),
      ("add_generation_prompt", .bool(conversation.addsGenerationPrompt)),
    ]
    // As in transformers, a token that the model does not have is no variable.
    if !bos.isEmpty { variables.append(("bos_token", .text(MarkedText(bos)))) }
    if !eos.isEmpty { variables.append(("eos_token", .text(MarkedText(eos)))) }
    let limits =
      isProbe
      ? .probe(templateByteCount: template.byteCount)
      : Limits(templateByteCount: template.byteCount, inputByteCount: conversation.byteCount)
    return try template.render(
      variables + conversation.arguments, limits,
      conversation.now.map { Clock(seconds: $0) } ?? .now
    ).text
  }

  /// Whether the template reads a variable of that name anywhere.
  public func reads(_ name: String) -> Bool { template.names.contains(name) }

  /// Whether some text that the template itself can write has these bytes in it.
  package func writes(_ bytes: [UInt8]) -> Bool { literals.contains { $0.contains(bytes) } }

  /// The texts that the template itself can write.
  var literals: [[UInt8]] { template.literals }

  // MARK: What it needs

  private mutating func probe() {
    let isThere = { (text: String?, needle: String) in text?.contains(needle) ?? false }
    let plain = probed(#"[{"role":"user","content":"needle"}]"#)
    let parts = probed(#"[{"role":"user","content":[{"type":"text","text":"needle"}]}]"#)
    let takesText = isThere(plain, "needle")
    // A list that is printed shows its keys.
    let isPrinted = isThere(parts, "'type'") || isThere(parts, "\"type\"")
    let takesParts = isThere(parts, "needle") && !isPrinted
    needs.contentAsParts = takesParts && !takesText
    needs.joinsParts = takesText && !takesParts
    takesSystemMessage = isThere(
      probed(
        #"[{"role":"system","content":"needle"},{"role":"user","content":"q"}]"#), "needle")
    let tool =
      #"[{"type":"function","function":{"name":"needle","description":"d","parameters":"#
      + #"{"type":"object","properties":{"a":{"type":"string","description":"e"}}}}}]"#
    takesTools = isThere(
      probed(#"{"messages":[{"role":"user","content":"q"}],"tools":"# + tool + "}"), "needle")
    let asObject = probedCall(#"{"needle":1}"#, tool)
    if !isThere(asObject, "needle\"") {
      needs.argumentsAsText = isThere(probedCall(#""{\"needle\":1}""#, tool), "needle")
    }
    let thinking = ["true", "false"].map { value in
      probed(
        #"{"messages":[{"role":"user","content":"q"}],"chat_template_kwargs":{"enable_thinking":"#
          + value + #","thinking":"# + value + "}}")
    }
    switchesThinking = thinking[0] != thinking[1]
  }

  private func probedCall(_ arguments: String, _ tool: String) -> String? {
    probed(
      #"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"","tool_calls":"#
        + #"[{"id":"abcdefghi","type":"function","function":{"name":"f","arguments":"# + arguments
        + #"}}]},{"role":"tool","tool_call_id":"abcdefghi","name":"f","content":"r"}],"tools":"#
        + tool.replacingName + "}")
  }

  /// What a conversation renders to without any change; nil where that fails.
  private func probed(_ json: String) -> String? {
    guard var conversation = try? Conversation(json: Array(json.utf8), name: "probe") else {
      return nil
    }
    conversation.setNow("0")
    return try? run(
      conversation, bos: Array("<s>".utf8), eos: Array("</s>".utf8), isProbe: true
    ).string
  }

  // MARK: Changing conversations to what it needs

  private func normalised(_ conversation: Conversation) throws(JinjaError) -> Conversation {
    var conversation = conversation
    try conversation.mapMessages { (message) throws(JinjaError) in
      var pairs: [(key: MarkedText, value: Value)] = []
      for (key, value) in zip(message.keys, message.values) {
        guard case .text(let name) = key else { continue }
        switch name.string {
        case "content": pairs.append((name, try content(value)))
        case "tool_calls": pairs.append((name, try calls(value)))
        case "role": pairs.append((name, role(value)))
        default: pairs.append((name, value))
        }
      }
      return try Mapping(pairs)
    }
    return conversation
  }

  private func role(_ value: Value) -> Value {
    guard !namesDeveloper, case .text(let role) = value,
      role.bytes.elementsEqual("developer".utf8)
    else { return value }
    return .text("system")
  }

  private func content(_ value: Value) throws(JinjaError) -> Value {
    if case .text = value, needs.contentAsParts {
      let part = try Mapping([(MarkedText("type"), .text("text")), (MarkedText("text"), value)])
      return try .list(of: [.dictionary(part)])
    }
    guard case .list(let parts) = value, needs.joinsParts else { return value }
    var text = MarkedText()
    for (number, part) in parts.elements.enumerated() {
      guard case .dictionary(let part) = part, case .text(let words)? = part["text"] else {
        throw JinjaError(.value, "the template takes text only, and the content has other parts")
      }
      if number > 0 { text.append("\n", isData: true) }
      text.append(words)
    }
    return .text(text)
  }

  private func calls(_ value: Value) throws(JinjaError) -> Value {
    guard case .list(let calls) = value else { return value }
    var changed: [Value] = []
    for call in calls.elements {
      guard case .dictionary(let mapping) = call else { return value }
      changed.append(
        .dictionary(
          try mapping.replacing("function") { (function) throws(JinjaError) in
            guard case .dictionary(let mapping) = function else { return function }
            return .dictionary(
              try mapping.replacing("arguments") { (value) throws(JinjaError) in
                try arguments(value)
              })
          }))
    }
    return try .list(of: changed)
  }

  private func arguments(_ value: Value) throws(JinjaError) -> Value {
    switch value {
    case .text(let text) where !needs.argumentsAsText:
      let json = text.bytes.withUnsafeBytes { bytes in
        try? JSONParser.parse(bytes, path: "arguments")
      }
      guard let json, json.members != nil else { return value }
      return try Value(data: json)
    case .dictionary where needs.argumentsAsText: return try value.json()
    default: return value
    }
  }
}

extension String {
  /// The tool of the probe under another name, so that only arguments have the word.
  fileprivate var replacingName: String {
    split(separator: "needle", omittingEmptySubsequences: false).joined(separator: "f")
  }
}

extension Tokenizer {
  /// The tokens of a conversation up to the model's answer. Nothing in a message is a control token.
  ///
  /// As in transformers, the text has the BOS that the template writes, and no other.
  public func encodeChat(
    _ conversation: Conversation, template: ChatTemplate
  ) throws(TokenizerError) -> [Int32] {
    try encode(try render(conversation, template: template), of: template)
  }

  /// The text whose tokens ``encodeChat(_:template:)`` gives.
  public func renderChat(
    _ conversation: Conversation, template: ChatTemplate
  ) throws(TokenizerError) -> [UInt8] { try render(conversation, template: template).bytes }

  /// A conversation as the template writes it for this vocabulary.
  package func render(
    _ conversation: Conversation, template: ChatTemplate
  ) throws(TokenizerError) -> MarkedText {
    try template.render(
      conversation, bos: bosToken.map(spelling) ?? [], eos: eosToken.map(spelling) ?? [])
  }

  /// The tokens of a rendered conversation.
  package func encode(
    _ text: MarkedText, of template: ChatTemplate
  ) throws(TokenizerError) -> [Int32] {
    var pieces: [ChatPiece] = []
    var start = 0
    for mark in text.data + [text.bytes.count..<text.bytes.count] {
      if start < mark.lowerBound {
        pieces.append(ChatPiece(Array(text.bytes[start..<mark.lowerBound]), isMarkup: true))
      }
      if !mark.isEmpty { pieces.append(ChatPiece(Array(text.bytes[mark]), isMarkup: false)) }
      start = mark.upperBound
    }
    return try encodePrompt(
      pieces, addsBOS: false, addsEOS: false, markupTexts: template.literals)
  }

  /// The bytes of a token, control tokens spelt out.
  package func spelling(_ token: Int32) -> [UInt8] {
    var bytes: [UInt8] = []
    decode(token, into: &bytes, includesControl: true)
    return bytes
  }
}
