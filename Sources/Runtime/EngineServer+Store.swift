import KVCache
import ModelFormat
import TensorBasics

/// What sequences take from the engine's store, and leave there.
///
/// Contexts are kept while nothing is to be answered, and when a sequence leaves: completing an entry waits for the
/// drive.
extension EngineServer {
  /// Opens the store; nil where it cannot be used.
  static func openArchive(
    _ store: Engine.Store, _ model: LanguageModel, _ request: MemoryPlan.Request,
    _ exchange: EngineExchange
  ) throws(RuntimeError) -> KeyValueArchive? {
    let directory: KeyValueDirectory
    do {
      directory = try KeyValueDirectory(
        path: store.path, byteLimit: store.byteLimit, dailyWriteLimit: store.dailyWriteLimit)
    } catch {
      exchange.warn("\(error); keys and values are not kept")
      return nil
    }
    directory.note = { exchange.warn($0) }
    return try KeyValueArchive(directory, model, request) { exchange.warn($0) }
  }

  /// The store, where it can have anything of such a sequence: it keeps page groups.
  private func archive(for request: SequenceRequest) -> KeyValueArchive? {
    request.usesStore && request.pooling == nil
      && request.contextLength(in: core.plan) >= KeyValueOrigin.pageGroupPositionCount
      ? archive : nil
  }

  /// Keys and values of a new sequence, with what an idle context or the store has of its tokens.
  func openSequence(
    _ request: SequenceRequest, _ turn: SequenceRecord.Turn
  ) throws(RuntimeError) -> (KeyValueStore, KeyValuePersistence?) {
    let usesLogits =
      attendsOverAll && turn.limit > 0
      && request.contextLength(in: core.plan) > turn.tokens.count
    let persistence = archive(for: request).map {
      KeyValuePersistence($0, tokens: turn.tokens, usesLogits: usesLogits)
    }
    if request.pooling == nil,
      let cache = takeIdleContext(
        turn.tokens, request, atLeast: persistence?.tokenCount ?? 0)
    {
      persistence?.follow(cache)
      return (cache, persistence)
    }
    makePlace()
    guard let persistence else {
      return (try core.openSequence(limit: request.contextLimit), nil)
    }
    let cache: KeyValueStore
    do {
      cache = try core.openSequence(limit: request.contextLimit, files: persistence.files)
    } catch {
      guard case .keyValues(.io) = error else { throw error }
      exchange.warn("\(error); keys and values are not kept")
      return (try core.openSequence(limit: request.contextLimit), nil)
    }
    persistence.resume(cache)
    return (cache, persistence)
  }

  /// Draws the first token of a turn whose prompt was answered before, from the logits that were kept then: no sweep is needed.
  ///
  /// - Returns: whether it was drawn.
  func drawFromStore(_ sequence: ActiveSequence) -> Bool {
    guard let persistence = sequence.persistence, persistence.hasLogits else { return false }
    return withUnsafeTemporaryAllocation(of: Float.self, capacity: vocabularyCount) { logits in
      guard persistence.readLogits(of: sequence.cache, into: logits) else { return false }
      sequence.prepareConstraint { masks }
      region.draw(
        for: CollectionOfOne(DrawRegion.Entry(sequence: sequence, rows: 0..<1)), from: logits
      ) { masks }
      return true
    }
  }

  /// Gives the store the logits after a prompt, before anything is drawn from them, for those who ask the same again.
  func keepLogits(_ logits: UnsafeMutableBufferPointer<Float>, row: Int, of number: Int) {
    let member = members[number]
    guard member.isReading, core.batch.spans[number].isAlive,
      member.path.count >= KeyValueOrigin.pageGroupPositionCount
    else { return }
    member.persistence?.keep(
      logits: UnsafeBufferPointer(
        rebasing: logits[(row * vocabularyCount)..<((row + 1) * vocabularyCount)]),
      after: member.path.count)
  }

  /// Whether some context is not kept yet.
  var hasUnkept: Bool { sequences.values.contains { $0.isUnkept } }

  /// Keeps one of the contexts that are not kept yet.
  func keepNext() {
    guard let next = sequences.values.first(where: { $0.isUnkept }) else { return }
    keep(next)
  }

  /// Gives a context to the store, as far as it is computed.
  func keep(_ sequence: ActiveSequence) {
    sequence.isUnkept = false
    guard sequence.cache.positionCount >= KeyValueOrigin.pageGroupPositionCount else { return }
    sequence.persistence?.store(
      Array(sequence.path.prefix(sequence.cache.positionCount)), of: sequence.cache)
    sequence.persistence = nil
  }

  /// Has a sequence that begins another turn leave to the store what follows, where its context is kept so far.
  func follow(_ sequence: ActiveSequence) {
    guard sequence.persistence == nil, let archive = archive(for: sequence.record.request) else {
      return
    }
    let persistence = KeyValuePersistence(
      archive, tokens: sequence.path, usesLogits: attendsOverAll)
    persistence.follow(sequence.cache)
    sequence.persistence = persistence
  }

  /// Notes that a turn has ended whose context the store is to have.
  func note(_ member: ActiveSequence) {
    if case .finished? = member.news.end { member.isUnkept = member.persistence != nil }
  }

  /// Has a sequence computed again whose stored keys and values turned out to be damaged, with what it answered by then.
  func restart(_ member: ActiveSequence, _ span: Batch.Span) -> Bool {
    guard case .keyValues(let loss)? = span.failure, loss.unreadablePath != nil,
      member.isReading || attendsOverAll,
      member.cache.prefixPositionCount > 0, let persistence = member.persistence
    else { return false }
    persistence.removePrefix(because: loss)
    member.cache.reset()
    member.restart()
    let usage = member.noteStart()
    exchange.begin(member.record, usage, keepsAnswer: member.hasAnswered)
    return true
  }
}
