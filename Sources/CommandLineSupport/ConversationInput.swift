/// What somebody typed in a conversation: a message, or a command that begins with a slash.
public enum ConversationInput: Equatable, Sendable {
  case message(String)
  /// Begin a new conversation, with a system message where the text is not empty.
  case system(String)
  case save(path: String)
  case load(path: String)
  case regenerate
  case statistics
  case help
  case quit
  /// What cannot be done: what is wrong, and what would be right.
  case mistake(String)
  case nothing

  /// - Parameter text: a line, or several.
  public init(_ text: String) {
    guard text.contains(where: { !$0.isWhitespace }) else {
      self = .nothing
      return
    }
    guard text.first == "/" else {
      self = .message(text)
      return
    }
    let rest = text.dropFirst()
    if rest.first == "/" {
      self = .message(String(rest))
      return
    }
    let name = rest.prefix { !$0.isWhitespace }
    // A path is none, and what has no letters neither.
    guard !name.isEmpty, name.allSatisfy({ $0.isLetter }) else {
      self = .message(text)
      return
    }
    let argument = String(rest.dropFirst(name.count)).trimmingSpaces
    self = Self.command(String(name), argument)
  }

  private static func command(_ name: String, _ argument: String) -> ConversationInput {
    switch name {
    case "system": return .system(argument)
    case "save", "load":
      guard !argument.isEmpty else { return .mistake("/\(name) needs a file: /\(name) chat.json") }
      return name == "save" ? .save(path: argument) : .load(path: argument)
    default: break
    }
    let plain: [String: ConversationInput] = [
      "regenerate": .regenerate, "stats": .statistics, "help": .help, "quit": .quit, "exit": .quit,
    ]
    guard let command = plain[name] else {
      return .mistake(
        "there is no command /\(name); /help lists them, and a message that begins with a slash begins "
          + "with two")
    }
    return argument.isEmpty ? command : .mistake("/\(name) takes nothing after it")
  }

  /// The commands, for people.
  public static let listing = [
    "/system TEXT   begin a new conversation with this system message, or without one",
    "/save FILE     write the messages as JSON, which --messages and /load read",
    "/load FILE     go on with the conversation in a file",
    "/regenerate    another answer to the last message",
    "/stats         what the last answer took, and how full the context is",
    "/quit          end; so does Ctrl-D",
    "Ctrl-C ends an answer, or clears the line. A backslash at the end of a line goes on in",
    "the next one; a pasted block is one message. // begins a message with a slash.",
  ]
}

extension String {
  fileprivate var trimmingSpaces: String {
    let start = drop(while: \.isWhitespace)
    return String(start.reversed().drop(while: \.isWhitespace).reversed())
  }
}
