import CommandLineSupport
import KVCache
import ModelFormat
import Runtime
import TensorBasics
import WeightLoader

/// A conversation on a terminal.
extension Run {
  /// Whether there is nothing to answer, and somebody who could say something.
  var isConversation: Bool {
    !prompt.isGiven && !prompt.raw && !output.json && Terminal.inputIsInteractive
      && Terminal.outputIsInteractive
  }

  /// Reads messages from the terminal and answers them, until there are no more.
  func converse() throws {
    guard attention.attention == "host" else {
      throw CommandError(
        .usage,
        "--attention \(attention.attention) answers one prompt: give one as an argument, --prompt-file or a "
          + "pipe; a conversation needs keys and values that can be cut")
    }
    let model = try openModel()
    Terminal.warn(notesOf: model.source)
    let dialogue = try Dialogue(self, model)
    let editor = try LineEditor(prompt: "> ", continuation: ". ")
    Terminal.remark(
      "context: \(dialogue.contextLength) tokens; /help lists commands, Ctrl-D ends")
    Interruption.endProcessAtOnce(false)
    var hasBeenWarned = false
    while true {
      let input = editor.readMessage()
      Interruption.flag.lower()
      if Interruption.endsProgram { break }
      switch input {
      case .end: return dialogue.finish()
      case .interrupted:
        if hasBeenWarned { return dialogue.finish() }
        hasBeenWarned = true
        Terminal.remark("Ctrl-C again, Ctrl-D or /quit ends the conversation")
        continue
      case .text(let text):
        hasBeenWarned = false
        let input = ConversationInput(text)
        if case .quit = input { return dialogue.finish() }
        dialogue.obey(input)
      }
      if Interruption.endsProgram { break }
      Interruption.flag.lower()
    }
    dialogue.finish()
    Terminal.exit(.interrupted)
  }

  /// Tokens of a conversation's context: those of `--context`; or as many as the model was trained for, halved until keys
  /// and values leave the weights most of the memory.
  func conversationLength(_ model: LanguageModel) throws -> Int {
    if let context = resources.context { return context }
    var length = model.configuration.contextLength
    while length / 2 >= Self.leastConversationLength {
      let request = conversationRequest(model, contextLength: length)
      if let plan = try? MemoryPlan.make(
        request, source: model.source, configuration: model.configuration),
        !plan.keyValues.hasTier,
        plan.residency.streamedByteCount == 0
          || plan.keyValueByteCount <= request.budgetByteCount / Self.keyValueShare
      {
        break
      }
      length /= 2
    }
    return length
  }

  private static let leastConversationLength = 2048
  /// Where weights are streamed, keys and values take at most this share of the budget.
  private static let keyValueShare = 4

  func conversationRequest(_ model: LanguageModel, contextLength: Int) -> MemoryPlan.Request {
    memoryRequest(
      model, contextLength: contextLength, promptLength: contextLength,
      callerByteCount: Dialogue.byteCount(contextLength: contextLength)
        + Sampler.byteCount(vocabularyCount: model.configuration.vocabularyCount))
  }
}
