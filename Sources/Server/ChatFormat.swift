import ModelFormat
import Runtime
import Tokenization

/// Answers as `/v1/chat/completions` tells of them.
struct ChatFormat: AnswerFormat {
  static let objectName = "chat.completion"
  static let chunkName = "chat.completion.chunk"
  let head: AnswerHead
  /// Choices whose role was told.
  private var begun: Set<Int> = []

  init(_ head: AnswerHead) { self.head = head }

  func write(_ answer: CollectedAnswer, choice: Int, to json: inout JSONWriter) {
    json.number("index", choice)
    json.object("message") { json in
      json.text("role", "assistant")
      json.text("content", utf8: answer.text)
      json.null("refusal")
    }
    write(answer.tokens, to: &json)
    json.text("finish_reason", answer.finish?.reason.apiName)
  }

  mutating func writeChoices(
    of part: AnswerPart, _ write: (_ choice: (inout JSONWriter) -> Void) -> Void
  ) {
    switch part {
    case .text(let choice, let text, let report):
      begin(choice, write)
      write { json in
        json.number("index", choice)
        json.object("delta") { $0.text("content", utf8: text) }
        self.write(report.map { [$0] } ?? [], to: &json)
        json.null("finish_reason")
      }
    case .finished(let choice, let finish):
      begin(choice, write)
      write { json in
        json.number("index", choice)
        json.object("delta") { _ in }
        json.null("logprobs")
        json.text("finish_reason", finish.reason.apiName)
      }
    case .waiting, .queued, .reading, .failed: break
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
        json.text("content", "")
      }
      json.null("logprobs")
      json.null("finish_reason")
    }
  }

  private func write(_ tokens: [TokenReport], to json: inout JSONWriter) {
    guard !tokens.isEmpty else { return json.null("logprobs") }
    json.object("logprobs") { json in
      json.array("content", of: tokens) { list, report in
        list.object { json in
          write(report.token, report.logProbability, to: &json)
          json.array("top_logprobs", of: report.alternatives) { list, other in
            list.object { write(other.token, other.logProbability, to: &$0) }
          }
        }
      }
      json.null("refusal")
    }
  }

  private func write(_ token: Int32, _ logProbability: Double, to json: inout JSONWriter) {
    let bytes = head.tokenizer.spelling(token)
    json.text("token", utf8: Array(String(decoding: bytes, as: UTF8.self).utf8))
    json.number("logprob", logProbability)
    json.array("bytes", of: bytes) { $0.number(nil, $1) }
  }
}
