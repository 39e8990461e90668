import ModelFormat
import Runtime

/// Answers as `/v1/messages` tells of them: blocks of text, thinking and calls of tools.
struct MessagesFormat: AnswerFormat {
  private let id: String
  private let model: String
  private let seed: UInt64
  private let promptCount: Int
  private var reusedCount = 0
  private var hasBegun = false
  /// The block that is being told, and how many there were before.
  private var open: Block?
  private var blockCount = 0
  private var end: AnswerEnd?

  private enum Block { case text, thinking, call }

  init(_ model: ServedModel, _ job: Answers.Job) {
    id = AnswerHead.newID("msg_")
    self.model = model.name
    seed = job.options.sampling.seed
    promptCount = job.prompts.reduce(0) { $0 + $1.count }
  }

  func whole(_ answers: [CollectedAnswer], _ usage: AnswerUsage) -> [UInt8] {
    let answer = answers.first ?? CollectedAnswer()
    return JSONWriter.document { json in
      writeHead(to: &json)
      json.array("content") { list in
        for block in Self.blocks(answer.pieces) { list.object { Self.write(block, to: &$0) } }
      }
      if let end = answer.end { Self.write(end, to: &json) }
      Self.write(
        usage.promptCount, reused: usage.cachedCount, answer: usage.answerCount, to: &json)
    }
  }

  // MARK: Streams

  mutating func events(for part: AnswerPart) -> [ServerSentEvents.Event] {
    var events: [ServerSentEvents.Event] = []
    switch part {
    case .waiting: events.append(Self.event("ping") { _ in })
    case .reading(_, _, let reused):
      if !hasBegun { reusedCount = reused }
      begin(&events)
    case .pieces(_, let pieces, _):
      begin(&events)
      for piece in pieces { tell(piece, &events) }
    case .finished(_, let end):
      begin(&events)
      close(&events)
      self.end = end
    case .queued, .failed: break
    }
    return events
  }

  func lastEvents(_ usage: AnswerUsage) -> [ServerSentEvents.Event] {
    guard let end else { return [] }
    let delta = Self.event("message_delta") { json in
      json.object("delta") { Self.write(end, to: &$0) }
      Self.write(
        usage.promptCount, reused: usage.cachedCount, answer: usage.answerCount, to: &json)
    }
    return [delta, Self.event("message_stop") { _ in }]
  }

  func event(of error: APIError) -> ServerSentEvents.Event {
    ServerSentEvents.Event(name: "error", line: error.json(.anthropic))
  }

  private mutating func begin(_ events: inout [ServerSentEvents.Event]) {
    guard !hasBegun else { return }
    hasBegun = true
    events.append(
      Self.event("message_start") { json in
        json.object("message") { json in
          writeHead(to: &json)
          json.array("content") { _ in }
          json.null("stop_reason")
          json.null("stop_sequence")
          Self.write(promptCount, reused: reusedCount, answer: 0, to: &json)
        }
      })
  }

  private mutating func tell(_ piece: AnswerPiece, _ events: inout [ServerSentEvents.Event]) {
    let block: Block =
      switch piece {
      case .text: .text
      case .reasoning: .thinking
      case .call, .arguments: .call
      }
    var begins = open != block
    if case .call = piece { begins = true }
    if begins {
      close(&events)
      open = block
      let index = blockCount
      events.append(
        Self.event("content_block_start") { json in
          json.number("index", index)
          json.object("content_block") { Self.write(Self.emptied(piece), to: &$0) }
        })
    }
    if case .call = piece { return }
    let index = blockCount
    events.append(
      Self.event("content_block_delta") { json in
        json.number("index", index)
        json.object("delta") { Self.writeDelta(piece, to: &$0) }
      })
  }

  private mutating func close(_ events: inout [ServerSentEvents.Event]) {
    guard open != nil else { return }
    open = nil
    let index = blockCount
    blockCount += 1
    events.append(Self.event("content_block_stop") { $0.number("index", index) })
  }

