import Glibc

/// The threads of a ``ThreadedDevice`` and the transfers they work on.
final class ReadingThreads: @unchecked Sendable {
  // Safety: `slots[i]` belongs to whoever took slot i from the queue or the free list, and the queue
  // orders memory; `threads` is touched by the coordinator alone; the rest is constant.

  let files: FileSet
  let queue: WorkQueue
  private let hooks: DeviceHooks
  private let slots: UnsafeMutableBufferPointer<Slot>
  private var threads: [pthread_t] = []

  private struct Slot {
    var transfer: Transfer?
    var failure: BlockIOError.Reason?
  }

  /// Enough for `pread` and what surrounds it; pages never touched cost nothing.
  private static let stackByteCount = 256 << 10

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
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setstacksize(&attributes, Self.stackByteCount)
    // Signals are for the program's own threads.
    var (all, previous) = (sigset_t(), sigset_t())
    sigfillset(&all)
    pthread_sigmask(SIG_BLOCK, &all, &previous)
    defer { pthread_sigmask(SIG_SETMASK, &previous, nil) }
    for _ in 0..<count {
      var thread = pthread_t()
      let context = Unmanaged.passRetained(self)
      let status = pthread_create(
        &thread, &attributes,
        { context in
          guard let context else { return nil }
          Unmanaged<ReadingThreads>.fromOpaque(context).takeRetainedValue().run()
          return nil
        }, context.toOpaque())
      guard status == 0 else {
        context.release()
        if threads.isEmpty {
          throw BlockIOError(.startThreads, reason: .system(errno: status))
        }
        return
      }
      threads.append(thread)
    }
  }

  /// Ends every thread after its present read; queued reads are dropped.
  func stop() {
    queue.stop()
    for thread in threads { pthread_join(thread, nil) }
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

  private func run() {
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
