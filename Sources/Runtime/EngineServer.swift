import BlockIO
import Grammar
import KVCache
import ModelFormat
import TensorBasics
import Tokenization
import WeightLoader

/// What an engine does between its first order and its end: sweeps, as long as a turn is under way.
///
/// The engine's thread makes it, runs it and frees it.
final class EngineServer: IdleWork {
  let core: EngineCore
  let exchange: EngineExchange
  /// Where contexts are kept; nil = nowhere.
  let archive: KeyValueArchive?
  private let tokenizer: Tokenizer
  let region: DrawRegion
  let vocabularyCount: Int
  private let hiddenSize: Int
  private let draft: DraftChoice
  private var gate: DraftGate
  /// nil where there are no drafts.
  private let draftMemory: DraftMemory?
  /// What was said of the draft model's failure.
  private var lostDrafts: String?
  /// Time that the drafts of the sweep took.
  private var draftNanoseconds = 0
  /// Tokens of a span that ends in drafts.
  private var spanTokens: [Int32] = []
  /// Whether answers attend over all that was read, so that reading a token gives what answering it gave.
  let attendsOverAll: Bool
  private var scheduler: Scheduler
  /// Those that have a place.
  private(set) var sequences: [UInt64: ActiveSequence] = [:]
  /// What sequences left that have no place any more, the oldest first.
  var idleContexts: [IdleContext] = []
  /// Those whose turn is under way, the oldest first.
  private var underWay: [ActiveSequence] = []
  /// Those that have read their prompt and draw a token in the sweep, or more.
  private var answering: [ActiveSequence] = []
  /// Those with rows in the sweep, in the order of the batch's spans.
  private(set) var members: [ActiveSequence] = []
  /// Numbers of those whose logits are wanted, and which rows of logits are theirs.
  private var drawing: [(number: Int, rows: Range<Int>)] = []
  private var statistics = EngineStatistics()
  /// What grammars say of the vocabulary; made when the first is asked for.
  lazy var masks = TokenMasks(
    tokenizer, vocabularyCount: vocabularyCount, within: maskByteCount)
  private let maskByteCount: Int
  /// When the last sweep's logits were there, if there is another sweep at once.
  private var gapStart: Int?

  /// Plans memory, and tells those who wait for that.
  init(
    _ model: LanguageModel, _ request: MemoryPlan.Request, _ store: Engine.Store?,
    _ draft: DraftChoice, _ exchange: EngineExchange
  ) throws(RuntimeError) {
    let logitCount = model.configuration.vocabularyCount
    vocabularyCount = logitCount
    hiddenSize = model.configuration.hiddenSize
    attendsOverAll = request.keyValues.policy == .full
    var request = request
    archive = try store.flatMap { store throws(RuntimeError) in
      try Self.openArchive(store, model, request, exchange)
    }
    request.callerByteCount +=
      archive.map { $0.learningByteCount + MemoryLayout<Float>.stride * logitCount } ?? 0
    request.callerByteCount += Self.byteCount(
      request, vocabularyCount: logitCount, hiddenSize: hiddenSize)
    core = try EngineCore(
      model.source, model.configuration, request, cancellation: exchange.sweepCancellation)
    self.exchange = exchange
    self.draft = draft
    tokenizer = model.tokenizer
    maskByteCount = request.maskByteCount
    region = DrawRegion(vocabularyCount: vocabularyCount, pool: core.pool)
    scheduler = Scheduler(
      rowCapacity: core.batch.rowCapacity, chunkLength: core.plan.chunkLength)
    draftMemory =
      core.plan.draftRowCount > 0 ? DraftMemory(vocabularyCount: vocabularyCount) : nil
    gate = DraftGate(isStreamed: core.plan.residency.streamedByteCount > 0)
    core.stream.onStall = { exchange.warn("\($0)") }
    core.stream.onReplacement = {
      exchange.warn("\($0); the engine goes on with the file that it opened")
    }
    core.keyValues.onWarning = { exchange.warn($0) }
    core.keyValues.onStall = { exchange.warn("\($0)") }
    core.decoder.onPart = { [device = core.stream.source.device] in
      exchange.progress.notePart(device.statistics)
    }
    exchange.start(core.plan, notes: core.notes, origins: archive?.origins ?? [])
  }

