import Synchronization

/// For tests: makes chosen calls to the system fail, wherever in the process they are made.
///
/// Every system call that can fail passes ``refusal(of:)`` first, which outside
/// tests is one relaxed load. A plan holds for the whole process: tests that make one run in a process of
/// their own.
package enum FaultPlan {
  /// What may fail.
  package enum Call: Int, CaseIterable, Sendable {
    /// Reserving memory.
    case allocate
    /// Files, folders to list or make, and counters of events.
    case open
    /// A file without a name (`O_TMPFILE`).
    case openUnnamed
    /// `fstat`, `stat`, `lseek` and `realpath`.
    case inspect
    /// `fcntl`.
    case adjust
    case read
    case write
    /// Setting a file's length and reserving room.
    case truncate
    /// `fsync`, `fdatasync`, and closing where that reports what was not written.
    case sync
    /// Giving a file a name: `rename`, `link`, `linkat`.
    case rename
    case lock
    /// Mapping a file.
    case map
    case makeRing
    case registerFiles
    case registerMemory
    case submitReads
    case awaitReads
    /// The result of a read that the kernel made.
    case completeRead
    case startThread
  }

  /// Calls of one kind that fail.
  private struct Fault {
    let call: Call
    let indexes: Range<Int>
    let errno: Int32
  }

  private struct State {
    var faults: [Fault] = []
    var refusalCount = 0
    var counts = [Int](repeating: 0, count: Call.allCases.count)
  }

  private static let isArmed = Atomic(false)
  private static let state = Mutex(State())

  /// The error number that a call is to fail with; 0 if it is to be made.
  package static func refusal(of call: Call) -> Int32 {
    guard isArmed.load(ordering: .relaxed) else { return 0 }
    return state.withLock { state in
      let index = state.counts[call.rawValue]
      state.counts[call.rawValue] += 1
      guard let fault = state.faults.first(where: { $0.call == call && $0.indexes.contains(index) })
      else { return 0 }
      state.refusalCount += 1
      return fault.errno
    }
  }

  /// Counts calls from here on.
  package static func begin() {
    state.withLock { $0 = State() }
    isArmed.store(true, ordering: .relaxed)
  }

  /// Counts calls from here on, and makes those of one kind fail whose index is in `indexes`.
  package static func begin(_ call: Call, _ indexes: Range<Int>, errno: Int32) {
    begin()
    refuse(call, indexes, errno: errno)
  }

  /// Makes calls of one kind fail as well, as the plan counts them.
  package static func refuse(_ call: Call, _ indexes: Range<Int>, errno: Int32) {
    state.withLock { $0.faults.append(Fault(call: call, indexes: indexes, errno: errno)) }
  }

  /// How often each kind of call was made under the plan.
  package static var counts: [Call: Int] {
    let counts = state.withLock(\.counts)
    return Dictionary(uniqueKeysWithValues: Call.allCases.map { ($0, counts[$0.rawValue]) })
  }

  /// Ends the plan: how often each kind of call was made, and how many calls failed.
  package static func end() -> (counts: [Call: Int], refusalCount: Int) {
    isArmed.store(false, ordering: .relaxed)
    return (counts, state.withLock(\.refusalCount))
  }
}
