// The functions have the names of flashinfer.h.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CFlashInfer
import Runtime
import TensorBasics
import WeightLoader

@c @implementation
public func flashinfer_engine_open(
  _ path: UnsafePointer<CChar>?, _ options: UnsafePointer<flashinfer_engine_options>?,
  _ engine: UnsafeMutablePointer<OpaquePointer?>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let path = try FlashInferC.path(path)
    let engine = try required(engine, "engine")
    var wanted = flashinfer_engine_options()
    if let options { wanted = try .read(from: options, "options") }
    engine.pointee = handle(HandleTable.shared.add(try EngineHandle(path: path, wanted)))
    return .ok
  }
}

@c @implementation
public func flashinfer_engine_close(
  _ engine: OpaquePointer?, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let found = try EngineHandle.find(engine)
    try HandleTable.shared.remove(number(engine), as: EngineHandle.self)
    found.close()
    return .ok
  }
}

@c @implementation
public func flashinfer_engine_get_plan(
  _ engine: OpaquePointer?, _ plan: UnsafeMutablePointer<flashinfer_engine_plan>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let pointer = try required(plan, "plan")
    let size = try flashinfer_engine_plan.size(at: pointer, "plan")
    let engine = try EngineHandle.find(engine).engine
    let (plan, statistics) = (engine.plan, engine.statistics())
    var structure = flashinfer_engine_plan()
    structure.budget = UInt64(plan.budgetByteCount)
    structure.process = UInt64(plan.processByteCount)
    structure.key_values = UInt64(plan.keyValueByteCount)
    structure.workspace = UInt64(plan.workspaceByteCount)
    structure.pinned = UInt64(plan.residency.pinnedByteCount)
    structure.streamed = UInt64(plan.residency.streamedByteCount)
    structure.context_length = UInt64(plan.contextLength)
    structure.sequence_count = UInt32(plan.sequenceCount)
    structure.open_count = UInt32(statistics.openCount)
    structure.queued_count = UInt32(statistics.queuedCount)
    structure.sweeps = UInt64(statistics.sweepCount)
    structure.rows = UInt64(statistics.rowCount)
    structure.drawn = UInt64(statistics.drawnCount)
    structure.bytes_read = UInt64(statistics.bytesRead)
    structure.lent = UInt64(statistics.lentByteCount)
    structure.sweep_nanoseconds = UInt64(statistics.sweepNanoseconds)
    structure.gap_nanoseconds = UInt64(statistics.gapNanoseconds)
    structure.write(to: pointer, size: size)
    return .ok
  }
}

@c @implementation
public func flashinfer_engine_next_warning(
  _ engine: OpaquePointer?, _ text: UnsafeMutablePointer<CChar>?, _ capacity: Int,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let text = try required(text, "text")
    guard capacity > 0 else { throw CallError(.invalid, "capacity is \(capacity)") }
    let engine = try EngineHandle.find(engine)
    guard let warning = engine.nextWarning() else { return .end }
    fill(UnsafeMutableRawBufferPointer(start: text, count: capacity), warning)
    return .ok
  }
}

@c @implementation
public func flashinfer_engine_poll(
  _ engine: OpaquePointer?, _ timeout_milliseconds: Int64,
  _ sequences: UnsafeMutablePointer<OpaquePointer?>?, _ capacity: Int,
  _ count: UnsafeMutablePointer<Int>?, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let sequences = try required(sequences, "sequences")
    let count = try required(count, "count")
    let timeout = try duration(milliseconds: timeout_milliseconds)
    guard try checked(capacity) > 0 else { throw CallError(.invalid, "capacity is 0") }
    let ready = try EngineHandle.find(engine).ready(timeout: timeout).prefix(capacity)
    for (index, handle) in ready.enumerated() { sequences[index] = handle }
    count.pointee = ready.count
    return ready.isEmpty ? .timeout : .ok
  }
}

@c @implementation
public func flashinfer_engine_fd(
  _ engine: OpaquePointer?, _ descriptor: UnsafeMutablePointer<Int32>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let descriptor = try required(descriptor, "descriptor")
    descriptor.pointee = try EngineHandle.find(engine).engine.eventDescriptor()
    return .ok
  }
}

@c @implementation
public func flashinfer_engine_prompt_hashes(
  _ engine: OpaquePointer?, _ options: UnsafePointer<flashinfer_sequence_options>?,
  _ hashes: UnsafeMutablePointer<UInt64>?, _ capacity: Int, _ count: UnsafeMutablePointer<Int>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let count = try required(count, "count")
    let wanted = try flashinfer_sequence_options.read(
      from: try required(options, "options"), "options")
    let tokens = try EngineHandle.find(engine).tokens(wanted)
    count.pointee = try write(Engine.hashes(of: tokens), to: hashes, capacity)
    return .ok
  }
}

@c @implementation
public func flashinfer_engine_stored_hashes(
  _ engine: OpaquePointer?, _ hashes: UnsafeMutablePointer<UInt64>?, _ capacity: Int,
  _ count: UnsafeMutablePointer<Int>?, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let count = try required(count, "count")
    let stored = try EngineHandle.find(engine).engine.storedHashes()
    count.pointee = try write(stored, to: hashes, capacity)
    return .ok
  }
}

/// Writes as many hashes as there is room for, and returns how many there are.
private func write(
  _ hashes: some Collection<UInt64>, to places: UnsafeMutablePointer<UInt64>?, _ capacity: Int
) throws(CallError) -> Int {
  guard try checked(capacity) > 0 else { return hashes.count }
  let places = try required(places, "hashes")
  for (index, hash) in hashes.prefix(capacity).enumerated() { places[index] = hash }
  return hashes.count
}
