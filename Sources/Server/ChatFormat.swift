import ModelFormat
import Runtime
import Tokenization

/// Answers as `/v1/chat/completions` tells of them.
struct ChatFormat: ChoiceFormat {
  static let objectName = "chat.completion"
  static let chunkName = "chat.completion.chunk"
  let head: AnswerHead
  /// Choices whose role was told.
  private var begun: Set<Int> = []

  init(_ head: AnswerHead) { self.head = head }

  func write(_ answer: CollectedAnswer, choice: Int, to json: inout JSONWriter) {
    let calls = answer.calls { _ in CollectedAnswer.callID(.random(in: 0...UInt64.max)) }
    json.number("index", choice)
    json.object("message") { json in
      answer.writeMessage(calls, to: &json)
      json.null("refusal")
    }
    if head.hasProbabilities {
      write(answer.tokens, to: &json)
    } else {
      json.null("logprobs")
    }
    json.text("finish_reason", answer.end?.apiName)
    answer.end?.writeTimeLimit(to: &json)
  }

  mutating func writeChoices(
    of part: AnswerPart, _ write: (_ choice: (inout JSONWriter) -> Void) -> Void
  ) {
    switch part {
    case .pieces(let choice, let pieces, let reports):
      begin(choice, write)
      // A token with a probability may bring nothing yet.
      for (number, piece) in (pieces.isEmpty ? [.text([])] : pieces).enumerated() {
        write { json in
          json.number("index", choice)
          json.object("delta") { Self.write(piece, to: &$0) }
          if number == 0, !reports.isEmpty {
            self.write(reports, to: &json)
          } else {
            json.null("logprobs")
          }
          json.null("finish_reason")
        }
      }
    case .finished(let choice, let end):
      begin(choice, write)
      write { json in
        json.number("index", choice)
        json.object("delta") { _ in }
        json.null("logprobs")
        json.text("finish_reason", end.apiName)
        end.writeTimeLimit(to: &json)
      }
    case .waiting, .queued, .reading, .failed: break
    }
  }

  private static func write(_ piece: AnswerPiece, to delta: inout JSONWriter) {
    switch piece {
    case .text(let text): delta.text("content", utf8: text)
    case .reasoning(let text): delta.text("reasoning_content", utf8: text)
    case .call(let index, let name):
      delta.array("tool_calls") { list in
        list.object { json in
          json.number("index", index)
          CollectedAnswer.Call(
            id: CollectedAnswer.callID(.random(in: 0...UInt64.max)), name: name
          ).write(to: &json)
        }
      }
    case .arguments(let index, let text):
      delta.array("tool_calls") { list in
        list.object { json in
          json.number("index", index)
          json.object("function") { $0.text("arguments", utf8: text) }
        }
      }
    }
  }

  /// Tells whose words follow, once for each choice.
  private mutating func begin(
    _ choice: Int, _ write: (_ choice: (inout JSONWriter) -> Void) -> Void
  ) {
    guard begun.insert(choice).inserted else { return }
    write { json in
      json.number("index", choice)
      json.object("delta") { json in
        json.text("role", "assistant")
        json.null("content")
      }
      json.null("logprobs")
      json.null("finish_reason")
    }
  }

  private func write(_ tokens: [TokenReport], to json: inout JSONWriter) {
    json.object("logprobs") { json in
      json.array("content", of: tokens) { list, report in
        list.object { report.write(head.tokenizer, to: &$0) }
      }
      json.null("refusal")
    }
  }
}
