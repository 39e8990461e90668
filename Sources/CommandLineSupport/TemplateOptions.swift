public import ArgumentParser
import TensorBasics
public import Tokenization

/// What a chat template is given, and which one.
public struct TemplateOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "A system message for the chat template; - reads it from standard input.",
      valueName: "text"))
  public var system: String?

  @Option(
    help: ArgumentHelp(
      "A conversation in place of a prompt, from a file of JSON (- is standard input): a list of "
        + "messages as chat APIs take it, or an object with messages, tools and documents.",
      valueName: "file"))
  public var messages: String?

  @Option(
    help: ArgumentHelp(
      "Use this Jinja template instead of the one in the model's file.", valueName: "file"))
  public var chatTemplate: String?

  @Flag(help: "Tell the chat template that the model should not think before it answers.")
  public var noThinking = false

  @Option(
    name: .customLong("template-arg"),
    help: ArgumentHelp(
      "Give the chat template a named argument, a value of JSON or else a text, such as "
        + "reasoning_effort=high; may be repeated.", valueName: "name=value"))
  public var templateArguments: [String] = []

  @Option(
    help: ArgumentHelp(
      "The local time that the chat template is told, such as 2026-01-31 or 2026-01-31T18:30:00 "
        + "(default: now); fix it to get the same prompt every day.", valueName: "time"))
  public var now: String?

  public init() {}

  public func validate() throws {
    for argument in templateArguments
    where (argument.firstIndex(of: "=") ?? argument.startIndex) == argument.startIndex {
      throw ValidationError("--template-arg \(argument): it must be NAME=VALUE")
    }
    for name in Conversation.reservedNames
    where templateArguments.contains(where: { $0.hasPrefix(name + "=") }) {
      throw ValidationError("--template-arg: \(name) is part of the conversation, see --messages")
    }
    guard system != "-" || messages != "-" else {
      throw ValidationError("standard input is read once: by --system or by --messages")
    }
    var conversation = Conversation([])
    if let now, !conversation.setNow(now) {
      throw ValidationError("--now \(now): not a time such as 2026-01-31 or 2026-01-31T18:30:00")
    }
  }

  /// An option that was given, for errors.
  public var firstGiven: String? {
    if system != nil { return "--system" }
    if messages != nil { return "--messages" }
    if chatTemplate != nil { return "--chat-template" }
    if noThinking { return "--no-thinking" }
    if !templateArguments.isEmpty { return "--template-arg" }
    return now != nil ? "--now" : nil
  }

  /// The template to use: the file's, or `own`; nil where there is neither.
  public func chatTemplate(or own: String?) throws -> ChatTemplate? {
    guard let chatTemplate else { return try own.map { try ChatTemplate($0) } }
    return try Self.template(path: chatTemplate)
  }

  /// The template in a file.
  public static func template(path: String) throws -> ChatTemplate {
    let bytes = try Terminal.readAll(path: path)
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw CommandError(.badData, "\(path): not valid UTF-8 text")
    }
    guard !text.allSatisfy(\.isWhitespace) else {
      throw CommandError(
        .badData,
        "\(path): the template is empty: every prompt would be; --raw does without one")
    }
    return try ChatTemplate(text, name: path)
  }

  /// The conversation of `--messages`, or else of one prompt.
  public func conversation(orPrompt prompt: () throws -> [UInt8]) throws -> Conversation {
    guard let messages else {
      let message = ChatMessage(role: .user, content: try prompt())
      return try completed(Conversation([message]), name: "the conversation")
    }
    let path = messages == "-" ? nil : messages
    let conversation = try Conversation(
      json: Terminal.readAll(path: path), name: path ?? "standard input")
    return try completed(conversation, name: messages)
  }

  /// A conversation with what the options add to it.
  ///
  /// - Parameter name: where it comes from, for errors.
  public func completed(_ conversation: Conversation, name: String) throws -> Conversation {
    var conversation = conversation
    if let system {
      guard !conversation.hasSystemMessage else {
        throw CommandError(
          .badData,
          "\(name) has a system message of its own: leave --system out")
      }
      conversation.insertSystemMessage(
        system == "-"
          ? try Terminal.readPrompt(path: nil) : try Self.text(system, "the system message"))
    }
    if noThinking { conversation.setThinking(false) }
    for argument in templateArguments {
      let parts = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      conversation.setArgument(String(parts[0]), String(parts[1]))
    }
    if let now { conversation.setNow(now) }
    return conversation
  }

  /// Warns of what was asked for and `template` has no place for.
  public func warn(of conversation: Conversation, for template: ChatTemplate) {
    if conversation.hasTools, !template.takesTools {
      Terminal.warn("the chat template takes no tools: those of the conversation are left out")
    }
    if noThinking, !template.switchesThinking {
      Terminal.warn("--no-thinking has no effect: the chat template cannot switch thinking off")
    }
    var unread: [String] = []
    for argument in templateArguments {
      let name = String(argument.prefix { $0 != "=" })
      if !template.reads(name), !unread.contains(name) { unread.append(name) }
    }
    for name in unread {
      Terminal.warn("--template-arg \(name) has no effect: the chat template does not read it")
    }
  }

  /// The bytes of an argument, which must be text.
  public static func text(_ argument: String, _ name: String) throws -> [UInt8] {
    let bytes = argument.systemPath
    guard String(validating: bytes, as: UTF8.self) != nil else {
      throw CommandError(.badData, "\(name) is not valid UTF-8 text")
    }
    return bytes
  }
}
