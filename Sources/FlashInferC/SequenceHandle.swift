import CFlashInfer
import Runtime
import Synchronization
import TensorBasics
import Tokenization

/// A sequence for C: its events, and text for which the caller had no room yet.
final class SequenceHandle: @unchecked Sendable {
  // Safety: what changes is touched by one call of `next` at a time, which `isInUse` sees to.
  let sequence: TokenSequence
  let owner: EngineHandle
  private let stops: StopStrings
  let seed: UInt64
  private var text: AnswerText
  private var pending: [UInt8] = []
  /// The end of the turn, which comes after all of its text.
  private var end: TokenSequence.Event?
  private let isInUse = Atomic(false)

  init(_ sequence: TokenSequence, _ owner: EngineHandle, stops: StopStrings, seed: UInt64) {
    self.sequence = sequence
    self.owner = owner
    self.stops = stops
    self.seed = seed
    text = AnswerText(sequence.engine.tokenizer, stops: stops)
  }

  static func find(_ handle: OpaquePointer?) throws(CallError) -> SequenceHandle {
    try HandleTable.shared.find(number(try required(handle, "sequence")), as: SequenceHandle.self)
  }

  /// Another handle, of a fork.
  func fork(at position: Int?, stream: UInt32) throws(RuntimeError) -> OpaquePointer? {
    owner.add(try sequence.fork(at: position, stream: stream), stops: stops, seed: seed)
  }

  /// Fills the next event in.
  func next(timeout: Duration?, into event: inout flashinfer_event) throws -> Status {
    guard !isInUse.exchange(true, ordering: .acquiring) else {
      throw CallError(.busy, "two threads take events of one sequence at the same time")
    }
    defer { isInUse.store(false, ordering: .releasing) }
    let wantsText = event.text_capacity > 0
    if wantsText { _ = try required(event.text, "event->text") }
    if event.probability_capacity > 0 {
      _ = try required(event.probabilities, "event->probabilities")
    }
    (event.text_byte_count, event.probability_count) = (0, 0)
    if end == nil {
      switch sequence.pull(timeout: timeout) {
      case .timeout: return .timeout
      case .end: return .end
      case .event(let next):
        if wantsText { text.append(next, to: &pending) }
        switch next {
        case .queued(let ahead):
          event.kind = 1
          event.ahead = UInt64(ahead)
          return .ok
        case .reading(let done, let total, let reused):
          event.kind = 2
          (event.done, event.total) = (UInt64(done), UInt64(total))
          event.reused_tokens = UInt64(reused)
          return .ok
        case .token(let id, let position, let probabilities):
          event.kind = 3
          (event.token, event.position) = (id, UInt64(position))
          fill(&event, probabilities)
          takeText(into: &event)
          return .ok
        case .finished, .failed: end = next
        }
      }
    }
    if wantsText, !pending.isEmpty {
      event.kind = 4
      takeText(into: &event)
      // The end is as good as known: it needs no call of its own where it has no text.
      return .ok
    }
    return try takeEnd(into: &event)
  }

  private func takeEnd(into event: inout flashinfer_event) throws -> Status {
    defer {
      end = nil
      pending = []
      text = AnswerText(sequence.engine.tokenizer, stops: stops)
    }
    switch end {
    case .finished(let finish)?:
      event.kind = 5
      event.finish_reason = finish.reason.number
      FlashInferC.fill(&event.stop, finish.stop ?? "")
      event.prompt_tokens = UInt64(finish.usage.promptTokenCount)
      event.reused_tokens = UInt64(finish.usage.reusedTokenCount)
      event.answer_tokens = UInt64(finish.usage.answerTokenCount)
      event.seed = seed
      return .ok
    case .failed(let error)?: throw error
    default: return .end
    }
  }

  /// Moves text to where the caller has room: whole characters, unless not one of them fits.
  private func takeText(into event: inout flashinfer_event) {
    guard let memory = event.text, !pending.isEmpty else { return }
    var count = min(pending.count, event.text_capacity)
    var start = count
    while start > 0, start < pending.count, pending[start] & 0xC0 == 0x80 { start -= 1 }
    if start > 0 { count = start }
    pending.withUnsafeBytes {
      UnsafeMutableRawPointer(memory).copyMemory(from: $0.baseAddress!, byteCount: count)
    }
    pending.removeFirst(count)
    event.text_byte_count = count
  }

  private func fill(_ event: inout flashinfer_event, _ list: [TokenProbability]) {
    guard let memory = event.probabilities else { return }
    let taken = list.prefix(event.probability_capacity)
    for (index, entry) in taken.enumerated() {
      memory[index] = flashinfer_probability(
        token: entry.token, reserved: 0, log_probability: entry.logProbability)
    }
    event.probability_count = taken.count
  }
}

extension FinishReason {
  /// As flashinfer.h numbers them.
  var number: flashinfer_finish_reason {
    switch self {
    case .stop: 1
    case .length: 2
    case .context: 3
    case .cancelled: 4
    }
  }
}
