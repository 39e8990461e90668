package import Tokenization

/// How a model's answers are written: where they think, and how they call tools.
///
/// Found from the texts that the chat template can write, since it shows the model its own earlier answers.
package struct AnswerSyntax: Sendable, Equatable {
  /// What stands around something.
  package struct Marks: Sendable, Equatable {
    package let begin: [UInt8]
    package let end: [UInt8]

    package init(_ begin: String, _ end: String) {
      (self.begin, self.end) = (Array(begin.utf8), Array(end.utf8))
    }
  }

  /// How tools are called: an object of JSON with `name` and `arguments` or `parameters`, or a list of such.
  package enum CallForm: Sendable, Equatable {
    /// Between marks, anywhere; Hermes and Qwen.
    case marked(Marks)
    /// After a mark, anywhere; before an object its name may stand instead of in it. Mistral.
    case announced([UInt8])
    /// The whole answer, perhaps after a mark; several with `;` between them. Llama 3, and templates that show no other form.
    case plain([UInt8])
  }

  /// nil: reasoning is text as any other.
  package var reasoning: Marks?
  /// Whether the prompt ends in the model's reasoning.
  package var beginsInReasoning = false
  /// nil: no tool can be called.
  package var calls: CallForm?
  /// Those that the model was offered.
  package var toolNames: Set<String> = []
  /// Whether there may be more than one call; what follows the first is left out where not.
  package var allowsManyCalls = true

  package init() {}

  /// What a template's model writes, as long as nothing is asked for.
  package init(of template: ChatTemplate) {
    func writes(_ text: String) -> Bool { template.writes(Array(text.utf8)) }
    for (begin, end) in Self.reasoningMarks where reasoning == nil && writes(begin) {
      reasoning = Marks(begin, end)
    }
    guard template.takesTools else { return }
    if writes("<tool_call>") {
      calls = .marked(Marks("<tool_call>", "</tool_call>"))
    } else if writes("[TOOL_CALLS]") {
      calls = .announced(Array("[TOOL_CALLS]".utf8))
    } else {
      calls = Self.plainCalls
    }
  }

  /// Of templates that show no form.
  static let plainCalls = CallForm.plain(Array("<|python_tag|>".utf8))

  private static let reasoningMarks = [
    ("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<|START_THINKING|>", "<|END_THINKING|>"),
  ]

  /// Whether answers are text alone.
  var isPlain: Bool { reasoning == nil && calls == nil }

  /// Notes how a prompt ends.
  ///
  /// - Parameter tail: its last tokens, control tokens spelt out.
  mutating func note(promptTail tail: [UInt8]) {
    guard let reasoning else { return }
    let end = tail.lastIndex { !AnswerParser.isSpace($0) }.map { $0 + 1 } ?? 0
    beginsInReasoning = tail[..<end].suffix(reasoning.begin.count).elementsEqual(reasoning.begin)
  }
}
