/// One message of a conversation.
public struct ChatMessage: Sendable, Equatable {
  public enum Role: String, Sendable {
    case system, user, assistant
  }

  public var role: Role
  /// The text as UTF-8; what looks like a control token in it stays text.
  public var content: [UInt8]

  public init(role: Role, content: [UInt8]) {
    self.role = role
    self.content = content
  }

  public init(role: Role, _ content: String) {
    self.init(role: role, content: Array(content.utf8))
  }
}

/// How a model wants a conversation written down.
///
/// Model files carry templates in Jinja, a programming language. They are not run: the forms in common
/// use are recognised by what only they contain, and written by hand.
public struct ChatTemplate: Sendable, Equatable {
  enum Form: Sendable, Equatable {
    case framed(FramedForm)
    case instruction(InstructionForm)
  }

  /// Name of the recognised form, for people.
  public let name: String
  /// Whether the template begins a conversation with BOS, whatever the file says of prompts.
  public let beginsWithBOS: Bool
  let form: Form

  /// Writes `messages` down, ready for the model's answer. A leading BOS is not written.
  ///
  /// - Parameters:
  ///   - messages: at most one system message, first; then user and assistant by turns, the last
  ///     one the user's.
  ///   - bos: spelling of the token before later turns, where the form repeats it.
  ///   - eos: spelling of the token after the model's own turns, where the form has no other.
  /// - Throws: `unsupportedConversation`.
  public func render(
    _ messages: [ChatMessage], bos: [UInt8] = [], eos: [UInt8] = []
  ) throws(TokenizerError) -> [ChatPiece] {
    let turns = messages.first?.role == .system ? messages.dropFirst() : messages[...]
    for (index, message) in turns.enumerated() {
      let expected: ChatMessage.Role = index.isMultiple(of: 2) ? .user : .assistant
      guard message.role == expected else {
        throw .unsupportedConversation(
          "message \(index + 1) is from \(message.role.rawValue) where \(expected.rawValue)'s turn is"
        )
      }
    }
    guard turns.count % 2 == 1 else {
      throw .unsupportedConversation("its last message must be the user's")
    }
    let system = messages.first?.role == .system ? messages[0].content : nil
    switch form {
    case .framed(let form): return try form.render(system: system, turns, eos: eos)
    case .instruction(let form): return try form.render(system: system, turns, bos: bos, eos: eos)
    }
  }
}

extension Tokenizer {
  /// The tokens of a conversation up to the model's answer. Nothing in a message is a control token.
  public func encodeChat(
    _ messages: [ChatMessage], template: ChatTemplate
  ) throws(TokenizerError) -> [Int32] {
    let pieces = try template.render(
      messages, bos: bosToken.map(spelling) ?? [], eos: eosToken.map(spelling) ?? [])
    return try encodePrompt(
      pieces, addsBOS: addsBOS || template.beginsWithBOS, addsEOS: false)
  }

  private func spelling(_ token: Int32) -> [UInt8] {
    var bytes: [UInt8] = []
    decode(token, into: &bytes, includesControl: true)
    return bytes
  }
}
