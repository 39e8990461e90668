import Glibc
import HostResources

/// The threads of a ``ThreadedDevice`` and the transfers they work on.
final class ReadingThreads: BackgroundWork, @unchecked Sendable {
  // Safety: `slots[i]` belongs to the thread that took slot i from the queue or the free list, and the queue
  // orders memory; `threads` is touched by the coordinator alone; the rest is constant.

  let queue: WorkQueue
  private let hooks: DeviceHooks
  private let slots: UnsafeMutableBufferPointer<Slot>
  private var threads: [BackgroundThread] = []

  private struct Slot {
    var transfer: Transfer?
    var failure: BlockIOError.Reason?
  }

  init(hooks: DeviceHooks, queue: WorkQueue, slotCount: Int) {
    self.hooks = hooks
    self.queue = queue
    slots = .allocate(capacity: slotCount)
    slots.initialize(repeating: Slot())
  }

  deinit {
    slots.deinitialize()
    slots.deallocate()
  }

  /// Starts up to `count` threads; one is enough.
  func start(count: Int) throws(BlockIOError) {
    for _ in 0..<count {
      do throws(ThreadError) { threads.append(try BackgroundThread(self)) } catch {
        if threads.isEmpty { throw BlockIOError(error) }
        return
      }
    }
  }

  /// Ends every thread after its current read; queued reads are dropped.
  func stop() {
    queue.stop()
    for thread in threads { thread.join() }
    threads = []
  }

  /// Ends every thread after its current read, without waiting for that.
  func abandon() {
    queue.stop()
    for thread in threads { thread.detach() }
    threads = []
  }

  /// Gives a transfer to the threads.
  func begin(_ transfer: Transfer, slot: Int) {
    slots[slot] = Slot(transfer: transfer)
    queue.push(slot)
  }

  /// Takes a finished transfer back, and why it failed if it did.
  func end(slot: Int) -> (Transfer, BlockIOError.Reason?) {
    guard let transfer = slots[slot].transfer else { preconditionFailure("slot \(slot) is free") }
    defer { slots[slot] = Slot() }
    return (transfer, slots[slot].failure)
  }

  func run() {
    while let slot = queue.takePending() {
      if var transfer = slots[slot].transfer {
        slots[slot].failure = transfer.readToEnd(
          hooks: hooks, isStopping: { queue.isStopped })
        slots[slot].transfer = transfer
      }
      queue.finish(slot)
    }
  }
}

extension Transfer {
  /// Reads with `pread` until the request is done; returns why it failed if it did.
  ///
  /// - Parameter isStopping: asked before another attempt; true prevents it.
  mutating func readToEnd(
    hooks: DeviceHooks, isStopping: () -> Bool = { false }
  ) -> BlockIOError.Reason? {
    while true {
      switch readOnce(hooks: hooks) {
      case .finished: return nil
      case .failed(let reason): return reason
      case .again(let nanoseconds):
        if isStopping() { return .system(errno: ECANCELED) }
        Retries.sleep(nanoseconds: nanoseconds)
      }
    }
  }

  /// Makes one attempt with `pread`.
  mutating func readOnce(hooks: DeviceHooks) -> Step {
    isDirect = file.isDirect
    let result = SystemCalls.read(file.descriptor.rawValue, into: nextBytes, at: nextOffset)
    return accept(result: result, hooks: hooks)
  }
}
