import CLinuxURing
import Glibc

/// What the coordinator and the reading threads of a ``ThreadedDevice`` share: slots to work on,
/// slots done, and how to sleep for either.
///
/// A slot's transfer belongs to the thread that took the slot from a queue.
final class WorkQueue: @unchecked Sendable {
  // Safety: `pending`, `done`, `isStopping` and `coordinatorSleeps` are touched with `monitor` held;
  // everything else is constant after initialisation.

  /// Reading threads sleep on it for work.
  private let monitor = Monitor()
  /// An event counter, because a sleep on a condition variable would not end for a signal.
  private let doneCounter: UnixDescriptor
  private var pending: SlotQueue
  private var done: SlotQueue
  private var isStopping = false
  private var coordinatorSleeps = false

  init(capacity: Int) throws(BlockIOError) {
    pending = SlotQueue(capacity: capacity)
    done = SlotQueue(capacity: capacity)
    doneCounter = try UnixDescriptor(eventCounter: ())
  }

  // MARK: Coordinator

  /// Queues a slot for the threads.
  func push(_ slot: Int) {
    monitor.locked { pending.append(slot) }
    monitor.wakeOne()
  }

  /// Takes a slot that is done, without waiting.
  func popDone() -> Int? { monitor.locked { done.removeFirst() } }

  /// Sleeps until a slot is done; false if a signal or the time came first.
  func waitForDone(nanoseconds: Int?) throws(BlockIOError) -> Bool {
    let mustSleep = monitor.locked {
      coordinatorSleeps = done.isEmpty
      return coordinatorSleeps
    }
    guard mustSleep else { return true }
    var entry = pollfd(fd: doneCounter.rawValue, events: Int16(POLLIN), revents: 0)
    let milliseconds = nanoseconds.map { Int32(clamping: ($0 + 999_999) / 1_000_000) } ?? -1
    let status = poll(&entry, 1, milliseconds)
    let reason = errno
    monitor.locked { coordinatorSleeps = false }
    if status > 0 {
      var count: UInt64 = 0
      _ = read(doneCounter.rawValue, &count, 8)
      return true
    }
    guard status == 0 || reason == EINTR else {
      throw BlockIOError(.wait, reason: .system(errno: reason))
    }
    return false
  }

  /// Tells the threads to end after what they are doing now.
  func stop() {
    monitor.locked { isStopping = true }
    monitor.wakeAll()
  }

  // MARK: Reading threads

  /// Sleeps for a slot to work on; nil if the thread is to end.
  func takePending() -> Int? {
    monitor.locked {
      while true {
        if isStopping { return nil }
        if let slot = pending.removeFirst() { return slot }
        monitor.sleep()
      }
    }
  }

  /// Whether the threads are to end.
  var isStopped: Bool { monitor.locked { isStopping } }

  /// Hands a slot back and wakes the coordinator where it sleeps.
  func finish(_ slot: Int) {
    let wakes = monitor.locked {
      done.append(slot)
      defer { coordinatorSleeps = false }
      return coordinatorSleeps
    }
    guard wakes else { return }
    var one: UInt64 = 1
    _ = write(doneCounter.rawValue, &one, 8)
  }
}
