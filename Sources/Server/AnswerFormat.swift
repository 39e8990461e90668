import ModelFormat
import Runtime
import TensorBasics
import Tokenization

/// How an interface tells of answers: whole ones, and as a stream of events.
protocol AnswerFormat: Sendable {
  /// The JSON of all answers.
  mutating func whole(_ answers: [CollectedAnswer], _ usage: AnswerUsage) -> [UInt8]

  /// The events that a part makes.
  mutating func events(for part: AnswerPart) -> [ServerSentEvents.Event]

  /// What a stream ends with when all answers are there.
  mutating func lastEvents(_ usage: AnswerUsage) -> [ServerSentEvents.Event]

  /// The event that tells why an answer is not there.
  mutating func event(of error: APIError) -> ServerSentEvents.Event
}

/// OpenAI's interfaces of choices: objects, chunks of them, and `[DONE]`.
protocol ChoiceFormat: AnswerFormat {
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
  /// Whether log-probabilities are told.
  let hasProbabilities: Bool
  let tokenizer: Tokenizer

  /// - Parameter prefix: what the interface's ids begin with.
  init(_ prefix: String, _ model: ServedModel, _ options: AnswerOptions) {
    id = Self.newID(prefix)
    created = secondsSince1970()
    self.model = model.name
    seed = options.sampling.seed
    includesUsage = options.includesUsage
    hasProbabilities = options.alternativeCount != nil
    tokenizer = model.tokenizer
  }

  /// An id that nobody can guess: 32 digits.
  static func newID(_ prefix: String) -> String {
    let digits = String(UInt128.random(in: 0...UInt128.max), radix: 16)
    return prefix + String(repeating: "0", count: 32 - digits.utf8.count) + digits
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

extension ChoiceFormat {
  func whole(_ answers: [CollectedAnswer], _ usage: AnswerUsage) -> [UInt8] {
    JSONWriter.document { json in
      head.write(Self.objectName, to: &json)
      json.array("choices", of: answers.enumerated()) { list, answer in
        list.object { write(answer.element, choice: answer.offset, to: &$0) }
      }
      usage.write(to: &json)
    }
  }

  mutating func events(for part: AnswerPart) -> [ServerSentEvents.Event] {
    let head = head
    var events: [ServerSentEvents.Event] = []
    writeChoices(of: part) { choice in
      let chunk = JSONWriter.document { json in
        head.write(Self.chunkName, to: &json)
        json.array("choices") { $0.object { choice(&$0) } }
        if head.includesUsage { json.null("usage") }
      }
      events.append(ServerSentEvents.Event(line: chunk))
    }
    return events
  }

  func lastEvents(_ usage: AnswerUsage) -> [ServerSentEvents.Event] {
    let chunk = JSONWriter.document { json in
      head.write(Self.chunkName, to: &json)
      json.array("choices") { _ in }
      usage.write(to: &json)
    }
    let done = ServerSentEvents.Event(line: Array("[DONE]\n".utf8))
    return head.includesUsage ? [ServerSentEvents.Event(line: chunk), done] : [done]
  }

  func event(of error: APIError) -> ServerSentEvents.Event {
    ServerSentEvents.Event(line: error.json(.openAI))
  }
}

extension AnswerEnd {
  /// As OpenAI's interfaces of choices call the reason.
  var apiName: String {
    switch finish.reason {
    case .stop: hasCalls ? "tool_calls" : "stop"
    // What is cancelled and told all the same had its time.
    case .length, .context, .cancelled: "length"
    }
  }

  /// Says that an answer goes no further because its time was over, where that is so.
  func writeTimeLimit(to json: inout JSONWriter) {
    if finish.reason == .cancelled { json.flag("time_limit_reached", true) }
  }
}
