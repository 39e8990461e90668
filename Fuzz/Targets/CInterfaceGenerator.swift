import CFlashInfer
import Glibc

/// A model that stays open over all inputs, because opening one takes long, and what is known of it.
final class CInterfaceGenerator: @unchecked Sendable {
  // Safety: used under the turn of `CInterfaceTarget.run`.
  static let shared = CInterfaceGenerator()

  private let handle: OpaquePointer?
  /// Whether the next generation is to end at once.
  private var isCancelled = false
  private var nextTicket: UInt64 = 1
  private var lastCancelledTicket: UInt64 = 0
  /// What was answered to a prompt; it is the same each time.
  private var answers: [[CChar]: [UInt8]] = [:]

  private init() {
    var options = flashinfer_generator_options()
    options.size = MemoryLayout<flashinfer_generator_options>.size
    (options.ram, options.context_length, options.thread_count) = (1 << 36, 64, 1)
    var opened: OpaquePointer?
    let path = CInterfaceFiles.paths[CInterfaceFiles.model]
    let status = flashinfer_generator_open(path, &options, &opened, nil)
    precondition(status == 0, "the model cannot be opened: \(status)")
    handle = opened
  }

  func cancel(byTicket: Bool) throws(FuzzFinding) {
    if byTicket {
      try CInterfaceMachine.expect(
        flashinfer_cancel_ticket(handle, nextTicket, CInterfaceMachine.error), [0])
      lastCancelledTicket = nextTicket
    } else {
      try CInterfaceMachine.expect(
        flashinfer_cancel(UnsafeMutableRawPointer(handle), CInterfaceMachine.error), [0])
      isCancelled = true
    }
  }

  /// Uses cancellations up that nothing was there for, so that each input begins alike.
  func settle() throws(FuzzFinding) {
    nextTicket = max(nextTicket, lastCancelledTicket + 1)
    guard isCancelled else { return }
    try generate(
      [97, 0], ticket: false, tokenCount: 1, stops: false, isChat: false)
    try require(!isCancelled, "a cancellation was lost")
  }

  func generate(
    _ prompt: [CChar], ticket: Bool, tokenCount: UInt64, stops: Bool, isChat: Bool
  ) throws(FuzzFinding) {
    var generation = flashinfer_generation()
    generation.size = MemoryLayout<flashinfer_generation>.size
    generation.maximum_tokens = tokenCount
    generation.top_p = 1
    if ticket {
      generation.ticket = nextTicket
      nextTicket += 1
    }
    var result = flashinfer_result()
    result.size = MemoryLayout<flashinfer_result>.size
    var sink = Sink(stops: stops)
    let take: flashinfer_text_sink = { context, text, count in
      guard let sink = context?.assumingMemoryBound(to: Sink.self), let text else { return 1 }
      sink.pointee.text += UnsafeRawBufferPointer(start: text, count: count)
      return sink.pointee.stops ? 1 : 0
    }
    let status = withUnsafeMutablePointer(to: &sink) { sink in
      prompt.withUnsafeBufferPointer { text in
        guard isChat else {
          return flashinfer_generate(
            handle, text.baseAddress, &generation, take, sink, &result, CInterfaceMachine.error)
        }
        var message = flashinfer_message()
        message.size = MemoryLayout<flashinfer_message>.size
        (message.role, message.text) = (2, text.baseAddress)
        return flashinfer_chat(
          handle, &message, 1, &generation, take, sink, &result, CInterfaceMachine.error)
      }
    }
    try CInterfaceMachine.expect(status, [0, 3, 8])
    let wasCancelled =
      isCancelled || (generation.ticket != 0 && generation.ticket <= lastCancelledTicket)
    if status == 3 {
      // Refused before it began, or as a prompt, which uses a cancellation up.
      if tokenCount > 0, reachesModel(prompt) { isCancelled = false }
      return
    }
    isCancelled = false
    try require(!isChat && tokenCount > 0, "an impossible generation was done")
    try require(
      (status == 8) == (wasCancelled || (stops && !sink.text.isEmpty)),
      "status \(status) of a generation that \(wasCancelled ? "was" : "was not") cancelled")
    try require((status == 8) == (result.finish_reason == 4), "status and result disagree")
    guard status == 0 else { return }
    let known = answers[prompt + [CChar(tokenCount)]]
    try require(known == nil || known == sink.text, "another answer to the same prompt")
    if answers.count < 1000 { answers[prompt + [CChar(tokenCount)]] = sink.text }
  }

  /// Whether a prompt gets to the model, and is refused there where it is.
  private func reachesModel(_ prompt: [CChar]) -> Bool {
    prompt.withUnsafeBufferPointer { buffer in
      buffer.baseAddress.flatMap { String(validatingCString: $0) } != nil
    }
  }

  private struct Sink {
    var text: [UInt8] = []
    var stops: Bool
  }
}
