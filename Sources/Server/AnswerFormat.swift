import ModelFormat
import Runtime
import TensorBasics
import Tokenization

/// How an interface tells of answers: whole ones, and the chunks of a stream.
protocol AnswerFormat: Sendable {
  var head: AnswerHead { get }
  /// What the object is called, as a whole and in chunks.
  static var objectName: String { get }
  static var chunkName: String { get }

  /// Writes a whole choice.
  func write(_ answer: CollectedAnswer, choice: Int, to json: inout JSONWriter)

  /// Writes the choices of the chunks that a part makes, each as one.
  mutating func writeChoices(
    of part: AnswerPart, _ write: (_ choice: (inout JSONWriter) -> Void) -> Void)
}

/// What all chunks and answers of a request have in common.
struct AnswerHead: Sendable {
  let id: String
  let created: Int
  let model: String
  let seed: UInt64
  /// Whether chunks have a member for what the answer took.
  let includesUsage: Bool
  let tokenizer: Tokenizer

  /// - Parameter prefix: what the interface's ids begin with.
  init(_ prefix: String, _ model: ServedModel, _ options: AnswerOptions) {
    id = prefix + String(UInt64.random(in: 0...UInt64.max), radix: 16)
    created = secondsSince1970()
    self.model = model.name
    seed = options.sampling.seed
    includesUsage = options.includesUsage
    tokenizer = model.tokenizer
  }

  func write(_ object: String, to json: inout JSONWriter) {
    json.text("id", id)
    json.text("object", object)
    json.number("created", created)
    json.text("model", model)
    json.text("system_fingerprint", "flashinfer-\(FlashInferVersion.current)")
    // With it the same request gives the same answer.
    json.number("seed", seed)
  }
}

/// An answer that is complete.
struct CollectedAnswer: Sendable {
  var text: [UInt8] = []
  var tokens: [TokenReport] = []
  var finish: TokenSequence.Finish?
}

extension AnswerFormat {
  /// The JSON of all answers.
  func whole(_ answers: [CollectedAnswer], _ usage: AnswerUsage) -> [UInt8] {
    JSONWriter.document { json in
      head.write(Self.objectName, to: &json)
      json.array("choices", of: answers.enumerated()) { list, answer in
        list.object { write(answer.element, choice: answer.offset, to: &$0) }
      }
      usage.write(to: &json)
    }
  }

  /// The JSON of each chunk that a part makes.
  mutating func chunks(for part: AnswerPart) -> [[UInt8]] {
    let head = head
    var chunks: [[UInt8]] = []
    writeChoices(of: part) { choice in
      chunks.append(
        JSONWriter.document { json in
          head.write(Self.chunkName, to: &json)
          json.array("choices") { $0.object { choice(&$0) } }
          if head.includesUsage { json.null("usage") }
        })
    }
    return chunks
  }

  /// The JSON of the chunk that says what the answers took.
  func usageChunk(_ usage: AnswerUsage) -> [UInt8] {
    JSONWriter.document { json in
      head.write(Self.chunkName, to: &json)
      json.array("choices") { _ in }
      usage.write(to: &json)
    }
  }
}

extension FinishReason {
  /// As OpenAI's interface calls it.
  var apiName: String {
    switch self {
    case .stop: "stop"
    case .length, .context: "length"
    case .cancelled: "cancelled"
    }
  }
}
