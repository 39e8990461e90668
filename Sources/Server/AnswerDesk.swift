import Runtime

/// What answering takes, shared by all requests.
struct AnswerDesk: Sendable {
  let engine: Engine
  let admission: Admission
  let board: AnswerBoard
  let metrics: AnswerMetrics

  /// - Parameter queueCount: answers that may wait for a place.
  init(_ engine: Engine, queueCount: Int, _ metrics: AnswerMetrics) {
    self.engine = engine
    self.metrics = metrics
    admission = Admission(placeCount: engine.plan.sequenceCount, queueCount: queueCount)
    board = AnswerBoard()
  }

  /// Learns from an answer that is complete.
  func note(_ usage: TokenSequence.Usage) {
    admission.note(usage)
    metrics.note(usage)
  }
}
