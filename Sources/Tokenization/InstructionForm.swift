/// Chat forms that mark the user's turns only: `[INST] … [/INST]`.
struct InstructionForm: Sendable, Equatable {
  /// Where a system message goes.
  enum SystemPlace: Sendable, Equatable {
    /// In the first user turn between `<<SYS>>` marks.
    case markedFirstTurn
    /// In the first or the last user turn, before its text.
    case turn(isLast: Bool)
    /// Before the first turn, between these marks.
    case before(open: String, close: String)
    /// Nowhere.
    case none
  }

  var open: String
  var close: String
  var answerOpen: String
  var answerClose = ""
  var system: SystemPlace
  /// Whether all text is trimmed (Llama 2).
  var trimsTurns = false
  /// Whether the model's own turns are trimmed.
  var trimsAnswers = false
  /// Whether every user turn begins with BOS, not only the first.
  var repeatsBOS = false

  func render(
    system message: [UInt8]?, _ turns: ArraySlice<ChatMessage>, bos: [UInt8], eos: [UInt8]
  ) throws(TokenizerError) -> [ChatPiece] {
    if message != nil, system == .none {
      throw .unsupportedConversation("it has no place for a system message")
    }
    var writer = PromptWriter()
    if let message, case .before(let open, let close) = system {
      writer.markup(open)
      writer.content(message)
      writer.markup(close)
    }
    for (offset, turn) in turns.enumerated() {
      guard turn.role == .user else {
        writer.markup(answerOpen)
        writer.content(
          trimsTurns || trimsAnswers ? MessageText.trimmed(turn.content) : turn.content)
        writer.markup(answerClose)
        writer.markup(eos)
        continue
      }
      if repeatsBOS, offset > 0 { writer.markup(bos) }
      writer.markup(open)
      let isFirst = offset == 0
      let isLast = offset == turns.count - 1
      switch (system, message) {
      case (.markedFirstTurn, let message?) where isFirst:
        writer.markup("<<SYS>>\n")
        writer.content(message)
        writer.markup("\n<</SYS>>\n\n")
        writer.content(trimsTurns ? MessageText.trimmedRight(turn.content) : turn.content)
      case (.turn(let goesLast), let message?) where goesLast ? isLast : isFirst:
        writer.content(message + Array("\n\n".utf8) + turn.content)
      default:
        writer.content(trimsTurns ? MessageText.trimmed(turn.content) : turn.content)
      }
      writer.markup(close)
    }
    return writer.pieces
  }
}
