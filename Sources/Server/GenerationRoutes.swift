import HTTPTypes
import Hummingbird
import NIOCore
import Runtime

/// `/v1/completions` and `/v1/chat/completions`.
struct GenerationRoutes: Sendable {
  let model: ServedModel
  let bodies: RequestBodies
  let desk: AnswerDesk

  func add(to router: Router<ConnectionContext>) {
    router.post("v1/completions") { try await complete($0, $1) }
    router.post("v1/chat/completions") { try await chat($0, $1) }
  }

  private func complete(
    _ request: Request, _ context: ConnectionContext
  ) async throws -> Response {
    let job = try await bodies.read(request) { body in
      let asked = try CompletionRequest(body)
      try model.check(asked.options.model)
      return Answers.Job(prompts: try asked.prompts.map(model.tokens), options: asked.options)
    }
    let format = CompletionFormat(AnswerHead("cmpl-", model, job.options))
    return try await respond(
      to: context.channel, try Answers(job, at: desk, field: "prompt"), format)
  }

  private func chat(
    _ request: Request, _ context: ConnectionContext
  ) async throws -> Response {
    let job = try await bodies.read(request) { body in
      let asked = try ChatRequest(body)
      try model.check(asked.options.model)
      return Answers.Job(prompts: [try model.tokens(asked.conversation)], options: asked.options)
    }
    let format = ChatFormat(AnswerHead("chatcmpl-", model, job.options))
    return try await respond(
      to: context.channel, try Answers(job, at: desk, field: "messages"), format)
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
      case .text(let choice, let text, let report):
        collected[choice].text += text
        if let report { collected[choice].tokens.append(report) }
      case .finished(let choice, let finish):
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
      case .reading(let done, let count):
        try await events.comment("reading, \(done) of \(count) tokens")
      case .failed(_, let error):
        try await events.event(APIError(error, field: "prompt").json)
      case .text: break
      case .finished(let choice, let finish): usage.add(finish, choice: choice)
      }
      for chunk in format.chunks(for: part) { try await events.event(chunk) }
    }
    if format.head.includesUsage { try await events.event(format.usageChunk(usage)) }
    try await events.done()
  }
}
