import ModelFormat
import Runtime
import Tokenization

/// Answers as `/v1/completions` tells of them.
struct CompletionFormat: ChoiceFormat {
  static let objectName = "text_completion"
  static let chunkName = "text_completion"
  let head: AnswerHead
  /// Characters of each choice's tokens so far.
  private var offsets: [Int: Int] = [:]

  init(_ head: AnswerHead) { self.head = head }

  func write(_ answer: CollectedAnswer, choice: Int, to json: inout JSONWriter) {
    json.number("index", choice)
    json.text("text", utf8: answer.text)
    if head.hasProbabilities {
      write(answer.tokens, from: 0, to: &json)
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
      let text = pieces.flatMap(\.text)
      let offset = offsets[choice, default: 0]
      write { json in
        json.number("index", choice)
        json.text("text", utf8: text)
        if reports.isEmpty {
          json.null("logprobs")
        } else {
          self.write(reports, from: offset, to: &json)
        }
        json.null("finish_reason")
      }
      offsets[choice] = reports.reduce(offset) { $0 + spelling($1.token).unicodeScalars.count }
    case .finished(let choice, let end):
      write { json in
        json.number("index", choice)
        json.text("text", "")
        json.null("logprobs")
        json.text("finish_reason", end.apiName)
        end.writeTimeLimit(to: &json)
      }
    case .waiting, .queued, .reading, .failed: break
    }
  }

  private func write(_ tokens: [TokenReport], from start: Int, to json: inout JSONWriter) {
    let texts = tokens.map { spelling($0.token) }
    var offset = start
    let offsets = texts.map { text in
      defer { offset += text.unicodeScalars.count }
      return offset
    }
    json.object("logprobs") { json in
      json.array("tokens", of: texts) { $0.text(nil, utf8: Array($1.utf8)) }
      json.array("token_logprobs", of: tokens) { $0.number(nil, $1.logProbability) }
      json.array("top_logprobs", of: tokens) { list, report in
        list.object { json in
          for other in report.alternatives {
            json.number(spelling(other.token), other.logProbability)
          }
        }
      }
      json.array("text_offset", of: offsets) { $0.number(nil, $1) }
    }
  }

  /// A token as text; one that is no whole characters by its bytes, as OpenAI's interface spells those.
  private func spelling(_ token: Int32) -> String {
    let bytes = head.tokenizer.spelling(token)
    if let text = String(validating: bytes, as: UTF8.self) { return text }
    return "bytes:"
      + bytes.map { "\\x" + ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }
}
