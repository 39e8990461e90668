// The functions have the names of flashinfer.h.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CFlashInfer
import Runtime
import TensorBasics
import Tokenization

@c @implementation
public func flashinfer_sequence_open(
  _ engine: OpaquePointer?, _ options: UnsafePointer<flashinfer_sequence_options>?,
  _ sequence: UnsafeMutablePointer<OpaquePointer?>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let sequence = try required(sequence, "sequence")
    let wanted = try flashinfer_sequence_options.read(
      from: try required(options, "options"), "options")
    let owner = try EngineHandle.find(engine)
    var request = SequenceRequest(
      tokens: try owner.tokens(wanted), limit: try limit(wanted.maximum_tokens),
      sampling: try wanted.sampling, stops: StopStrings(try stops(wanted)),
      ignoresEnd: wanted.ignores_end != 0,
      logProbabilityCount: Int(wanted.log_probability_count))
    guard wanted.log_probability_count <= 64 else {
      throw CallError(
        .invalid, "log_probability_count is \(wanted.log_probability_count), not 0 to 64")
    }
    request.usesStore = wanted.ignores_store == 0
    if wanted.context_limit > 0 {
      request.contextLimit = try integer(wanted.context_limit, "options->context_limit")
    }
    let opened = try owner.engine.open(request, whenFull: wanted.queues != 0 ? .queue : .refuse)
    sequence.pointee = owner.add(opened, stops: request.stops, seed: request.sampling.seed)
    return .ok
  }
}

private func limit(_ count: UInt64) throws(CallError) -> Int {
  guard count <= 1 << 30 else {
    throw CallError(.invalid, "maximum_tokens is \(count), not 0 to 2^30")
  }
  return Int(count)
}

private func stops(_ options: flashinfer_sequence_options) throws(CallError) -> [String] {
  let count = try checked(options.stop_count)
  guard count > 0 else { return [] }
  let list = try required(options.stops, "options->stops")
  var texts: [String] = []
  for index in 0..<count { texts.append(try text(list[index], "options->stops[\(index)]")) }
  return texts
}

extension flashinfer_sequence_options {
  /// How tokens are drawn; a seed where none is given.
  fileprivate var sampling: SamplingOptions {
    get throws(CallError) {
      var generation = flashinfer_generation()
      (generation.temperature, generation.top_p, generation.top_k) = (temperature, top_p, top_k)
      (generation.is_seeded, generation.seed) = (is_seeded, seed)
      (generation.min_p, generation.repetition_penalty) = (min_p, repetition_penalty)
      var sampling = try generation.sampling
      sampling.stream = stream
      return sampling
    }
  }
}

@c @implementation
public func flashinfer_sequence_next(
  _ sequence: OpaquePointer?, _ timeout_milliseconds: Int64,
  _ event: UnsafeMutablePointer<flashinfer_event>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let pointer = try required(event, "event")
    let size = try flashinfer_event.size(at: pointer, "event")
    let timeout = try duration(milliseconds: timeout_milliseconds)
    var structure = flashinfer_event.places(at: pointer)
    let status = try SequenceHandle.find(sequence).next(timeout: timeout, into: &structure)
    if status == .ok { structure.write(to: pointer, size: size) }
    return status
  }
}

extension flashinfer_event {
  /// An event with the caller's places for text and probabilities; whatever else the caller's holds is filled in anew.
  fileprivate static func places(at pointer: UnsafePointer<flashinfer_event>) -> Self {
    var theirs = Self()
    withUnsafeMutableBytes(of: &theirs) {
      $0.copyMemory(from: UnsafeRawBufferPointer(start: pointer, count: firstByteCount))
    }
    var structure = Self()
    (structure.text, structure.text_capacity) = (theirs.text, theirs.text_capacity)
    structure.probabilities = theirs.probabilities
    structure.probability_capacity = theirs.probability_capacity
    return structure
  }
}

@c @implementation
public func flashinfer_sequence_append(
  _ sequence: OpaquePointer?, _ tokens: UnsafePointer<Int32>?, _ token_count: Int,
  _ maximum_tokens: UInt64, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let count = try checked(token_count)
    let list = count == 0 ? nil : try required(tokens, "tokens")
    try SequenceHandle.find(sequence).sequence.append(
      Array(UnsafeBufferPointer(start: list, count: count)), limit: limit(maximum_tokens))
    return .ok
  }
}

@c @implementation
public func flashinfer_sequence_append_text(
  _ sequence: OpaquePointer?, _ text: UnsafePointer<CChar>?, _ maximum_tokens: UInt64,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let bytes = Array(try FlashInferC.text(text, "text").utf8)
    let found = try SequenceHandle.find(sequence)
    let tokens: [Int32]
    do throws(TokenizerError) {
      tokens = try found.sequence.engine.tokenizer.encodePrompt(
        [ChatPiece(bytes, isMarkup: true)], addsBOS: false, addsEOS: false)
    } catch { throw CallError(.invalid, error.description) }
    try found.sequence.append(tokens, limit: limit(maximum_tokens))
    return .ok
  }
}

@c @implementation
public func flashinfer_sequence_fork(
  _ sequence: OpaquePointer?, _ position: UInt64, _ stream: UInt32,
  _ fork: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let fork = try required(fork, "fork")
    fork.pointee = try SequenceHandle.find(sequence).fork(
      at: position == .max ? nil : integer(position, "position"), stream: stream)
    return .ok
  }
}

@c @implementation
public func flashinfer_sequence_truncate(
  _ sequence: OpaquePointer?, _ position: UInt64, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    try SequenceHandle.find(sequence).sequence.truncate(to: integer(position, "position"))
    return .ok
  }
}

@c @implementation
public func flashinfer_sequence_cancel(
  _ sequence: OpaquePointer?, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    try SequenceHandle.find(sequence).sequence.cancel()
    return .ok
  }
}

@c @implementation
public func flashinfer_sequence_close(
  _ sequence: OpaquePointer?, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let found = try SequenceHandle.find(sequence)
    try HandleTable.shared.remove(number(sequence), as: SequenceHandle.self)
    found.sequence.cancel()
    found.owner.remove(found.sequence)
    return .ok
  }
}
