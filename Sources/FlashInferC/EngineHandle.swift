import CFlashInfer
import KVCache
import Kernels
import ModelFormat
import Runtime
import Synchronization
import TensorBasics
import Tokenization

/// An engine for C, and the numbers of its sequences' handles.
final class EngineHandle: @unchecked Sendable {
  // Safety: the model is used for its tokenizer and templates alone, which any thread may use.
  let engine: Engine
  let model: LanguageModel
  private let numbers = Mutex<[UInt64: UInt64]>([:])
  /// Lines for people that were not taken.
  private let warnings = Mutex<[String]>([])
  private let isClosed = Atomic(false)

  /// - Throws: `RuntimeError`; also where the budget is too small, before anything large is allocated.
  init(path: String, _ options: flashinfer_engine_options) throws {
    let plan = try PlanOptions(
      ram: options.ram, contextLength: options.context_length, threadCount: options.thread_count,
      sequenceCount: options.sequence_count)
    model = try LanguageModel.open(path)
    var request = plan.request(
      for: model, callerByteCount: try integer(options.caller_bytes, "options->caller_bytes"))
    request.sequenceCount = options.sequence_count == 0 ? 8 : Int(options.sequence_count)
    if let type = try Self.choice(
      options.kv_type, "kv_type", "f16, q8 or q4", KeyValueType.init(rawValue:))
    {
      request.keyValues.type = type
    }
    if let policy = try Self.choice(
      options.kv_policy, "kv_policy", KeyValuePolicyChoice.forms, KeyValuePolicyChoice.init)
    {
      request.keyValues.policy = policy
    }
    engine = try Engine(model, request, store: try Self.store(options))
  }

  /// What one of the options names; nil where it is NULL.
  private static func choice<Choice>(
    _ pointer: UnsafePointer<CChar>?, _ name: String, _ forms: String,
    _ read: (String) -> Choice?
  ) throws(CallError) -> Choice? {
    guard pointer != nil else { return nil }
    let name = "options->\(name)"
    let text = try text(pointer, name)
    guard let choice = read(text) else {
      throw CallError(.invalid, "\(name) is '\(text)', not \(forms)")
    }
    return choice
  }

  private static func store(_ options: flashinfer_engine_options) throws(CallError) -> Engine.Store?
  {
    guard let folder = options.kv_store else { return nil }
    var store = Engine.Store(path: try path(folder))
    if options.kv_store_limit != 0 {
      store.byteLimit = try integer(options.kv_store_limit, "options->kv_store_limit")
    }
    return store
  }

  /// The oldest line for people that was not taken.
  func nextWarning() -> String? {
    warnings.withLock { warnings in
      warnings += engine.takeWarnings()
      return warnings.isEmpty ? nil : warnings.removeFirst()
    }
  }

  static func find(_ handle: OpaquePointer?) throws(CallError) -> EngineHandle {
    let found = try HandleTable.shared.find(
      number(try required(handle, "engine")), as: EngineHandle.self)
    guard !found.isClosed.load(ordering: .acquiring) else {
      throw CallError(.closed, "used after it was closed")
    }
    return found
  }

  func close() {
    isClosed.store(true, ordering: .releasing)
    engine.stop(.now)
  }

  /// Gives a sequence a handle.
  func add(_ sequence: TokenSequence, stops: StopStrings, seed: UInt64) -> OpaquePointer? {
    let number = HandleTable.shared.add(
      SequenceHandle(sequence, self, stops: stops, seed: seed))
    numbers.withLock { $0[sequence.id] = number }
    return handle(number)
  }

  func remove(_ sequence: TokenSequence) { numbers.withLock { $0[sequence.id] = nil } }

  /// Handles of the sequences that have events.
  func ready(timeout: Duration?) -> [OpaquePointer?] {
    let ids = engine.ready(timeout: timeout)
    return numbers.withLock { numbers in ids.compactMap { numbers[$0].map(handle) } }
  }

  /// The tokens of what a sequence begins with.
  func tokens(_ options: flashinfer_sequence_options) throws -> [Int32] {
    let given = [options.prompt != nil, options.json != nil, options.tokens != nil]
    guard given.count(where: { $0 }) == 1 else {
      throw CallError(.invalid, "exactly one of prompt, json and tokens must be given")
    }
    if let prompt = options.prompt { return try model.prompt(text(prompt, "options->prompt")) }
    if let tokens = options.tokens {
      return Array(UnsafeBufferPointer(start: tokens, count: try checked(options.token_count)))
    }
    return try model.prompt(conversation(options.json, "options->json"))
  }
}

/// A conversation that C has as JSON; `name` is what errors call the pointer.
func conversation(
  _ json: UnsafePointer<CChar>?, _ name: String
) throws(CallError) -> Conversation {
  let bytes = Array(try text(json, name).utf8)
  do throws(TokenizerError) { return try Conversation(json: bytes, name: "json") } catch {
    throw CallError(.invalid, error.description)
  }
}

/// The number of a list's elements, where it is possible.
func checked(_ count: Int) throws(CallError) -> Int {
  guard (0...Int(FLASHINFER_LIST_LIMIT)).contains(count) else {
    throw CallError(
      .invalid, "a list has \(UInt(bitPattern: count)) elements, not 0 to \(FLASHINFER_LIST_LIMIT)")
  }
  return count
}

/// C's timeout; nil = as long as it takes.
func duration(milliseconds: Int64) throws(CallError) -> Duration? {
  guard milliseconds >= -1 else {
    throw CallError(.invalid, "timeout_milliseconds is \(milliseconds), not -1 or more")
  }
  return milliseconds == -1 ? nil : .milliseconds(milliseconds)
}
