import Glibc
import HostResources
import TensorBasics

/// The thread of a ``FileWriter`` and what it shares with its coordinator.
final class WriterThread: BackgroundWork, @unchecked Sendable {
  // Safety: queues, requests and results are touched with `monitor` held; `thread` by the coordinator
  // alone; everything else is constant after initialisation.

  private let path: String
  private let descriptor: UnixDescriptor
  private let hooks: DeviceHooks
  private let monitor = Monitor()
  private var requests: [WriteRequest?]
  private var failures: [BlockIOError?]
  private var free: SlotQueue
  private var pending: SlotQueue
  private var done: SlotQueue
  private var isStopping = false
  private var thread: BackgroundThread?

  init(
    path: String, descriptor: consuming UnixDescriptor, capacity: Int, hooks: DeviceHooks
  ) throws(BlockIOError) {
    self.path = path
    self.descriptor = descriptor
    self.hooks = hooks
    requests = Array(repeating: nil, count: capacity)
    failures = Array(repeating: nil, count: capacity)
    free = SlotQueue(capacity: capacity)
    for slot in 0..<capacity { free.append(slot) }
    pending = SlotQueue(capacity: capacity)
    done = SlotQueue(capacity: capacity)
    do throws(ThreadError) { thread = try BackgroundThread(self) } catch {
      throw BlockIOError(error, path: path)
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
      let failure = write(request)
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

  /// Writes a request to its end; returns why that failed if it did.
  private func write(_ request: WriteRequest) -> BlockIOError? {
    var (written, retriesWithoutProgress) = (0, 0)
    while written < request.bytes.count {
      let rest = UnsafeRawBufferPointer(rebasing: request.bytes[written...])
      let result = write(rest, at: request.offset + written)
      let error = result < 0 ? Int32(-result) : 0
      if result > 0 {
        // What is left must be aligned as direct writes are.
        let reached = written + result
        let usable =
          reached == request.bytes.count ? reached : reached & ~(FileSet.directAlignment - 1)
        retriesWithoutProgress = usable > written ? 0 : retriesWithoutProgress + 1
        written = usable
        if retriesWithoutProgress <= Retries.maximumCount { continue }
      } else {
        retriesWithoutProgress += 1
      }
      if error.isLackOfSupport, descriptor.bypassesPageCache,
        descriptor.setBypassingPageCache(false) == 0
      {
        continue
      }
      if error.isInterruption || error.isShortage, retriesWithoutProgress <= Retries.maximumCount,
        !monitor.locked({ isStopping })
      {
        Retries.sleep(
          nanoseconds: Retries.delayNanoseconds(after: retriesWithoutProgress, errno: error))
        continue
      }
      return BlockIOError(
        .write, path: path, offset: request.offset + written, byteCount: rest.count,
        reason: .system(errno: error == 0 ? EIO : error))
    }
    return nil
  }

  /// Bytes written, or the negated error number.
  private func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) -> Int {
    if let refusal = hooks.writeErrno?(offset), refusal != 0 { return -Int(refusal) }
    return SystemCalls.write(descriptor.rawValue, bytes, at: offset)
  }
}
