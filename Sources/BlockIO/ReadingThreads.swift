import Glibc
import HostResources

/// The threads of a ``ThreadedDevice`` and the transfers they work on.
final class ReadingThreads: BackgroundWork, @unchecked Sendable {
  // Safety: `slots[i]` belongs to whoever took slot i from the queue or the free list, and the queue
  // orders memory; `threads` is touched by the coordinator alone; the rest is constant.

  let files: FileSet
  let queue: WorkQueue
  private let hooks: DeviceHooks
  private let slots: UnsafeMutableBufferPointer<Slot>
  private var threads: [BackgroundThread] = []

  private struct Slot {
    var transfer: Transfer?
    var failure: BlockIOError.Reason?
  }

  init(files: FileSet, hooks: DeviceHooks, queue: WorkQueue, slotCount: Int) {
    self.files = files
    self.hooks = hooks
    self.queue = queue
    slots = .allocate(capacity: slotCount)
    slots.initialize(repeating: Slot())
  }

  deinit {
    slots.deinitialize()
    slots.deallocate()
  }

  /// Starts up to `count` threads; fewer than asked for will do.
  func start(count: Int) throws(BlockIOError) {
    for _ in 0..<count {
      do throws(ThreadError) { threads.append(try BackgroundThread(self)) } catch {
        if threads.isEmpty { throw BlockIOError(error) }
        return
      }
    }
  }

  /// Ends every thread after its present read; queued reads are dropped.
  func stop() {
    queue.stop()
    for thread in threads { thread.join() }
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
        slots[slot].failure = transfer.readToEnd(files[transfer.request.fileIndex], hooks: hooks)
        slots[slot].transfer = transfer
      }
      queue.finish(slot)
    }
  }
}

extension Transfer {
  /// Reads with `pread` until the request is done; returns why it failed if it did.
  mutating func readToEnd(_ file: OpenFile, hooks: DeviceHooks) -> BlockIOError.Reason? {
    while true {
      isDirect = file.isDirect
      let bytes = nextBytes
      let count = pread(file.descriptor.rawValue, bytes.baseAddress, bytes.count, nextOffset)
      switch accept(result: count < 0 ? -Int(errno) : count, file: file, hooks: hooks) {
      case .finished: return nil
      case .again: continue
      case .failed(let reason): return reason
      }
    }
  }
}
