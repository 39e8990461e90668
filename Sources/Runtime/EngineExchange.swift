import BlockIO
import KVCache
import TensorBasics
import WeightLoader

/// What an engine's thread and its callers share: orders, places and mailboxes, under one lock.
///
/// Callers leave orders and take events; the thread takes orders between sweeps (`EngineExchange+Thread.swift`) and puts
/// events in mailboxes. Neither waits for the other but asleep. A cancellation alone is acted on at once: its end is in
/// the mailbox before the call returns.
final class EngineExchange: @unchecked Sendable {
  // Safety: what changes is touched with the lock held.

  /// What the thread is to do, in the order in which it was asked to.
  enum Order {
    case begin(SequenceRecord, SequenceRecord.Turn)
    case truncate(SequenceRecord, position: Int)
    case fork(SequenceRecord, from: SequenceRecord, position: Int)
    /// Gives its place and memory back.
    case leave(SequenceRecord)
  }

  enum Condition {
    case starting
    case running(MemoryPlan, notes: [String])
    case failed(RuntimeError)
  }

  /// Stops the sweep under way: nobody wants one of its rows any more.
  let sweepCancellation = CancellationFlag()
  /// The thread sleeps here.
  let monitor = Monitor()
  /// Who waits for any sequence, for the start or the end sleeps here.
  let activity: Monitor
  let vocabularyCount: Int
  private let takesGrammars: Bool

  var condition = Condition.starting
  var hasEnded = false
  var stop: Engine.Stop?
  var orders: [Order] = []
  /// Sequences without a place, in the order in which they came.
  var waiting: [SequenceRecord] = []
  /// Whose turn it is to get one.
  var shares = FairShares()
  /// Whether those who wait may have another number of others before them.
  var hasNewOrder = false
  /// Those that somebody may still pull from.
  var records: [UInt64: SequenceRecord] = [:]
  var freePlaceCount = 0
  /// Sequences with rows in the sweep under way that were not cancelled.
  var wantedInSweepCount = 0
  var statistics = EngineStatistics()
  let progress = SweepProgress()
  var warnings: [String] = []
  /// Of the entries of the store that sequences can use.
  var origins: Set<KeyValueOrigin> = []
  private var lastID: UInt64 = 0
  /// Bumped when a mailbox gets something, once somebody has asked for it.
  private var counter: EventCounter?
  /// Tasks to be resumed when the lock is free.
  private var woken: [CheckedContinuation<Void, Never>] = []

  /// - Parameter takesGrammars: whether memory is planned for them.
  init(vocabularyCount: Int, takesGrammars: Bool) {
    self.vocabularyCount = vocabularyCount
    self.takesGrammars = takesGrammars
    activity = Monitor(sharingLockOf: monitor)
  }

  /// Does something with the lock held, then resumes the tasks that it woke.
  func locked<Result, Failure: Error>(
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    var woken: [CheckedContinuation<Void, Never>] = []
    defer { for task in woken { task.resume() } }
    return try monitor.locked { () throws(Failure) in
      defer { swap(&woken, &self.woken) }
      return try body()
    }
  }

  /// Wakes whoever pulls from `record`.
  func notify(_ record: SequenceRecord) {
    record.changed.wakeAll()
    activity.wakeAll()
    counter?.bump()
    guard !record.waiters.isEmpty else { return }
    woken += record.waiters
    record.waiters.removeAll()
  }

  // MARK: - Opening

  func open(
    _ request: SequenceRequest, whenFull: Engine.WhenFull
  ) throws(RuntimeError) -> SequenceRecord {
    try locked { () throws(RuntimeError) in
      let plan = try runningPlan()
      guard takesGrammars || request.grammar == nil else { throw .sequence(.noGrammars) }
      try check(request.tokens, after: 0, request.contextLength(in: plan))
      var options = request
      options.tokens = []
      let turn = SequenceRecord.Turn(tokens: request.tokens, limit: request.limit)
      let isFull = freePlaceCount == 0 || !waiting.isEmpty
      if isFull, whenFull == .refuse {
        throw .sequence(.full(sequenceCount: plan.sequenceCount))
      }
      let record = makeRecord(options, isFull ? .queued(turn) : .underWay)
      record.contextCount = turn.tokens.count
      record.usage.startNanoseconds = monotonicNanoseconds()
      if isFull {
        enqueue(record)
      } else {
        takePlace(record)
        give(.begin(record, turn))
      }
      return record
    }
  }

