import Glibc
import TensorBasics

/// The io_uring back end: direct I/O, one system call for many reads, no thread of its own.
public final class RingDevice: FileDevice {
  private var ring: Ring
  private var files: FileSet
  private let hooks: DeviceHooks
  /// Those that the device was opened with, or none.
  private let registeredFileCount: Int
  private var buffers = RegisteredBuffers()
  /// One per read in flight; a slot's index travels through the kernel with its read.
  private var transfers: [Transfer?]
  private var freeSlots: [Int]
  /// Reads to be tried again, and when; the system was short of something.
  private var delayed: [(slot: Int, nanoseconds: Int)] = []
  /// Whether the kernel recently refused reads, or refused to let this thread sleep for results.
  private var submission = BackOff()
  private var sleeping = BackOff()
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
    // One entry more than reads: old kernels need it for the timeout of a wait.
    let ring = try Ring(entryCount: depth + 1)
    let isRegistered = !paths.isEmpty && ring.register(descriptors: files.descriptors) == 0
    registeredFileCount = isRegistered ? paths.count : 0
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
    var attempts = 0
    while heldCount > 0 {
      if let event = ring.nextEvent() {
        transfers[event.slot] = nil
        attempts = 0
        continue
      }
      let status = ring.wait(nanoseconds: nil)
      guard status < 0, status != -EINTR else { continue }
      attempts += 1
      guard (-status).isShortage, attempts <= Retries.maximumCount else {
        abandonReads()
        break
      }
      Retries.sleep(nanoseconds: Retries.delayNanoseconds(after: attempts, errno: -status))
    }
  }

  /// Reads that the kernel has and whose results were not taken yet.
  private var heldCount: Int {
    let known = transfers.reduce(0) { $1 == nil ? $0 : $0 + 1 }
    return known - delayed.count - ring.unsubmittedCount
  }

  /// Leaves the destinations of reads in flight, and the ring, to the kernel forever.
  public func abandonReads() {
    guard recorder.inFlight > 0 else { return }
    for case let transfer? in transfers { AbandonedMemory.keep(transfer.request.destination) }
    for slot in transfers.indices { transfers[slot] = nil }
    delayed.removeAll()
    ring.isAbandoned = true
    ringNotes.append(BlockIOError.abandonmentNote)
    recorder.gaveUp(at: monotonicNanoseconds())
  }

  public var fileByteCounts: [Int] { files.byteCounts }
  public var alignment: Int { files.alignment }
  public var inFlight: Int { recorder.inFlight }
  public var notes: [String] { ringNotes + files.notes }
  public var statistics: IOStatistics {
    recorder.snapshot(at: monotonicNanoseconds())
  }

  public func open(path: String) throws(BlockIOError) -> Int { try files.open(path: path) }
  public func close(fileIndex: Int) { files.close(fileIndex) }
  public func checkUnchanged() throws(BlockIOError) { try files.checkUnchanged() }
  public func fileIdentities() throws(BlockIOError) -> [FileIdentity] { try files.identities() }

  public func register(_ region: UnsafeMutableRawBufferPointer) {
    guard let note = buffers.add(region, to: ring) else { return }
    ringNotes.append(note)
  }

  public func unregister(_ region: UnsafeMutableRawBufferPointer) {
    // Abandoned reads are never released.
    if !ring.isAbandoned { buffers.remove(region, from: ring) }
  }

  public func submit(_ request: ReadRequest) throws(BlockIOError) {
    guard !ring.isAbandoned else { throw .afterAbandonment }
    files.checkContract(request, inFlight: recorder.inFlight, capacity: capacity)
    let now = monotonicNanoseconds()
    let slot = freeSlots.removeLast()
    recorder.began(at: now)
    transfers[slot] = Transfer(request, files[request.fileIndex], at: now)
    queue(slot)
  }

  /// Puts the next attempt of a transfer into the ring's queue.
  private func queue(_ slot: Int) {
    guard var transfer = transfers[slot] else { return }
    let fileIndex = transfer.request.fileIndex
    let file = transfer.file
    transfer.isDirect = file.isDirect
    transfers[slot] = transfer
    let queued = ring.queueRead(
      fileIndex < registeredFileCount
        ? .registered(index: fileIndex) : .descriptor(file.descriptor.rawValue),
      offset: transfer.nextOffset, into: transfer.nextBytes,
      bufferIndex: buffers.index(containing: transfer.nextBytes), slot: slot)
    precondition(queued, "the ring has an entry for every read in flight")
  }

  /// Where the kernel is short of something for the moment, queued reads wait here, and for `reap` to
  /// hand them over.
  public func flush() throws(BlockIOError) {
    guard !ring.isAbandoned else { return }
    while ring.unsubmittedCount > 0, !submission.isPausing {
      let status = ring.submit()
      if status > 0 {
        submission.accepted()
      } else {
        try submission.refused(errno: status == 0 ? EAGAIN : -status, .submit)
      }
    }
  }

  public func reap(
    waiting: Bool, timeoutMilliseconds: Int?
  ) throws(BlockIOError) -> ReadCompletion? {
    let deadline = Deadline(timeoutMilliseconds: timeoutMilliseconds)
    while recorder.inFlight > 0 {
      while let event = ring.nextEvent() {
        if let completion = try complete(event) { return completion }
      }
      if !delayed.isEmpty { queueDelayed() }
      try flush()
      guard waiting, try sleep(until: deadline) else { return nil }
    }
    return nil
  }

  /// Queues the reads whose time to be tried again has come.
  private func queueDelayed() {
    let now = monotonicNanoseconds()
    for index in delayed.indices.reversed() where delayed[index].nanoseconds <= now {
      queue(delayed.remove(at: index).slot)
    }
  }

  /// Sleeps for a result, or until something is to be tried again; false if there is none for a signal
  /// or the deadline.
  private func sleep(until deadline: Deadline) throws(BlockIOError) -> Bool {
    let start = monotonicNanoseconds()
    var nanoseconds = deadline.remainingNanoseconds
    var isCut = false
    func cut(at moment: Int) {
      let left = max(0, moment - start)
      guard nanoseconds.map({ left < $0 }) ?? true else { return }
      nanoseconds = left
      isCut = true
    }
    for entry in delayed { cut(at: entry.nanoseconds) }
    if submission.isNeeded { cut(at: submission.nextNanoseconds) }
    let status = ring.wait(nanoseconds: nanoseconds)
    defer { recorder.waited(nanoseconds: monotonicNanoseconds() - start) }
    switch status {
    case 0...:
      sleeping.accepted()
      return true
    case -ETIME:
      sleeping.accepted()
      return isCut
    case -EINTR: return false
    default:
      try sleeping.refused(errno: -status, .wait)
      let pause = sleeping.nextNanoseconds - monotonicNanoseconds()
      Retries.sleep(nanoseconds: min(pause, nanoseconds ?? pause))
      return deadline.remainingNanoseconds != 0
    }
  }

  /// Completes, continues or fails the read an event belongs to.
  private func complete(_ event: Ring.Event) throws(BlockIOError) -> ReadCompletion? {
    guard var transfer = transfers[event.slot] else { return nil }
    // The kernel may start no thread for a read that waits, or the thread that submitted has ended: this
    // attempt is made here. Where another one is to follow after a pause, it waits like others.
    let step =
      event.result == -Int(ECANCELED)
      ? transfer.readOnce(hooks: hooks)
      : transfer.accept(result: event.result, hooks: hooks)
    if case .again(let nanoseconds) = step {
      transfers[event.slot] = transfer
      if nanoseconds == 0 {
        queue(event.slot)
      } else {
        delayed.append((event.slot, monotonicNanoseconds() + nanoseconds))
      }
      return nil
    }
    transfers[event.slot] = nil
    freeSlots.append(event.slot)
    recorder.ended(transfer, at: monotonicNanoseconds())
    if case .failed(let reason) = step { throw files.error(transfer, reason) }
    return ReadCompletion(tag: transfer.request.tag, byteCount: transfer.expectedByteCount)
  }
}