  /// Memory beside that of the model: scratch of draws, and of each sequence a pooled vector, and its tokens, twice, as
  /// they are read and as they wait in the mailbox.
  static func byteCount(
    _ request: MemoryPlan.Request, vocabularyCount: Int, hiddenSize: Int
  ) -> Int {
    DrawRegion.byteCount(vocabularyCount: vocabularyCount, threadCount: request.threadCount)
      + 2 * MemoryLayout<Int32>.stride * request.contextLength * request.sequenceCount
      + request.sequenceCount * HiddenPool.byteCount(hiddenSize: hiddenSize)
      + (request.usesGrammars
        ? request.maskByteCount + TokenMasks.byteCount(vocabularyCount: vocabularyCount)
          + request.sequenceCount * GrammarConstraint.byteCount(vocabularyCount: vocabularyCount)
        : 0)
  }

  /// Serves until it is told to end.
  ///
  /// - Throws: ``RuntimeError`` if the model or its drive failed.
  func run() throws(RuntimeError) {
    while let orders = exchange.takeOrders(isIdle: underWay.isEmpty && !hasUnkept) {
      for order in orders { perform(order) }
      if underWay.isEmpty { keepNext() } else { try sweep() }
    }
    while hasUnkept { keepNext() }
    archive?.learnModel(cancellation: exchange.sweepCancellation)
  }

  // MARK: - Orders

  private func perform(_ order: EngineExchange.Order) {
    do throws(RuntimeError) {
      switch order {
      case .begin(let record, let turn): try begin(record, turn)
      case .truncate(let record, let position):
        guard let sequence = sequences[record.id] else { return }
        try truncate(sequence, to: position)
      case .fork(let record, let origin, let position): try fork(record, origin, position)
      case .leave(let record): leave(record)
      }
    } catch {
      let record = order.record
      exchange.fail(record, error)
      leave(record)
    }
  }

  private func begin(
    _ record: SequenceRecord, _ turn: SequenceRecord.Turn
  ) throws(RuntimeError) {
    guard !record.cancellation.isRaised else { return }
    let sequence: ActiveSequence
    var isNew = false
    if let known = sequences[record.id] {
      sequence = known
      follow(known)
    } else {
      sequence = try admit(record, turn)
      isNew = true
    }
    let request = record.request
    let endTokens = request.ignoresEnd ? [] : tokenizer.endTokens
    let constraint = request.grammar.map {
      GrammarConstraint($0, vocabularyCount: vocabularyCount, endTokens: endTokens)
    }
    let drafts =
      core.plan.draftRowCount > 0
      ? SequenceDrafts(
        request.draft ?? draft, contextLength: request.contextLength(in: core.plan),
        memory: draftMemory)
      : nil
    sequence.begin(turn, constraint: constraint, drafts: drafts, hiddenSize: hiddenSize) {
      promptCount in
      AnswerEnding(
        limit: turn.limit, promptCount: promptCount,
        contextLength: request.contextLength(in: core.plan), endTokens: endTokens,
        text: request.stops.isEmpty ? nil : AnswerText(tokenizer, stops: request.stops))
    }
    let isWhole = sequence.unreadCount == 0 && sequence.draws
    if isWhole, isNew, drawFromStore(sequence) {
      exchange.begin(record, sequence.noteStart())
      sequence.advanceWithoutSweep { masks }
      note(sequence)
      statistics.drawnCount += 1
      exchange.publish([sequence], statistics)
    } else {
      // Logits are those after a token that is read.
      if isWhole { try rewind(sequence, to: sequence.position - 1) }
      if isNew { findLeader(of: sequence) }
      exchange.begin(record, sequence.noteStart())
    }
    switch sequence.news.end {
    case nil: underWay.append(sequence)
    case .failed:
      sequence.persistence = nil
      leave(record)
    case .finished: break
    }
  }

