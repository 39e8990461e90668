import ModelFormat
import Runtime
import Tokenization

/// Answers as `/v1/responses` tells of them, and keeps them.
struct ResponsesFormat: AnswerFormat {
  private let head: AnswerHead
  private let request: Repeated
  private let promptTokens: [Int32]
  private let kept: KeptResponses
  private let entropy = UInt64.random(in: 0...UInt64.max)
  /// As far as it has been told.
  private var answer = CollectedAnswer()
  private var hasBegun = false
  private var hasFailed = false
  /// Whether the last item is being told of, and how many there are.
  private var isOpen = false
  private var itemCount = 0
  private var callCount = 0
  /// Tokens that have brought nothing yet.
  private var waiting: [TokenReport] = []
  private var eventCount = 0

  /// What of the request is told with the response, or kept with it.
  struct Repeated: Sendable {
    let isKept: Bool
    let frame: [UInt8]
    let messages: [[UInt8]]
    let fields: [(name: String, value: [UInt8])]
    let temperature: Float
    let topP: Float

    init(_ request: ResponsesRequest) {
      isKept = request.isKept
      frame = request.frame
      messages = request.messages
      fields = request.repeated
      temperature = request.chat.options.sampling.temperature
      topP = request.chat.options.sampling.topP
    }
  }

  init(
    _ model: ServedModel, _ job: Answers.Job, _ request: ResponsesRequest, _ kept: KeptResponses
  ) {
    head = AnswerHead("resp_", model, job.options)
    self.request = Repeated(request)
    promptTokens = job.prompts.first ?? []
    self.kept = kept
  }

  func whole(_ answers: [CollectedAnswer], _ usage: AnswerUsage) -> [UInt8] {
    end(answers.first ?? CollectedAnswer(), usage) + [0x0A]
  }

  /// The response as it is in the end, which is kept if it is to be.
  private func end(_ answer: CollectedAnswer, _ usage: AnswerUsage) -> [UInt8] {
    let json = response(answer, usage, nil)
    guard request.isKept, let end = answer.end else { return json }
    let message = JSONWriter.value { json in
      json.object { answer.writeMessage(answer.calls(callID), to: &$0) }
    }
    kept.keep(
      KeptResponse(
        id: head.id, json: json, messages: request.messages + [message],
        tokens: promptTokens + end.tokens, frame: request.frame))
    return json
  }

  // MARK: Streams

  mutating func events(for part: AnswerPart) -> [ServerSentEvents.Event] {
    var events: [ServerSentEvents.Event] = []
    begin(&events)
    switch part {
    case .pieces(_, let pieces, let reports): tell(pieces, reports, &events)
    case .finished(_, let end):
      if itemCount == 0 { open(.text([]), &events) }
      answer.end = end
      close(&events)
    case .waiting, .queued, .reading, .failed: break
    }
    return events
  }

  mutating func lastEvents(_ usage: AnswerUsage) -> [ServerSentEvents.Event] {
    guard !hasFailed else { return [] }
    let json = end(answer, usage)
    let type = answer.isComplete ? "response.completed" : "response.incomplete"
    return [event(type) { $0.written("response", json) }]
  }

  mutating func event(of error: APIError) -> ServerSentEvents.Event {
    hasFailed = true
    let json = response(answer, nil, error)
    return event("response.failed") { $0.written("response", json) }
  }

  private mutating func begin(_ events: inout [ServerSentEvents.Event]) {
    guard !hasBegun else { return }
    hasBegun = true
    let json = response(nil, nil, nil)
    for type in ["response.created", "response.in_progress"] {
      events.append(event(type) { $0.written("response", json) })
    }
  }

  private mutating func tell(
    _ pieces: [AnswerPiece], _ reports: [TokenReport], _ events: inout [ServerSentEvents.Event]
  ) {
    let isInMessage = isOpen && ResponseItem.last(of: answer)?.kind == .message
    guard !pieces.isEmpty || isInMessage else {
      answer.add([], reports)
      if itemCount == 0 { waiting += reports }
      return
    }
    for (number, piece) in (pieces.isEmpty ? [.text([])] : pieces).enumerated() {
      let isLast = number >= pieces.count - 1
      if !isOpen || ResponseItem.last(of: answer)?.continues(with: piece) != true {
        close(&events)
        open(piece, &events)
      }
      answer.add([piece], isLast ? reports : [])
      tellDelta(piece, waiting + (isLast ? reports : []), &events)
      waiting = []
    }
  }

  private mutating func tellDelta(
    _ piece: AnswerPiece, _ reports: [TokenReport], _ events: inout [ServerSentEvents.Event]
  ) {
    let (type, bytes): (String, [UInt8])
    switch piece {
    case .text(let text): (type, bytes) = ("response.output_text.delta", text)
    case .reasoning(let text): (type, bytes) = ("response.reasoning_text.delta", text)
    case .arguments(_, let text):
      (type, bytes) = ("response.function_call_arguments.delta", text)
    case .call: return
    }
    let tokenizer = head.tokenizer
    events.append(
      itemEvent(type, ofCall: type.hasPrefix("response.f")) { json in
        json.text("delta", utf8: bytes)
        guard case .text = piece else { return }
        ResponseItem.write(reports, tokenizer, to: &json)
      })
  }

  /// Begins the item that a piece is the first of.
  private mutating func open(
    _ piece: AnswerPiece, _ events: inout [ServerSentEvents.Event]
  ) {
    let item = ResponseItem(piece)
    isOpen = true
    itemCount += 1
    if case .call = item.kind { callCount += 1 }
    let (label, tokenizer) = (label("in_progress"), head.tokenizer)
    let index = itemCount - 1
    events.append(
      event("response.output_item.added") { json in
        json.number("output_index", index)
        json.object("item") { item.write(label, tokenizer, to: &$0) }
      })
    if case .call = item.kind { return }
    events.append(
      itemEvent("response.content_part.added") { json in
        json.object("part") { item.writePart(tokenizer, to: &$0) }
      })
  }