  private func makeRecord(
    _ request: SequenceRequest, _ condition: SequenceRecord.Condition
  ) -> SequenceRecord {
    lastID += 1
    let record = SequenceRecord(
      id: lastID, request, condition, changed: Monitor(sharingLockOf: monitor))
    record.startRowCount = shares.rowCount
    records[lastID] = record
    return record
  }

  func give(_ order: Order) {
    orders.append(order)
    monitor.wakeAll()
  }

  /// The plan of an engine that works.
  private func runningPlan() throws(RuntimeError) -> MemoryPlan {
    switch condition {
    case .failed(let error): throw error
    case .running(let plan, _) where stop == nil && !hasEnded: return plan
    case .running, .starting: throw .sequence(.engineStopped)
    }
  }

  private func check(
    _ tokens: [Int32], after position: Int, _ contextLength: Int
  ) throws(RuntimeError) {
    try EngineCore.check(
      tokens, after: position, contextLength: contextLength, vocabularyCount: vocabularyCount)
  }

  // MARK: - A sequence

  func take(from record: SequenceRecord, until deadline: Int?) -> TokenSequence.Pull {
    locked {
      while true {
        if let event = record.mailbox.take() { return .event(event) }
        guard record.hasTurn else { return .end }
        guard let deadline else {
          record.changed.sleep()
          continue
        }
        guard monotonicNanoseconds() < deadline else { return .timeout }
        _ = record.changed.sleep(untilNanoseconds: deadline)
      }
    }
  }

  func waitForNews(of record: SequenceRecord) async {
    await withTaskCancellationHandler {
      await withCheckedContinuation { task in
        locked {
          // A cancellation that comes later finds the task among those who wait.
          if Task.isCancelled || !record.mailbox.isEmpty || !record.hasTurn {
            woken.append(task)
          } else {
            record.waiters.append(task)
          }
        }
      }
    } onCancel: {
      locked { notify(record) }
    }
  }

  func isQueued(_ record: SequenceRecord) -> Bool {
    locked { if case .queued = record.condition { true } else { false } }
  }

  func contextCount(of record: SequenceRecord) -> Int { locked { record.contextCount } }

  func append(
    _ tokens: [Int32], limit: Int, to record: SequenceRecord
  ) throws(RuntimeError) {
    try locked { () throws(RuntimeError) in
      let contextLength = record.request.contextLength(in: try betweenTurns(record))
      if !tokens.isEmpty || record.contextCount == 0 {
        try check(tokens, after: record.contextCount, contextLength)
      } else if record.contextCount > contextLength {
        throw .badPrompt("the context of \(contextLength) tokens is full")
      }
      record.contextCount += tokens.count
      record.condition = .underWay
      record.usage = TokenSequence.Usage()
      record.usage.startNanoseconds = monotonicNanoseconds()
      record.usage.beginNanoseconds = record.usage.startNanoseconds
      record.startRowCount = shares.rowCount
      give(.begin(record, SequenceRecord.Turn(tokens: tokens, limit: limit)))
    }
  }

  func truncate(_ record: SequenceRecord, to position: Int) throws(RuntimeError) {
    try locked { () throws(RuntimeError) in
      _ = try betweenTurns(record)
      try check(position, in: record)
      record.contextCount = position
      give(.truncate(record, position: position))
    }
  }

