import Synchronization

/// For tests: makes chosen calls to the system fail, wherever in the process they are made.
///
/// Every call that may fail on a healthy machine's bad day passes ``refusal(of:)`` first, which outside
/// tests is one relaxed load. A plan holds for the whole process: tests that make one run in a process of
/// their own.
package enum FaultPlan {
  /// What may fail.
  package enum Call: Int, CaseIterable, Sendable {
    /// Reserving anonymous memory.
    case allocate
    case open
    /// `fstat`, `stat` and `lseek`.
    case inspect
    /// `fcntl`.
    case adjust
    case read
    case write
    case truncate
    /// `fsync` and `fdatasync`.
    case sync
    case rename
    case lock
    /// Mapping a file.
    case map
    case makeRing
    case registerFiles
    case registerMemory
    case submitReads
    case awaitReads
    case startThread
  }

  private struct State {
    var chosen: Call?
    var indexes = 0..<0
    var errno: Int32 = 0
    var refusalCount = 0
    var counts = [Int](repeating: 0, count: Call.allCases.count)
  }

  private static let isArmed = Atomic(false)
  private static let state = Mutex(State())

  /// The error number that a call is to fail with; 0 where it is to be made.
  package static func refusal(of call: Call) -> Int32 {
    guard isArmed.load(ordering: .relaxed) else { return 0 }
    return state.withLock { state in
      let index = state.counts[call.rawValue]
      state.counts[call.rawValue] += 1
      guard call == state.chosen, state.indexes.contains(index) else { return 0 }
      state.refusalCount += 1
      return state.errno
    }
  }

  /// Counts calls from here on, and makes those of one kind fail whose index is in `indexes`.
  package static func begin(
    _ call: Call? = nil, _ indexes: Range<Int> = 0..<0, errno: Int32 = 0
  ) {
    state.withLock { $0 = State(chosen: call, indexes: indexes, errno: errno) }
    isArmed.store(true, ordering: .relaxed)
  }

  /// Ends the plan: how often each kind of call was made, and how many calls failed.
  package static func end() -> (counts: [Call: Int], refusalCount: Int) {
    isArmed.store(false, ordering: .relaxed)
    return state.withLock { state in
      let counts = Call.allCases.map { ($0, state.counts[$0.rawValue]) }
      return (Dictionary(uniqueKeysWithValues: counts), state.refusalCount)
    }
  }
}
