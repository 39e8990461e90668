import Glibc
import HostResources
import TensorBasics

/// The thread of a ``FileWriter`` and what it shares with its coordinator.
final class WriterThread: BackgroundWork, @unchecked Sendable {
  // Safety: queues, requests and results are touched with `monitor` held; `thread` by the coordinator
  // alone; everything else is constant after initialisation.

  private let monitor = Monitor()
  private var requests: [WriteRequest?]
  private var failures: [BlockIOError?]
  private var free: SlotQueue
  private var pending: SlotQueue
  private var done: SlotQueue
  private var isStopping = false
  private var thread: BackgroundThread?

  init(capacity: Int) throws(BlockIOError) {
    requests = Array(repeating: nil, count: capacity)
    failures = Array(repeating: nil, count: capacity)
    free = SlotQueue(capacity: capacity)
    for slot in 0..<capacity { free.append(slot) }
    pending = SlotQueue(capacity: capacity)
    done = SlotQueue(capacity: capacity)
    do throws(ThreadError) { thread = try BackgroundThread(self) } catch {
      throw BlockIOError(error)
    }
  }

  func stop() {
    monitor.locked { isStopping = true }
    monitor.wakeAll()
    thread?.join()
    thread = nil
  }

  /// Ends the thread after the current write, without waiting for that; what is written stays mapped.
  func abandon() {
    monitor.locked {
      isStopping = true
      for case let request? in requests {
        AbandonedMemory.keep(UnsafeMutableRawBufferPointer(mutating: request.bytes))
      }
    }
    monitor.wakeAll()
    thread?.detach()
    thread = nil
  }

  func enqueue(_ request: WriteRequest) {
    monitor.locked {
      guard let slot = free.removeFirst() else { return }
      requests[slot] = request
      pending.append(slot)
    }
    monitor.wakeAll()
  }

  func takeCompletion(waiting: Bool, timeoutMilliseconds: Int?) -> WriteCompletion? {
    let end = timeoutMilliseconds.map { monotonicNanoseconds() + $0 * 1_000_000 }
    return monitor.locked {
      while done.isEmpty, waiting {
        if let end {
          guard monitor.sleep(untilNanoseconds: end) else { break }
        } else {
          monitor.sleep()
        }
      }
      guard let slot = done.removeFirst(), let request = requests[slot] else { return nil }
      defer {
        requests[slot] = nil
        failures[slot] = nil
        free.append(slot)
      }
      return WriteCompletion(
        tag: request.tag, byteCount: request.bytes.count, failure: failures[slot])
    }
  }

  func run() {
    while let (slot, request) = takePending() {
      let failure = request.file.write(
        request.bytes, at: request.offset, isStopping: { monitor.locked { isStopping } })
      monitor.locked {
        failures[slot] = failure
        done.append(slot)
      }
      monitor.wakeAll()
    }
  }

  private func takePending() -> (Int, WriteRequest)? {
    monitor.locked {
      while true {
        if isStopping { return nil }
        if let slot = pending.removeFirst(), let request = requests[slot] {
          return (slot, request)
        }
        monitor.sleep()
      }
    }
  }
}