  private func admit(
    _ record: SequenceRecord, _ turn: SequenceRecord.Turn
  ) throws(RuntimeError) -> ActiveSequence {
    let (cache, persistence) = try openSequence(record.request, turn)
    let sequence = ActiveSequence(record, cache, position: cache.positionCount)
    sequence.persistence = persistence
    sequences[record.id] = sequence
    return sequence
  }

  private func truncate(_ sequence: ActiveSequence, to position: Int) throws(RuntimeError) {
    sequence.cut(to: position)
    if sequence.position > position { try rewind(sequence, to: position) }
  }

  /// Has the cache hold at most the first `position` tokens of the context; those that it let go of with the others are
  /// read again.
  func rewind(_ sequence: ActiveSequence, to position: Int) throws(RuntimeError) {
    sequence.position = try core.truncate(sequence.cache, to: position)
  }

  private func fork(
    _ record: SequenceRecord, _ origin: SequenceRecord, _ position: Int
  ) throws(RuntimeError) {
    guard !record.cancellation.isRaised, let origin = sequences[origin.id] else { return }
    makePlace()
    let sequence = ActiveSequence(
      record, try core.fork(origin.cache, limit: record.request.contextLimit),
      position: origin.position, origin: origin)
    sequences[record.id] = sequence
    try truncate(sequence, to: position)
  }

  func isUnderWay(_ sequence: ActiveSequence) -> Bool { underWay.contains { $0 === sequence } }

  /// Frees the memory of a sequence for the next.
  func leave(_ record: SequenceRecord) {
    guard let sequence = sequences.removeValue(forKey: record.id) else { return }
    underWay.removeAll { $0 === sequence }
    keep(sequence)
    setAside(sequence)
  }

  // MARK: - Sweeps

  /// One sweep: a row for every answer, then prompts, as many as the scheduler allows.
  private func sweep() throws(RuntimeError) {
    fill()
    makeRoom()
    guard !members.isEmpty, exchange.beginSweep(members) else { return }
    let start = monotonicNanoseconds()
    if let gapStart { statistics.gapNanoseconds += start - gapStart }
    gapStart = nil
    exchange.progress.begin()
    var failure: RuntimeError?
    // Of a sweep in which nothing is read.
    var answerNanoseconds: Int?
    do throws(RuntimeError) {
      core.stream.idleWork = self
      defer { core.stream.idleWork = nil }
      try core.step(continues: true, meanwhile: prepareConstraints, pool: pool) { first, logits in
        draw(first, logits)
      }
    } catch { failure = error }
    exchange.progress.end(core.stream.source.device.statistics)
    exchange.endSweep(members)
    if let failure {
      core.abandon()
      // Where rows are alive, it is no failure of theirs; and where they were to be stopped, none at all.
      if core.batch.isAlive {
        guard case .interrupted = failure else { throw failure }
        for member in members { member.breakOff() }
        return
      }
    } else {
      let end = monotonicNanoseconds()
      scheduler.note(rowCount: core.batch.rowCount, nanoseconds: end - start)
      if members.allSatisfy({ !$0.isReading }) {
        answerNanoseconds = end - start
      } else {
        gate.notePrompt(rowCount: core.batch.rowCount, nanoseconds: end - start)
      }
      statistics.sweepNanoseconds += end - start
    }
    let before = statistics.drawnCount
    advance()
    guard let answerNanoseconds else { return }
    gate.note(
      rowCount: core.batch.rowCount, tokenCount: statistics.drawnCount - before,
      nanoseconds: answerNanoseconds, draftNanoseconds: draftNanoseconds)
  }

  /// Fills the batch with rows of those whose turn is under way.
  private func fill() {
    followLeaders()
    core.batch.removeAll()
    members.removeAll(keepingCapacity: true)
    drawing.removeAll(keepingCapacity: true)
    let prompts = promptsInTurn()
    appendAnswers(besidePrompts: !prompts.isEmpty)
    let shares = scheduler.shares(
      of: prompts.map(readableCount), beside: core.batch.rowCount)
    for (prompt, count) in zip(prompts, shares) where count > 0 { append(prompt, count: count) }
  }

