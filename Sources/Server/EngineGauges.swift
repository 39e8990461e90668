import CoreMetrics
import Runtime

/// An engine's state as metrics.
struct EngineGauges: Sendable {
  private let factory: any MetricsFactory

  init(_ factory: any MetricsFactory) { self.factory = factory }

  /// Tells the metrics what the engine has done so far.
  func update(_ statistics: EngineStatistics, of plan: Runtime.MemoryPlan) {
    let values: [(String, Double)] = [
      ("flashinfer_sequences_open", Double(statistics.openCount)),
      ("flashinfer_sequences_queued", Double(statistics.queuedCount)),
      ("flashinfer_sequences_planned", Double(plan.sequenceCount)),
      ("flashinfer_sweeps", Double(statistics.sweepCount)),
      ("flashinfer_rows", Double(statistics.rowCount)),
      ("flashinfer_drawn_tokens", Double(statistics.drawnCount)),
      ("flashinfer_sweep_seconds", Double(statistics.sweepNanoseconds) / 1e9),
      ("flashinfer_drive_wait_seconds", Double(statistics.times[.drive]) / 1e9),
      ("flashinfer_weight_bytes_read", Double(statistics.bytesRead)),
      ("flashinfer_memory_budget_bytes", Double(plan.budgetByteCount)),
    ]
    for (label, value) in values { Gauge(label: label, factory: factory).record(value) }
  }
}
