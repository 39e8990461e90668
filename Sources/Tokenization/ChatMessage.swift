/// One message of a conversation, of text alone; ``Conversation`` has the others.
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
