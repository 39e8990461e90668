import HTTPTypes
import Hummingbird
import ModelFormat
import NIOCore
import Runtime

/// `/v1/completions`, `/v1/chat/completions`, `/v1/responses` and `/v1/messages`.
struct GenerationRoutes: Sendable {
  let model: ServedModel
  let bodies: RequestBodies
  let desk: AnswerDesk
  let kept: KeptResponses

  func add(to router: Router<ConnectionContext>) {
    router.post("v1/completions") { request, context in
      try await answer(request, context, field: "prompt") { body in
        let asked = try CompletionRequest(body)
        try model.check(asked.options.model)
        try model.check(asked.options.sampling.logitBias)
        let job = Answers.Job(
          prompts: try asked.prompts.map(model.tokens), options: asked.options)
        return (job, CompletionFormat(AnswerHead("cmpl-", model, job.options)))
      }
    }
    router.post("v1/chat/completions") { request, context in
      try await answer(request, context, field: "messages") { body in
        let job = try model.job(try ChatRequest(body))
        return (job, ChatFormat(AnswerHead("chatcmpl-", model, job.options)))
      }
    }
    router.post("v1/messages") { request, context in
      try await answer(request, context, field: "messages") { body in
        let job = try model.job(try ChatRequest(messages: body, isAnswered: true))
        return (job, MessagesFormat(model, job))
      }
    }
    router.post("v1/messages/count_tokens") { request, _ in
      try await bodies.read(request) { body in
        let tokens = try model.tokens(try ChatRequest(messages: body, isAnswered: false))
        return Response { $0.number("input_tokens", tokens.count) }
      }
    }
    addResponses(to: router)
  }

  private func addResponses(to router: Router<ConnectionContext>) {
    router.post("v1/responses") { request, context in
      try await answer(request, context, field: "input") { body in
        let asked = try responsesRequest(body, isAnswered: true)
        let job = try model.job(asked.chat, field: "input")
        return (job, ResponsesFormat(model, job, asked, kept))
      }
    }
    router.post("v1/responses/input_tokens") { request, _ in
      try await bodies.read(request) { body in
        let tokens = try model.tokens(
          try responsesRequest(body, isAnswered: false).chat, field: "input")
        return Response { json in
          json.text("object", "response.input_tokens")
          json.number("input_tokens", tokens.count)
        }
      }
    }
    router.get("v1/responses/:id") { request, context in
      try Self.refuseQuery(request)
      return Response(json: try kept.find(context.parameters.get("id")).json)
    }
    router.delete("v1/responses/:id") { request, context in
      try Self.refuseQuery(request)
      let id = context.parameters.get("id")
      try kept.remove(id)
      return Response { json in
        json.text("id", id)
        json.text("object", "response")
        json.flag("deleted", true)
      }
    }
  }

  private static func refuseQuery(_ request: Request) throws {
    guard let (name, _) = request.uri.queryParameters.first else { return }
    throw APIError.bad(
      String(name.prefix(80)), "'\(name.prefix(80))' is not supported: leave it out",
      code: "unsupported_parameter")
  }

  private func responsesRequest(_ body: [UInt8], isAnswered: Bool) throws -> ResponsesRequest {
    try ResponsesRequest(body, isAnswered: isAnswered, kept: kept, byteLimit: bodies.limit)
  }

  /// - Parameter field: of the request, that has the prompt.
  private func answer<Format: AnswerFormat>(
    _ request: Request, _ context: ConnectionContext, field: String,
    _ understand: ([UInt8]) throws -> (Answers.Job, Format)
  ) async throws -> Response {
    let (asked, format) = try await bodies.read(request, understand)
    var job = asked
    job.client = try await context.client()
    return try await respond(
      to: context.channel, try Answers(job, at: desk, field: field), format)
  }

  /// The answers, whole or as they come. Where the client leaves, they are cancelled.
  private func respond(
    to client: any Channel, _ answers: Answers, _ format: some AnswerFormat
  ) async throws -> Response {
    guard answers.job.options.streams else {
      return Response(
        json: try await ClientWatch.during(client, onLeaving: { answers.cancel() }) {
          try await whole(answers, format)
        })
    }
    return Response(
      status: .ok, headers: [.contentType: "text/event-stream", .cacheControl: "no-store"],
      body: ResponseBody { writer in
        var events = ServerSentEvents(writer)
        try await ClientWatch.during(client, onLeaving: { answers.cancel() }) {
          try await stream(answers, format, to: &events)
        }
      })
  }

  private func whole(_ answers: Answers, _ format: some AnswerFormat) async throws -> [UInt8] {
    var collected = [CollectedAnswer](
      repeating: CollectedAnswer(), count: answers.job.choiceCount)
    var (format, usage) = (format, AnswerUsage(answers.job))
    try await answers.forEachPart { part in
      switch part {
      case .pieces(let choice, let pieces, let reports):
        collected[choice].add(pieces, reports)
      case .finished(let choice, let end):
        collected[choice].end = end
        usage.add(end, choice: choice)
      case .failed(_, let error): throw error
      case .waiting, .queued, .reading: break
      }
    }
    let unanswered = collected.compactMap { $0.end.flatMap { APIError(unanswered: $0.finish) } }
    if let error = unanswered.first, unanswered.count == collected.count { throw error }
    return format.whole(collected, usage)
  }

  private func stream(
    _ answers: Answers, _ format: some AnswerFormat, to events: inout ServerSentEvents
  ) async throws {
    try await events.comment("ping")
    var (format, usage) = (format, AnswerUsage(answers.job))
    do {
      try await send(answers, &format, &usage, to: &events)
      for event in format.lastEvents(usage) { try await events.send(event) }
    } catch let error as APIError { try await events.send(format.event(of: error)) }
    try await events.finish()
  }

  private func send(
    _ answers: Answers, _ format: inout some AnswerFormat, _ usage: inout AnswerUsage,
    to events: inout ServerSentEvents
  ) async throws {
    try await answers.forEachPart { part in
      switch part {
      case .waiting: try await events.comment("ping")
      case .queued(let ahead): try await events.comment("queued, \(ahead) ahead")
      case .reading(let done, let count, _):
        try await events.comment("reading, \(done) of \(count) tokens")
      case .pieces, .failed: break
      case .finished(let choice, let end):
        usage.add(end, choice: choice)
        if let error = APIError(unanswered: end.finish) {
          return try await events.send(format.event(of: error))
        }
      }
      for event in format.events(for: part) { try await events.send(event) }
      if case .failed(_, let error) = part {
        try await events.send(format.event(of: error))
      }
    }
  }
}
