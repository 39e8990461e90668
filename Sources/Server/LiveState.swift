import ModelFormat
import Runtime
import TensorBasics
import WeightLoader

/// `/state`: what the engine has planned and does now, as the page shows it.
struct LiveState: Sendable {
  let model: ServedModel
  let desk: AnswerDesk
  private let shares: WeightShares
  private let startNanoseconds = monotonicNanoseconds()

  init(_ model: ServedModel, _ desk: AnswerDesk) {
    self.model = model
    self.desk = desk
    shares = model.shares(desk.engine.plan.residency)
  }

  func write(to json: inout JSONWriter) {
    let (plan, statistics) = (desk.engine.plan, desk.engine.statistics())
    json.text("version", FlashInferVersion.current)
    json.text("model", model.name)
    json.number("context_length", model.contextLength)
    json.text("failure", desk.engine.failure?.description)
    // On the clock of all durations here: rates are differences divided by its.
    json.number("uptime_seconds", Double(monotonicNanoseconds() - startNanoseconds) / 1e9)
    write(plan, lentByteCount: statistics.lentByteCount, to: &json)
    shares.write(to: &json)
    write(statistics, to: &json)
    writeExperts(plan, statistics, to: &json)
    let prompts = desk.board.prompts
    json.object("prompts") { json in
      json.number("tokens", prompts.tokenCount)
      json.number("cached_tokens", prompts.reusedCount)
    }
    json.object("sequences") { json in
      json.number("places", plan.sequenceCount)
      json.number("open", statistics.openCount)
      json.number("queued", statistics.queuedCount)
      statistics.writeClients(to: &json)
      desk.board.write(to: &json, "answers")
    }
  }

  private func write(
    _ plan: Runtime.MemoryPlan, lentByteCount: Int, to json: inout JSONWriter
  ) {
    json.object("memory") { json in
      json.number("budget_bytes", plan.budgetByteCount)
      json.number("pinned_bytes", plan.residency.pinnedByteCount)
      json.number("streamed_bytes", plan.residency.streamedByteCount)
      json.number("staging_bytes", plan.residency.stagingByteCount)
      json.number("key_value_bytes", plan.keyValueByteCount)
      json.number("lent_bytes", lentByteCount)
    }
  }

  private func write(_ statistics: EngineStatistics, to json: inout JSONWriter) {
    json.object("sweep") { json in
      json.number("count", statistics.sweepCount)
      json.number("rows", statistics.rowCount)
      json.number("drawn_tokens", statistics.drawnCount)
      json.number("verified_drafts", statistics.drafts.draftedCount)
      json.number("accepted_drafts", statistics.drafts.acceptedCount)
      json.number("seconds", Double(statistics.sweepNanoseconds) / 1e9)
      json.number("layer", statistics.passedLayerCount)
    }
    json.object("drive") { json in
      json.number("bytes_read", statistics.bytesRead)
      json.number("busy_seconds", Double(statistics.driveNanoseconds) / 1e9)
      json.number("wait_seconds", Double(statistics.times[.drive]) / 1e9)
      json.number("key_value_bytes_written", statistics.keyValueBytesWritten)
    }
  }

  private func writeExperts(
    _ plan: Runtime.MemoryPlan, _ statistics: EngineStatistics, to json: inout JSONWriter
  ) {
    guard let slots = plan.expertSlots else { return json.null("experts") }
    json.object("experts") { json in
      json.number("count", plan.expertCount)
      json.number("slots", slots.slotCount)
      json.number("slot_bytes", slots.byteCount)
      json.number("uses", statistics.expertUseCount)
      json.number("hits", statistics.expertHitCount)
    }
  }
}

extension EngineStatistics {
  /// Writes what each client has of the engine.
  func writeClients(to json: inout JSONWriter) {
    json.array("clients", of: clients) { list, client in
      list.object { json in
        json.text("client", client.name)
        json.number("open", client.openCount)
        json.number("queued", client.queuedCount)
        json.number("rows", client.rowCount)
      }
    }
  }
}

/// Which bytes of each layer's matrices stay in memory and which are streamed; experts apart.
struct WeightShares: Sendable {
  private struct Share {
    var pinnedByteCount = 0
    var streamedByteCount = 0

    func write(to json: inout JSONWriter) {
      json.number("pinned_bytes", pinnedByteCount)
      json.number("streamed_bytes", streamedByteCount)
    }
  }

  private var layers: [Share]
  private var head = Share()

  /// - Parameter layers: the layer of each tensor by its number; nil = the output head.
  init(_ plan: ResidencyPlan, layerCount: Int, layers layerOfTensor: [Int?]) {
    layers = [Share](repeating: Share(), count: layerCount)
    for (number, piece) in plan.pieces.enumerated() {
      let isPinned = plan.runs[plan.runOfPiece[number]].isPinned
      let count: WritableKeyPath<Share, Int> =
        isPinned ? \.pinnedByteCount : \.streamedByteCount
      if let layer = layerOfTensor[piece.tensor], layers.indices.contains(layer) {
        layers[layer][keyPath: count] += piece.byteCount
      } else {
        head[keyPath: count] += piece.byteCount
      }
    }
  }

  func write(to json: inout JSONWriter) {
    json.array("layers", of: layers) { list, share in list.object { share.write(to: &$0) } }
    json.object("head") { head.write(to: &$0) }
  }
}
