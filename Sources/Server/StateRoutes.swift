import HTTPTypes
import Hummingbird
import ModelFormat
import NIOCore
import Runtime
import TensorBasics
import Tokenization

/// What the server says of itself: `/health`, `/v1/models`, `/props`, `/slots`, `/state`, `/metrics` and `/openapi.json`.
struct StateRoutes: Sendable {
  let model: ServedModel
  let desk: AnswerDesk
  let registry: PrometheusRegistry
  let engineMetrics: EngineMetrics
  let startSeconds = secondsSince1970()

  func add(to router: Router<ConnectionContext>) {
    router.get("health") { _, _ in try health() }
    router.get("v1/models") { request, _ in
      let form = APIError.Form(request.head)
      return Response { json in
        switch form {
        case .openAI: json.text("object", "list")
        case .anthropic:
          json.text("first_id", model.name)
          json.text("last_id", model.name)
          json.flag("has_more", false)
        }
        json.array("data") { $0.object { describe(form, to: &$0) } }
      }
    }
    router.get("v1/models/:name") { request, context in
      try model.check(context.parameters.get("name"))
      let form = APIError.Form(request.head)
      return Response { describe(form, to: &$0) }
    }
    router.get("props") { _, _ in properties() }
    router.get("slots") { _, _ in slots() }
    let state = LiveState(model, desk)
    router.get("state") { _, _ in Response { state.write(to: &$0) } }
    router.get("metrics") { _, _ in metrics() }
    router.get("openapi.json") { _, _ in Response(json: Interface.document) }
  }

  private func health() throws -> Response {
    if let failure = desk.failure { throw failure }
    return Response { $0.text("status", "ok") }
  }

  private func describe(_ form: APIError.Form, to json: inout JSONWriter) {
    json.text("id", model.name)
    switch form {
    case .openAI:
      json.text("object", "model")
      json.number("created", startSeconds)
      json.text("owned_by", "flashinfer")
      json.number("max_model_len", model.contextLength)
    case .anthropic:
      json.text("type", "model")
      json.text("display_name", model.name)
      json.text("created_at", utcText(ofSeconds: startSeconds))
      json.number("max_input_tokens", model.contextLength)
    }
  }

  private func properties() -> Response {
    let (plan, usual) = (desk.engine.plan, SamplingOptions())
    return Response { json in
      json.text("version", FlashInferVersion.current)
      json.text("model", model.name)
      json.number("context_length", model.contextLength)
      json.number("trained_context_length", model.trainedContextLength)
      json.number("sequences", plan.sequenceCount)
      json.number("queue", desk.admission.queueCount)
      json.number("vocabulary_size", model.tokenizer.vocabularyCount)
      json.number("memory_budget_bytes", plan.budgetByteCount)
      json.number("key_value_bytes", plan.keyValueByteCount)
      json.text("chat_template", model.chatTemplate)
      json.object("default_generation_settings") { json in
        json.number("temperature", Double(usual.temperature))
        json.number("top_k", usual.topK)
        json.number("top_p", Double(usual.topP))
        json.number("min_p", Double(usual.minP))
        json.number("repetition_penalty", Double(usual.repetitionPenalty))
      }
    }
  }

  private func slots() -> Response {
    let statistics = desk.engine.statistics()
    return Response { json in
      json.number("total", desk.engine.plan.sequenceCount)
      json.number("open", statistics.openCount)
      json.number("queued", statistics.queuedCount)
      statistics.writeClients(to: &json)
      desk.board.write(to: &json, "answers")
    }
  }

  private func metrics() -> Response {
    engineMetrics.update(desk.engine.statistics(), of: desk.engine.plan)
    return Response(
      status: .ok, headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"],
      body: ResponseBody(byteBuffer: ByteBuffer(string: registry.text)))
  }
}