  private static func event(
    _ type: String, _ members: (inout JSONWriter) -> Void
  ) -> ServerSentEvents.Event {
    ServerSentEvents.Event(
      name: type,
      line: JSONWriter.document { json in
        json.text("type", type)
        members(&json)
      })
  }

  // MARK: Parts of answers

  private func writeHead(to json: inout JSONWriter) {
    json.text("id", id)
    json.text("type", "message")
    json.text("role", "assistant")
    json.text("model", model)
    // With it the same request gives the same answer.
    json.number("seed", seed)
  }

  /// The pieces with a call's arguments after its name, as pairs.
  private static func blocks(
    _ pieces: [AnswerPiece]
  ) -> [(piece: AnswerPiece, arguments: [UInt8])] {
    var blocks: [(piece: AnswerPiece, arguments: [UInt8])] = []
    for piece in pieces {
      if case .arguments(_, let bytes) = piece {
        blocks[blocks.count - 1].arguments += bytes
      } else {
        blocks.append((piece, []))
      }
    }
    return blocks
  }

  /// How a block begins that a piece is the first of.
  private static func emptied(_ piece: AnswerPiece) -> (piece: AnswerPiece, arguments: [UInt8]) {
    switch piece {
    case .text: (.text([]), [])
    case .reasoning: (.reasoning([]), [])
    case .call, .arguments: (piece, [])
    }
  }

  private static func write(
    _ block: (piece: AnswerPiece, arguments: [UInt8]), to json: inout JSONWriter
  ) {
    switch block.piece {
    case .text(let bytes):
      json.text("type", "text")
      json.text("text", utf8: bytes)
    case .reasoning(let bytes):
      json.text("type", "thinking")
      json.text("thinking", utf8: bytes)
      // There is nobody that would have to be convinced of it later.
      json.text("signature", "")
    case .call(_, let name):
      json.text("type", "tool_use")
      json.text("id", CollectedAnswer.callID(.random(in: 0...UInt64.max)))
      json.text("name", name)
      writeInput(block.arguments, to: &json)
    case .arguments: break
    }
  }

  /// Arguments as an object; what the model broke off has no members.
  private static func writeInput(_ arguments: [UInt8], to json: inout JSONWriter) {
    let value = arguments.withUnsafeBytes { try? JSONParser.parse($0, path: "arguments") }
    guard let value, value.members != nil else { return json.object("input") { _ in } }
    json.value("input", value)
  }

  private static func writeDelta(_ piece: AnswerPiece, to json: inout JSONWriter) {
    switch piece {
    case .text(let bytes):
      json.text("type", "text_delta")
      json.text("text", utf8: bytes)
    case .reasoning(let bytes):
      json.text("type", "thinking_delta")
      json.text("thinking", utf8: bytes)
    case .arguments(_, let bytes):
      json.text("type", "input_json_delta")
      json.text("partial_json", utf8: bytes)
    case .call: break
    }
  }

  private static func write(_ end: AnswerEnd, to json: inout JSONWriter) {
    let reason =
      switch end.finish.reason {
      case .stop where end.finish.stop != nil: "stop_sequence"
      case .stop where end.hasCalls: "tool_use"
      case .stop: "end_turn"
      case .length, .context, .cancelled: "max_tokens"
      }
    json.text("stop_reason", reason)
    json.text("stop_sequence", end.finish.stop)
    end.writeTimeLimit(to: &json)
  }

  /// - Parameter reused: tokens of the prompt that were not read again; they are counted apart.
  private static func write(
    _ promptCount: Int, reused: Int, answer: Int, to json: inout JSONWriter
  ) {
    json.object("usage") { json in
      json.number("input_tokens", promptCount - reused)
      json.number("cache_creation_input_tokens", 0)
      json.number("cache_read_input_tokens", reused)
      json.number("output_tokens", answer)
    }
  }
}
