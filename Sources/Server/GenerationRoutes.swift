import HTTPTypes
import Hummingbird
import ModelFormat
import NIOCore
import Runtime

/// `/v1/completions`, `/v1/chat/completions` and `/v1/messages`.
struct GenerationRoutes: Sendable {
  let model: ServedModel
  let bodies: RequestBodies
  let desk: AnswerDesk

  func add(to router: Router<ConnectionContext>) {
    router.post("v1/completions") { request, context in
      try await answer(request, context, field: "prompt") { body in
        let asked = try CompletionRequest(body)
        try model.check(asked.options.model)
        try model.check(asked.options.sampling.logitBias)
        return Answers.Job(prompts: try asked.prompts.map(model.tokens), options: asked.options)
      } as: {
        CompletionFormat(AnswerHead("cmpl-", model, $0.options))
      }
    }
    router.post("v1/chat/completions") { request, context in
      try await answer(request, context, field: "messages") { body in
        try model.job(try ChatRequest(body))
      } as: {
        ChatFormat(AnswerHead("chatcmpl-", model, $0.options))
      }
    }
    router.post("v1/messages") { request, context in
      try await answer(request, context, field: "messages") { body in
        try model.job(try ChatRequest(messages: body, isAnswered: true))
      } as: {
        MessagesFormat(model, $0)
      }
    }
    router.post("v1/messages/count_tokens") { request, _ in
      try await bodies.read(request) { body in
        let tokens = try model.tokens(try ChatRequest(messages: body, isAnswered: false))
        return Response { $0.number("input_tokens", tokens.count) }
      }
    }
  }

  /// - Parameter field: of the request, that has the prompt.
  private func answer(
    _ request: Request, _ context: ConnectionContext, field: String,
    _ understand: ([UInt8]) throws -> Answers.Job, as format: (Answers.Job) -> some AnswerFormat
  ) async throws -> Response {
    let job = try await bodies.read(request, understand)
    return try await respond(
      to: context.channel, try Answers(job, at: desk, field: field), format(job))
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
    var usage = AnswerUsage(answers.job)
    try await answers.forEachPart { part in
      switch part {
      case .pieces(let choice, let pieces, let reports):
        for piece in pieces { collected[choice].pieces.add(piece) }
        collected[choice].tokens += reports
      case .finished(let choice, let finish, _):
        collected[choice].finish = finish
        usage.add(finish, choice: choice)
      case .failed(_, let error): throw APIError(error, field: "prompt")
      case .waiting, .queued, .reading: break
      }
    }
    return format.whole(collected, usage)
  }

  private func stream(
    _ answers: Answers, _ format: some AnswerFormat, to events: inout ServerSentEvents
  ) async throws {
    try await events.comment("ping")
    var (format, usage) = (format, AnswerUsage(answers.job))
    try await answers.forEachPart { part in
      switch part {
      case .waiting: try await events.comment("ping")
      case .queued(let ahead): try await events.comment("queued, \(ahead) ahead")
      case .reading(let done, let count, _):
        try await events.comment("reading, \(done) of \(count) tokens")
      case .failed(_, let error):
        try await events.send(format.event(of: APIError(error, field: "prompt")))
      case .pieces: break
      case .finished(let choice, let finish, _): usage.add(finish, choice: choice)
      }
      for event in format.events(for: part) { try await events.send(event) }
    }
    for event in format.lastEvents(usage) { try await events.send(event) }
    try await events.finish()
  }
}