  /// Tokens that a sequence may read in a sweep: where layers have states, up to where one that waits for it goes on by itself,
  /// because states cannot be cut, and to where the store keeps them.
  private func readableCount(_ sequence: ActiveSequence) -> Int {
    guard core.plan.keyValues.shape.hasStates else { return sequence.unreadCount }
    let kept = sequence.persistence?.nextStates(
      after: sequence.position, promptEnd: sequence.path.count)
    let ends = sequences.values.lazy.compactMap(\.leader)
      .filter { $0.sequence === sequence && $0.tokenCount > sequence.position }
      .map(\.tokenCount)
    return min(sequence.path.count, ends.min() ?? .max, kept ?? .max) - sequence.position
  }

  /// A row for every answer, and drafts of those that gain most by them. Where prompts are read, rows are theirs.
  private func appendAnswers(besidePrompts: Bool) {
    draftNanoseconds = 0
    answering.removeAll(keepingCapacity: true)
    for sequence in underWay where sequence.isWanted && !sequence.isReading {
      answering.append(sequence)
    }
    guard core.plan.draftRowCount > 0, !besidePrompts else {
      for sequence in answering { append(sequence, count: 1) }
      return
    }
    let start = monotonicNanoseconds()
    for sequence in answering {
      gate.offer(sequence.propose(core.draftRoom(of: sequence.cache), gate))
      if let failure = sequence.takeDraftFailure() {
        warnOfLostDrafts(failure)
      }
    }
    draftNanoseconds = monotonicNanoseconds() - start
    gate.choose(
      beside: answering.count,
      room: min(core.plan.draftRowCount, core.batch.rowCapacity - answering.count))
    for (sequence, count) in zip(answering, gate.chosenCounts) {
      sequence.chooseDrafts(
        count: count, branchCount: core.plan.draftBranchCount - core.batch.branchCount)
      append(sequence, count: 1)
    }
  }

  /// Says that the draft model failed; of what fails again in each answer, once.
  private func warnOfLostDrafts(_ failure: RuntimeError) {
    let text = "the draft model failed, and answers go on with lookup alone: \(failure)"
    guard text != lostDrafts else { return }
    lostDrafts = text
    exchange.warn(text)
  }

  /// Those that read, in the order of their turns. Who waits for another's reading has it read when its own turn is.
  private func promptsInTurn() -> [ActiveSequence] {
    var prompts: [ActiveSequence] = []
    for sequence in exchange.inTurn(underWay.filter { $0.isWanted && $0.isReading }) {
      let reader = sequence.reader
      guard reader.isReading, reader.isWanted, !prompts.contains(where: { $0 === reader }) else {
        continue
      }
      prompts.append(reader)
    }
    return prompts
  }

  private func append(_ sequence: ActiveSequence, count: Int) {
    let (first, path) = (sequence.position, sequence.path)
    let draws = sequence.draws && first + count == path.count
    let drafts = draws && !sequence.isReading ? sequence.drafts?.rows : nil
    let lineCount = drafts?.lineCount ?? 0
    let firstLogit = core.batch.logitCount
    withRows(path[first..<first + count], drafts?.line ?? []) { tokens in
      core.batch.append(
        tokens, at: first, sequence.isReading ? .read : .answer, promptEnd: path.count,
        in: sequence.cache, logitCount: draws ? 1 + lineCount : 0, draftCount: lineCount,
        states: sequence.stateUse, cancellation: sequence.record.cancellation)
    }
    if let drafts { core.batch.appendBranches(of: drafts, at: first + count) }
    if draws { drawing.append((members.count, firstLogit..<core.batch.logitCount)) }
    members.append(sequence)
  }

