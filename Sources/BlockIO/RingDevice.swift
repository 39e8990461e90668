import Glibc
import TensorBasics

/// The io_uring back end: direct I/O, one system call for many reads, no thread of its own.
public final class RingDevice: BlockDevice {
  private let ring: Ring
  private let files: FileSet
  private let hooks: DeviceHooks
  private let hasRegisteredFiles: Bool
  private var buffers = RegisteredBuffers()
  /// One per read in flight; a slot's index travels through the kernel with its read.
  private var transfers: [Transfer?]
  private var freeSlots: [Int]
  private var recorder = StatisticsRecorder()
  private var ringNotes: [String] = []

  public let capacity: Int

  /// Opens `paths` for at most `queueDepth` reads at a time; fewer where memory may not be locked
  /// for more.
  ///
  /// - Throws: the error of opening a file, or of setting up the ring.
  public convenience init(paths: [String], queueDepth: Int) throws(BlockIOError) {
    try self.init(paths: paths, queueDepth: queueDepth, hooks: DeviceHooks())
  }

  package init(paths: [String], queueDepth: Int, hooks: DeviceHooks) throws(BlockIOError) {
    precondition(queueDepth > 0, "a device needs room for one read")
    let files = try FileSet(paths: paths, direct: true, hooks: hooks)
    let depth = min(queueDepth, Self.maximumDepth)
    if let refusal = hooks.ringSetupErrno?(), refusal != 0 {
      throw BlockIOError(.setUpRing, reason: .system(errno: refusal))
    }
    // One entry more than reads: old kernels need it for the timeout of a wait.
    let ring = try Ring(entryCount: depth + 1)
    hasRegisteredFiles = ring.register(descriptors: files.files.map { $0.descriptor.rawValue }) == 0
    self.files = files
    self.hooks = hooks
    capacity = depth
    transfers = Array(repeating: nil, count: depth)
    freeSlots = Array((0..<depth).reversed())
    self.ring = ring
  }

  /// Far more than any drive needs; keeps ring memory small.
  static let maximumDepth = 1024

  /// Waits for reads the kernel holds: their destinations belong to the caller, who may free them
  /// once the device is gone.
  deinit {
    while recorder.inFlight > ring.unsubmittedCount {
      if let event = ring.nextEvent() {
        recorder.ended(startedAt: transfers[event.slot]?.startNanoseconds ?? 0, at: 0)
        continue
      }
      let status = ring.wait(nanoseconds: nil)
      guard status >= 0 || status == -EINTR || status == -EAGAIN else { break }
    }
  }

  public var fileByteCounts: [Int] { files.byteCounts }
  public var alignment: Int { files.alignment }
  public var inFlight: Int { recorder.inFlight }
  public var notes: [String] { ringNotes + files.notes }
  public var statistics: IOStatistics {
    recorder.snapshot(at: monotonicNanoseconds())
  }

  public func checkUnchanged() throws(BlockIOError) { try files.checkUnchanged() }
  public func fileIdentities() throws(BlockIOError) -> [FileIdentity] { try files.identities() }

  public func register(_ region: UnsafeMutableRawBufferPointer) {
    guard let note = buffers.add(region, to: ring, hooks: hooks) else { return }
    ringNotes.append(note)
  }

  public func unregister(_ region: UnsafeMutableRawBufferPointer) {
    buffers.remove(region, from: ring)
  }

  public func submit(_ request: ReadRequest) throws(BlockIOError) {
    files.checkContract(request, inFlight: recorder.inFlight, capacity: capacity)
    let now = monotonicNanoseconds()
    let slot = freeSlots.removeLast()
    recorder.began(at: now)
    transfers[slot] = Transfer(
      request, fileByteCount: files[request.fileIndex].byteCount, at: now)
    queue(slot)
  }

  /// Puts the next attempt of a transfer into the ring's queue.
  private func queue(_ slot: Int) {
    guard var transfer = transfers[slot] else { return }
    let fileIndex = transfer.request.fileIndex
    let file = files[fileIndex]
    transfer.isDirect = file.isDirect
    transfers[slot] = transfer
    let queued = ring.queueRead(
      hasRegisteredFiles ? .registered(index: fileIndex) : .descriptor(file.descriptor.rawValue),
      offset: transfer.nextOffset, into: transfer.nextBytes,
      bufferIndex: buffers.index(containing: transfer.nextBytes), slot: slot)
    precondition(queued, "the ring has an entry for every read in flight")
  }

  public func flush() throws(BlockIOError) {
    var attempts = 0
    while ring.unsubmittedCount > 0 {
      let status = ring.submit()
      guard status <= 0 else { continue }
      attempts += 1
      let isTransient = [0, -EINTR, -EAGAIN, -EBUSY].contains(status)
      guard isTransient, attempts <= Transfer.maximumFruitlessCount else {
        throw BlockIOError(.submit, reason: .system(errno: status == 0 ? EAGAIN : -status))
      }
    }
  }

  public func reap(
    waiting: Bool, timeoutMilliseconds: Int?
  ) throws(BlockIOError) -> ReadCompletion? {
    let deadline = Deadline(timeoutMilliseconds: timeoutMilliseconds)
    while recorder.inFlight > 0 {
      while let event = ring.nextEvent() {
        if let completion = try settle(event) { return completion }
      }
      try flush()
      guard waiting, try sleep(until: deadline) else { return nil }
    }
    return nil
  }

  /// Sleeps for a result; false where there is none for a signal or the deadline.
  private func sleep(until deadline: Deadline) throws(BlockIOError) -> Bool {
    let start = monotonicNanoseconds()
    let status = ring.wait(nanoseconds: deadline.remainingNanoseconds)
    recorder.waited(nanoseconds: monotonicNanoseconds() - start)
    switch status {
    case 0..., -EAGAIN, -EBUSY: return true
    case -EINTR, -ETIME: return false
    default: throw BlockIOError(.wait, reason: .system(errno: -status))
    }
  }

  /// Completes, continues or fails the read an event belongs to.
  private func settle(_ event: Ring.Event) throws(BlockIOError) -> ReadCompletion? {
    guard var transfer = transfers[event.slot] else { return nil }
    var step = transfer.accept(
      result: event.result, file: files[transfer.request.fileIndex], hooks: hooks)
    if case .again = step, event.result == -Int(ECANCELED) {
      // The kernel may start no thread for a read that waits, or the thread that submitted has ended.
      switch transfer.readToEnd(files[transfer.request.fileIndex], hooks: hooks) {
      case nil: step = .finished
      case .some(let reason): step = .failed(reason)
      }
    }
    if case .again = step {
      transfers[event.slot] = transfer
      queue(event.slot)
      return nil
    }
    transfers[event.slot] = nil
    freeSlots.append(event.slot)
    recorder.ended(transfer, at: monotonicNanoseconds())
    if case .failed(let reason) = step { throw files.error(transfer, reason) }
    return ReadCompletion(tag: transfer.request.tag, byteCount: transfer.expectedByteCount)
  }
}
