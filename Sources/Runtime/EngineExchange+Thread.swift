import BlockIO
import KVCache
import TensorBasics

// What the engine's thread does with orders, places and mailboxes.
extension EngineExchange {
  // MARK: - Beginning and end

  /// The engine works from here on.
  ///
  /// - Parameter origins: of the entries of the store that sequences can use.
  func start(_ plan: MemoryPlan, notes: [String], origins: Set<KeyValueOrigin>) {
    locked {
      self.origins = origins
      condition = .running(plan, notes: notes)
      freePlaceCount = plan.sequenceCount
      activity.wakeAll()
    }
  }

  /// The model or its drive failed: no sequence can go on.
  func fail(_ error: RuntimeError) {
    locked {
      condition = .failed(error)
      waiting.removeAll()
      for record in records.values where !record.isOver { endLocked(record, .failed(error)) }
    }
  }

  /// The thread has given everything back.
  func noteEnd() {
    locked {
      // Those that were opened between the last look at the orders and here.
      for record in records.values where !record.isOver { cancelLocked(record) }
      hasEnded = true
      activity.wakeAll()
    }
  }

  /// Waits until the thread has planned memory.
  func waitForStart() throws(RuntimeError) -> (MemoryPlan, notes: [String]) {
    try locked { () throws(RuntimeError) in
      while true {
        switch condition {
        case .starting: activity.sleep()
        case .running(let plan, let notes): return (plan, notes)
        case .failed(let error): throw error
        }
      }
    }
  }

  // MARK: - Between sweeps

  /// What was ordered since the last call; waits for it where there is nothing else to do.
  ///
  /// - Returns: nil when the thread is to end.
  func takeOrders(isIdle: Bool) -> [Order]? {
    locked {
      while true {
        if stop == .now { return nil }
        if !orders.isEmpty || !isIdle { break }
        if stop == .finishing, waiting.isEmpty { return nil }
        monitor.sleep()
      }
      defer { orders = [] }
      return orders
    }
  }

  /// A turn begins: its answer will follow the first `usage.promptTokenCount` tokens of the context.
  ///
  /// - Parameter keepsAnswer: whether some of it was drawn, which is read again.
  func begin(
    _ record: SequenceRecord, _ usage: TokenSequence.Usage, keepsAnswer: Bool = false
  ) {
    locked {
      guard !record.isOver else { return }
      record.usage.promptTokenCount = usage.promptTokenCount
      record.usage.reusedTokenCount = usage.reusedTokenCount
      if !keepsAnswer { record.mailbox.begin(answerAt: usage.promptTokenCount) }
      record.mailbox.reading = (
        usage.reusedTokenCount, usage.promptTokenCount, usage.reusedTokenCount
      )
      notify(record)
    }
  }

  /// Ends a sequence that failed, whose memory the thread frees before it looks for orders.
  func fail(_ record: SequenceRecord, _ error: RuntimeError) {
    locked {
      guard !record.isOver else { return }
      endLocked(record, .failed(error))
    }
  }

  private func endLocked(_ record: SequenceRecord, _ event: TokenSequence.Event) {
    if record.hasTurn { record.mailbox.end = event }
    record.condition = .over
    releasePlace(of: record)
    notify(record)
  }

  /// Notes a line for people.
  func warn(_ text: String) {
    locked {
      guard warnings.last != text else { return }
      if warnings.count == Self.warningCapacity { warnings.removeFirst() }
      warnings.append(text)
      activity.wakeAll()
    }
  }

  private static let warningCapacity = 64

  // MARK: - Sweeps

  /// A sweep with rows of these sequences begins; false if nobody wants one of them any more.
  func beginSweep(_ members: [ActiveSequence]) -> Bool {
    locked {
      guard stop != .now else { return false }
      wantedInSweepCount = 0
      for member in members where !member.record.isOver {
        member.record.isInSweep = true
        wantedInSweepCount += 1
      }
      return wantedInSweepCount > 0
    }
  }

  /// It has ended: cancellations do not stop it any more.
  func endSweep(_ members: [ActiveSequence]) {
    locked {
      for member in members { member.record.isInSweep = false }
      wantedInSweepCount = 0
      if stop != .now { sweepCancellation.lower() }
    }
  }

  /// Puts what a sweep brought in the mailboxes.
  func publish(_ members: [ActiveSequence], _ statistics: EngineStatistics) {
    locked {
      self.statistics = statistics
      settle(members)
      for member in members where !member.record.isOver {
        let (record, news) = (member.record, member.news)
        if let reading = news.reading { record.mailbox.reading = reading }
        for drawn in news.tokens { record.mailbox.append(drawn.token, drawn.probabilities) }
        record.contextCount += news.tokens.count
        record.usage.answerTokenCount += news.tokens.count
        record.usage.drafts += news.drafts
        if !news.tokens.isEmpty, record.usage.firstTokenNanoseconds == nil {
          record.usage.firstTokenNanoseconds = monotonicNanoseconds()
        }
        switch news.end {
        case .failed(let error): endLocked(record, .failed(error))
        case .finished(let reason, let text):
          record.usage.endNanoseconds = monotonicNanoseconds()
          record.mailbox.end = .finished(
            TokenSequence.Finish(
              reason, stop: text, record.usage, embedding: news.embedding))
          record.condition = .idle
          // No other turn will begin, and somebody may wait for its place.
          if stop != nil { cancelLocked(record) } else { notify(record) }
        case nil: notify(record)
        }
      }
    }
  }
}