  private mutating func close(_ events: inout [ServerSentEvents.Event]) {
    guard isOpen else { return }
    isOpen = false
    let item = ResponseItem.list(of: answer).last ?? ResponseItem(.message)
    let (label, tokenizer) = (label(answer.itemStatus), head.tokenizer)
    let index = itemCount - 1
    switch item.kind {
    case .call(let name):
      events.append(
        itemEvent("response.function_call_arguments.done", ofCall: true) { json in
          json.text("name", name)
          json.text("arguments", utf8: item.content)
        })
    case .message, .reasoning:
      let type = item.kind == .message ? "output_text" : "reasoning_text"
      events.append(
        itemEvent("response.\(type).done") { json in
          json.text("text", utf8: item.content)
          guard item.kind == .message else { return }
          ResponseItem.write(item.tokens, tokenizer, to: &json)
        })
      events.append(
        itemEvent("response.content_part.done") { json in
          json.object("part") { item.writePart(tokenizer, to: &$0) }
        })
    }
    events.append(
      event("response.output_item.done") { json in
        json.number("output_index", index)
        json.object("item") { item.write(label, tokenizer, to: &$0) }
      })
  }

  private mutating func event(
    _ type: String, _ members: (inout JSONWriter) -> Void
  ) -> ServerSentEvents.Event {
    let number = eventCount
    eventCount += 1
    return ServerSentEvents.Event(
      name: type,
      line: JSONWriter.document { json in
        json.text("type", type)
        json.number("sequence_number", number)
        members(&json)
      })
  }

  /// An event about the last item, or what is in it.
  private mutating func itemEvent(
    _ type: String, ofCall: Bool = false, _ members: (inout JSONWriter) -> Void
  ) -> ServerSentEvents.Event {
    let (id, index) = (itemID(itemCount - 1), itemCount - 1)
    return event(type) { json in
      json.text("item_id", id)
      json.number("output_index", index)
      if !ofCall { json.number("content_index", 0) }
      members(&json)
    }
  }

  // MARK: The response

  private func itemID(_ index: Int) -> String { "item_\(head.id.dropFirst(5))_\(index)" }

  private func callID(_ number: Int) -> String {
    CollectedAnswer.callID(entropy &+ UInt64(truncatingIfNeeded: number) &* 0x9E37_79B9_7F4A_7C15)
  }

  /// Of the last item.
  private func label(_ status: String) -> ResponseItem.Label {
    ResponseItem.Label(
      id: itemID(itemCount - 1), callID: callID(callCount - 1), status: status)
  }

  private func response(
    _ answer: CollectedAnswer?, _ usage: AnswerUsage?, _ error: APIError?
  ) -> [UInt8] {
    JSONWriter.value { json in json.object { write(answer, usage, error, to: &$0) } }
  }

  /// - Parameters:
  ///   - answer: nil = it has not begun.
  ///   - usage: nil = it is not over.
  private func write(
    _ answer: CollectedAnswer?, _ usage: AnswerUsage?, _ error: APIError?, to json: inout JSONWriter
  ) {
    let isIncomplete = usage != nil && answer?.isComplete == false
    json.text("id", head.id)
    json.text("object", "response")
    json.number("created_at", head.created)
    json.text(
      "status",
      error != nil
        ? "failed" : usage == nil ? "in_progress" : isIncomplete ? "incomplete" : "completed")
    json.flag("background", false)
    if let error {
      json.object("error") { json in
        json.text("code", "server_error")
        json.text("message", error.message)
      }
    } else {
      json.null("error")
    }
    if isIncomplete {
      json.object("incomplete_details") { $0.text("reason", "max_output_tokens") }
    } else {
      json.null("incomplete_details")
    }
    json.text("model", head.model)
    json.array("output") { list in if let answer { writeItems(of: answer, to: &list) } }
    for field in request.fields { json.written(field.name, field.value) }
    json.text("service_tier", "default")
    json.flag("store", request.isKept)
    json.number("temperature", request.temperature)
    json.number("top_p", request.topP)
    // With it the same request gives the same answer.
    json.number("seed", Int64(bitPattern: head.seed))
    if let usage { usage.writeForResponses(to: &json) } else { json.null("usage") }
  }

  private func writeItems(of answer: CollectedAnswer, to list: inout JSONWriter) {
    let items = ResponseItem.list(of: answer)
    var callNumber = -1
    for (index, item) in items.enumerated() {
      if case .call = item.kind { callNumber += 1 }
      let label = ResponseItem.Label(
        id: itemID(index), callID: callID(callNumber),
        status: index == items.count - 1 ? answer.itemStatus : "completed")
      list.object { item.write(label, head.tokenizer, to: &$0) }
    }
  }
}

extension CollectedAnswer {
  /// Whether it came to its end, and was not cut off.
  fileprivate var isComplete: Bool { end?.finish.reason == .stop }

  /// Of its last item.
  fileprivate var itemStatus: String { end == nil || isComplete ? "completed" : "incomplete" }
}

extension AnswerUsage {
  fileprivate func writeForResponses(to json: inout JSONWriter) {
    json.object("usage") { json in
      json.number("input_tokens", promptCount)
      json.object("input_tokens_details") { json in
        json.number("cached_tokens", cachedCount)
        json.number("cache_write_tokens", 0)
      }
      json.number("output_tokens", answerCount)
      json.object("output_tokens_details") { $0.number("reasoning_tokens", reasoningCount) }
      json.number("total_tokens", promptCount + answerCount)
    }
  }
}
