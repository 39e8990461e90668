import KVCache

// What a sequence leaves stays in memory until somebody needs its place or its room. A conversation whose next question comes as a
// request of its own, as over HTTP, goes on where it was: nothing of it is read again, by a sweep or from the store.
extension EngineServer {
  /// Keys and values that no sequence has.
  struct IdleContext {
    /// Whose they are.
    let tokens: [Int32]
    let cache: KeyValueStore
  }

  /// Lets go of a sequence's context, which waits for another that begins like it.
  func setAside(_ sequence: ActiveSequence) {
    let count = sequence.cache.positionCount
    // What was broken off in the middle of a sweep, or failed, is not gone on with.
    // What was pooled is seldom asked again, and would take the place of what is.
    guard attendsOverAll, !sequence.hasFailed, sequence.record.request.pooling == nil,
      count >= Self.leastSharedCount,
      count == sequence.position, sequence.cache.restorePoint(atOrBefore: count) == count
    else { return core.close(sequence.cache) }
    idleContexts.append(
      IdleContext(tokens: Array(sequence.path.prefix(count)), cache: sequence.cache))
  }

  /// Takes the idle context that has most of the beginning of `tokens`, cut to that.
  ///
  /// - Parameter leastCount: tokens that there are elsewhere.
  /// - Returns: nil where none has as many.
  func takeIdleContext(
    _ tokens: [Int32], _ request: SequenceRequest, atLeast leastCount: Int
  ) -> KeyValueStore? {
    var (best, bestCount) = (-1, max(leastCount, Self.leastSharedCount) - 1)
    for (index, context) in idleContexts.enumerated() {
      let shared = zip(context.tokens, tokens).prefix { $0 == $1 }.count
      let count = context.cache.restorePoint(atOrBefore: shared)
      if count > bestCount { (best, bestCount) = (index, count) }
    }
    guard best >= 0 else { return nil }
    let cache = idleContexts.remove(at: best).cache
    do throws(RuntimeError) {
      // Its room is what the sequence needs, where it was of another length.
      _ = try core.truncate(
        cache, to: bestCount, limit: request.contextLength(in: core.plan))
      return cache
    } catch {
      core.close(cache)
      return nil
    }
  }

  /// Lets idle contexts go, the oldest first, until another sequence has a place and room to begin.
  func makePlace() {
    while !idleContexts.isEmpty, !core.hasRoomForSequence { dropIdleContext() }
  }

  /// Before a sweep: lets idle contexts go where the sweep has a use for their memory.
  func makeRoom() {
    while !idleContexts.isEmpty, core.hasUseOfMemory { dropIdleContext() }
  }

  private func dropIdleContext() { core.close(idleContexts.removeFirst().cache) }
}