  /// Lends the tokens of a span: those of a path, and drafts after them.
  private func withRows(
    _ path: ArraySlice<Int32>, _ drafts: ArraySlice<Int32>,
    _ body: (UnsafeBufferPointer<Int32>) -> Void
  ) {
    guard !drafts.isEmpty else { return path.withUnsafeBufferPointer(body) }
    spanTokens.removeAll(keepingCapacity: true)
    spanTokens.append(contentsOf: path)
    spanTokens.append(contentsOf: drafts)
    spanTokens.withUnsafeBufferPointer(body)
  }

  /// Finds what grammars let those draw whose logits the sweep computes, while it is read.
  private func prepareConstraints() {
    for (number, _) in drawing { members[number].prepareConstraint { masks } }
  }

  /// Has the drafters of those that answer work ahead, one after the other.
  func work(within nanoseconds: Int) -> Bool {
    for sequence in answering where sequence.work(within: nanoseconds) { return true }
    return false
  }

  /// Hands hidden states to those that pool them or draft by them.
  private func pool(_ states: UnsafePointer<Float>) {
    var first = 0
    for (member, span) in zip(members, core.batch.spans) where span.states != .nothing {
      if span.isAlive {
        member.pool(states + first * hiddenSize, rowCount: span.rows.count, at: span.position)
      }
      first += span.rows.count
    }
  }

  /// Draws a token for each row of logits.
  private func draw(_ first: Int, _ logits: UnsafeMutableBufferPointer<Float>) {
    gapStart = monotonicNanoseconds()
    // Where there are drafts, all rows of logits come together.
    let rows = first..<first + logits.count / vocabularyCount
    let entries = drawing.lazy.filter { rows.contains($0.rows.lowerBound) }
    for entry in entries {
      keepLogits(logits, row: entry.rows.lowerBound - first, of: entry.number)
    }
    region.draw(
      for: entries.compactMap { [members, core] entry in
        core.batch.spans[entry.number].isAlive
          ? DrawRegion.Entry(
            sequence: members[entry.number],
            rows: entry.rows.lowerBound - first..<entry.rows.upperBound - first) : nil
      }, from: logits
    ) { masks }
  }

  /// Has a sequence whose rows failed go on without drafts, which may be why: what the model would never draw may have
  /// values that are not finite.
  private func repeatWithoutDrafts(_ member: ActiveSequence, _ span: Batch.Span) -> Bool {
    guard span.draftCount > 0, span.failure != nil else { return false }
    do throws(RuntimeError) {
      let position = try core.truncate(member.cache, to: member.position)
      member.repeatWithoutDrafts(from: position)
      return true
    } catch { return false }
  }

  /// Tells what the sweep brought.
  private func advance() {
    for (number, member) in members.enumerated() {
      let span = core.batch.spans[number]
      guard !restart(member, span), !repeatWithoutDrafts(member, span) else { continue }
      member.advance(number, in: core.batch) { masks }
      if span.isAlive, span.kind == .read {
        member.persistence?.keepStates(of: member.cache, promptEnd: member.promptCount)
      }
      statistics.drawnCount += member.news.drawnCount
      statistics.drafts += member.news.drafts
      if member.news.end != nil {
        draftMemory?.history.append(member.path[member.answerStart...])
      }
      note(member)
    }
    statistics.sweepCount += 1
    statistics.rowCount += core.batch.rowCount
    statistics.lentByteCount = core.keyValues.lentByteCount
    statistics.keyValueBytesWritten = core.keyValues.writtenByteCount
    let experts = core.stream.bundleStatistics
    statistics.expertUseCount = experts.uses
    statistics.expertHitCount = experts.hits
    statistics.times = core.times
    exchange.publish(members, statistics)
    underWay.removeAll { $0.news.end != nil }
    if underWay.isEmpty { gapStart = nil }
    for member in members {
      guard case .failed? = member.news.end else { continue }
      member.persistence = nil
      leave(member.record)
    }
  }
}

extension EngineExchange.Order {
  /// The sequence that it is about.
  fileprivate var record: SequenceRecord {
    switch self {
    case .begin(let record, _), .truncate(let record, _), .fork(let record, _, _),
      .leave(let record):
      record
    }
  }
}
