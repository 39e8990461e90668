/// Chat forms that put every message between marks that name its role.
struct FramedForm: Sendable, Equatable {
  /// Where a system message goes.
  enum SystemPlace: Sendable, Equatable {
    /// A frame of its own; this text where the conversation has none.
    case frame(fallback: String?)
    /// Always a frame of its own, with this text before the message.
    case preamble(String)
    /// Before the first user message.
    case firstUserMessage
    /// Nowhere.
    case none
  }

  /// What follows the end-of-message mark that the file names as EOS.
  enum Close: Sendable, Equatable {
    case text(String)
    case eos(then: String)
  }

  var beforeRole: String
  var afterRole: String
  var close: Close
  var assistant = "assistant"
  var system = SystemPlace.frame(fallback: nil)
  var trims = false
  var dropsThoughts = false
  /// What stands after the answer's opening marks.
  var answerPrefix = ""

  func render(
    system message: [UInt8]?, _ turns: ArraySlice<ChatMessage>, eos: [UInt8]
  ) throws(TokenizerError) -> [ChatPiece] {
    var writer = PromptWriter()
    let message = message.map {
      trims && system != .firstUserMessage ? MessageText.trimmed($0) : $0
    }
    var userPrefix: [UInt8] = []
    switch system {
    case .frame(let fallback):
      if let message {
        write("system", message, eos, to: &writer)
      } else if let fallback {
        // The template's own words: marks in them are meant.
        writer.markup(beforeRole + "system" + afterRole + fallback)
        writeClose(eos, to: &writer)
      }
    case .preamble(let text):
      writer.markup(beforeRole + "system" + afterRole + text)
      writer.content(message ?? [])
      writeClose(eos, to: &writer)
    case .firstUserMessage:
      if let message { userPrefix = message + Array("\n\n".utf8) }
    case .none:
      if message != nil { throw .unsupportedConversation("it has no place for a system message") }
    }
    for turn in turns {
      var text = turn.content
      if turn.role == .assistant, dropsThoughts { text = MessageText.withoutThoughts(text) }
      if trims { text = MessageText.trimmed(text) }
      let role = turn.role == .assistant ? assistant : turn.role.rawValue
      write(role, userPrefix + text, eos, to: &writer)
      userPrefix = []
    }
    writer.markup(beforeRole + assistant + afterRole + answerPrefix)
    return writer.pieces
  }

  private func write(_ role: String, _ text: [UInt8], _ eos: [UInt8], to writer: inout PromptWriter)
  {
    writer.markup(beforeRole + role + afterRole)
    writer.content(text)
    writeClose(eos, to: &writer)
  }

  private func writeClose(_ eos: [UInt8], to writer: inout PromptWriter) {
    switch close {
    case .text(let text): writer.markup(text)
    case .eos(let rest):
      writer.markup(eos)
      writer.markup(rest)
    }
  }
}
