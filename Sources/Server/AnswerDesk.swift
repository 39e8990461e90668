import HTTPTypes
import Runtime

/// What answering takes, shared by all requests.
struct AnswerDesk: Sendable {
  let engine: Engine
  let admission: Admission
  let board: AnswerBoard
  let metrics: AnswerMetrics
  /// Of what is answered and not sent yet.
  let memory: AnswerMemory
  /// How long an answer may take, waiting included; nil = as long as it takes.
  private let longestTime: Duration?
  private let failureSeconds: Int

  init(_ engine: Engine, _ options: ServerOptions, _ metrics: AnswerMetrics) {
    self.engine = engine
    self.metrics = metrics
    longestTime = options.requestTimeLimit
    failureSeconds = options.failureSeconds
    admission = Admission(
      placeCount: engine.plan.sequenceCount, queueCount: options.queueCount,
      grammarByteLimit: options.keptGrammarByteCount)
    memory = AnswerMemory(byteLimit: options.answerByteCount)
    board = AnswerBoard()
  }

  /// What the engine has failed with, as requests are told; nil = nothing.
  var failure: APIError? {
    engine.failure.map {
      // By then another server may be there.
      APIError(
        .serviceUnavailable, "\(EngineFailure($0))", code: "engine_failed",
        retrySeconds: failureSeconds)
    }
  }

  /// What an engine says of a request, whose prompt is in `field`, or of itself.
  func refusal(_ error: RuntimeError, field: String) -> APIError {
    failure ?? APIError(error, field: field)
  }

  /// How long an answer may take that a request wants in such a time.
  ///
  /// - Throws: ``APIError`` where it wants more than there is.
  func timeLimit(_ asked: Duration?) throws -> Duration? {
    guard let asked, let longestTime, asked > longestTime else { return asked ?? longestTime }
    throw APIError.bad(
      "timeout",
      "'timeout' may lower the server's limit of \(longestTime.components.seconds) seconds (--request-time-limit), not "
        + "raise it")
  }

  /// Learns from an answer that is complete.
  func note(_ usage: TokenSequence.Usage) {
    admission.note(usage)
    metrics.note(usage)
  }
}
