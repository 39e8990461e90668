import CoreMetrics
import Runtime
import Synchronization

/// An engine's state as metrics.
final class EngineMetrics: Sendable {
  private let registry: PrometheusRegistry
  /// Clients that were told of last.
  private let clients = Mutex<Set<String>>([])

  init(_ registry: PrometheusRegistry) { self.registry = registry }

  /// Tells the metrics what the engine does and has done so far.
  func update(_ statistics: EngineStatistics, of plan: Runtime.MemoryPlan) {
    for (label, value) in [
      ("flashinfer_sequences_open", statistics.openCount),
      ("flashinfer_sequences_queued", statistics.queuedCount),
      ("flashinfer_sequences_planned", plan.sequenceCount),
      ("flashinfer_memory_budget_bytes", plan.budgetByteCount),
    ] { Gauge(label: label, factory: registry).record(value) }
    for (label, total) in [
      ("flashinfer_sweeps", Double(statistics.sweepCount)),
      ("flashinfer_rows", Double(statistics.rowCount)),
      ("flashinfer_drawn_tokens", Double(statistics.drawnCount)),
      ("flashinfer_drafts_verified", Double(statistics.drafts.draftedCount)),
      ("flashinfer_drafts_accepted", Double(statistics.drafts.acceptedCount)),
      ("flashinfer_sweep_seconds", Double(statistics.sweepNanoseconds) / 1e9),
      ("flashinfer_drive_wait_seconds", Double(statistics.times[.drive]) / 1e9),
      ("flashinfer_weight_bytes_read", Double(statistics.bytesRead)),
    ] { registry.count(label, total: total) }
    clients.withLock { update(statistics.clients, &$0) }
  }

  /// Tells of clients that the engine knows, and of no others: any address may ask once.
  private func update(_ clients: [EngineStatistics.Client], _ known: inout Set<String>) {
    let names = Set(clients.map(\.name))
    for name in known.subtracting(names) {
      for label in Self.clientLabels { gauge(label, name).destroy() }
    }
    known = names
    for client in clients {
      let values = [client.openCount, client.queuedCount, client.rowCount]
      for (label, value) in zip(Self.clientLabels, values) {
        gauge(label, client.name).record(value)
      }
    }
  }

  private static let clientLabels = [
    "flashinfer_client_sequences_open", "flashinfer_client_sequences_queued",
    "flashinfer_client_rows",
  ]

  private func gauge(_ label: String, _ client: String) -> Gauge {
    Gauge(label: label, dimensions: [("client", client)], factory: registry)
  }

  /// What each is, for people.
  static let helps = [
    "flashinfer_sequences_open": "Answers that have a place.",
    "flashinfer_sequences_queued": "Answers that wait for a place.",
    "flashinfer_sequences_planned": "Places that there are (--sequences).",
    "flashinfer_client_sequences_open": "Answers of a client that have a place.",
    "flashinfer_client_sequences_queued": "Answers of a client that wait for a place.",
    "flashinfer_client_rows": "Tokens computed for a client, as long as it is remembered.",
    "flashinfer_memory_budget_bytes": "Memory that the plan keeps to (--ram).",
    "flashinfer_sweeps": "Sweeps over the weights.",
    "flashinfer_rows": "Tokens computed in sweeps, of prompts and answers.",
    "flashinfer_drawn_tokens": "Tokens drawn of all answers.",
    "flashinfer_drafts_verified": "Drafted tokens that sweeps verified.",
    "flashinfer_drafts_accepted": "Drafted tokens that the model drew itself.",
    "flashinfer_sweep_seconds": "Time that sweeps took.",
    "flashinfer_drive_wait_seconds": "Time in which a sweep waited for the drive.",
    "flashinfer_weight_bytes_read": "Bytes of weights read from the drive.",
  ]
}