  func fork(
    _ record: SequenceRecord, at position: Int?, stream: UInt32
  ) throws(RuntimeError) -> SequenceRecord {
    try locked { () throws(RuntimeError) in
      let plan = try betweenTurns(record)
      let position = position ?? record.contextCount
      try check(position, in: record)
      guard freePlaceCount > 0, waiting.isEmpty else {
        throw .sequence(.full(sequenceCount: plan.sequenceCount))
      }
      var request = record.request
      request.sampling.stream = stream
      let fork = makeRecord(request, .idle)
      fork.contextCount = position
      takePlace(fork)
      give(.fork(fork, from: record, position: position))
      return fork
    }
  }

  private func check(_ position: Int, in record: SequenceRecord) throws(RuntimeError) {
    guard (0...record.contextCount).contains(position) else {
      throw .sequence(.noSuchPosition(position, count: record.contextCount))
    }
  }

  /// The plan, where the engine works and a turn may begin.
  private func betweenTurns(_ record: SequenceRecord) throws(RuntimeError) -> MemoryPlan {
    let plan = try runningPlan()
    switch record.condition {
    case .over: throw .sequence(.over)
    case .idle where record.mailbox.isEmpty: return plan
    case .idle, .queued, .underWay: throw .sequence(.underWay)
    }
  }

  func cancel(_ record: SequenceRecord) { locked { cancelLocked(record) } }

  /// Cancels a sequence that nobody will pull from.
  func close(_ record: SequenceRecord) {
    locked {
      cancelLocked(record)
      records[record.id] = nil
    }
  }

  /// As ``cancel(_:)``, with the lock held.
  func cancelLocked(_ record: SequenceRecord) {
    guard !record.isOver else { return }
    if record.hasTurn {
      record.usage.endNanoseconds = monotonicNanoseconds()
      record.mailbox.end = .finished(TokenSequence.Finish(.cancelled, record.usage))
    }
    if case .queued = record.condition { dequeue(record) }
    record.condition = .over
    record.cancellation.raise()
    if record.hasPlace {
      give(.leave(record))
      releasePlace(of: record)
    }
    if record.isInSweep {
      record.isInSweep = false
      wantedInSweepCount -= 1
      if wantedInSweepCount == 0 { sweepCancellation.raise() }
    }
    notify(record)
  }

  // MARK: - All of them

  /// Numbers of the sequences whose mailboxes have something, once there is one.
  func ready(until deadline: Int?) -> [UInt64] {
    locked {
      while true {
        let ready = records.values.lazy.filter { !$0.mailbox.isEmpty }.map(\.id)
        if !ready.isEmpty { return ready.sorted() }
        guard let deadline else {
          activity.sleep()
          continue
        }
        guard monotonicNanoseconds() < deadline else { return [] }
        _ = activity.sleep(untilNanoseconds: deadline)
      }
    }
  }

  var failure: RuntimeError? {
    locked { if case .failed(let error) = condition { error } else { nil } }
  }

  var currentStatistics: EngineStatistics {
    locked {
      var result = statistics
      progress.fill(&result)
      result.queuedCount = waiting.count
      result.clients = shares.clients
      if case .running(let plan, _) = condition {
        result.openCount = plan.sequenceCount - freePlaceCount
      }
      return result
    }
  }

  func takeWarnings() -> [String] {
    locked {
      defer { warnings = [] }
      return warnings
    }
  }

  func eventDescriptor() throws(RuntimeError) -> Int32 {
    try locked { () throws(RuntimeError) in
      if let counter { return counter.rawValue }
      let made: EventCounter
      do throws(BlockIOError) { made = try EventCounter() } catch { throw .loader(.io(error)) }
      counter = made
      // What came before is not lost.
      made.bump()
      return made.rawValue
    }
  }

  /// Asks the thread to end, and waits until it has.
  func end(_ how: Engine.Stop) {
    locked {
      if stop != .now { stop = how }
      // None of them gets a place of another that ends now.
      if how == .now { for record in waiting { cancelLocked(record) } }
      // Between turns nothing is left to be finished.
      for record in records.values where how == .now || !record.hasTurn { cancelLocked(record) }
      if how == .now { sweepCancellation.raise() }
      monitor.wakeAll()
      while !hasEnded { activity.sleep() }
    }
  }
}
