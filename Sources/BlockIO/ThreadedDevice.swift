import Glibc
import TensorBasics

/// The back end for places without io_uring: threads that call `pread`, direct I/O where possible.
public final class ThreadedDevice: FileDevice {
  private let workers: ReadingThreads
  private var files: FileSet
  private var freeSlots: [Int]
  /// Where each slot's read goes.
  private var destinations: [UnsafeMutableRawBufferPointer?]
  private var recorder = StatisticsRecorder()
  private var isAbandoned = false
  private var openingNotes: [String] = []

  public let capacity: Int

  /// Opens `paths` for at most `queueDepth` reads at a time, served by up to `threadCount` threads.
  ///
  /// - Throws: the error of opening a file, or of starting the first thread.
  public convenience init(
    paths: [String], queueDepth: Int, threadCount: Int = 8
  ) throws(BlockIOError) {
    try self.init(
      paths: paths, queueDepth: queueDepth, threadCount: threadCount, hooks: DeviceHooks())
  }

  package init(
    paths: [String], queueDepth: Int, threadCount: Int = 8, hooks: DeviceHooks
  ) throws(BlockIOError) {
    precondition(queueDepth > 0 && threadCount > 0, "a device needs room for one read")
    capacity = queueDepth
    freeSlots = Array((0..<queueDepth).reversed())
    destinations = Array(repeating: nil, count: queueDepth)
    files = try FileSet(paths: paths, direct: true, hooks: hooks)
    workers = ReadingThreads(
      hooks: hooks, queue: try WorkQueue(capacity: queueDepth), slotCount: queueDepth)
    try workers.start(count: min(threadCount, queueDepth))
  }

  deinit { workers.stop() }

  public var fileByteCounts: [Int] { files.byteCounts }
  public var alignment: Int { files.alignment }
  public var inFlight: Int { recorder.inFlight }
  public var notes: [String] { openingNotes + files.notes }
  public var statistics: IOStatistics {
    recorder.snapshot(at: monotonicNanoseconds())
  }

  /// Adds a line on why this back end is in use.
  func addNote(_ note: String) { openingNotes.append(note) }

  public func open(path: String) throws(BlockIOError) -> Int { try files.open(path: path) }
  public func close(fileIndex: Int) { files.close(fileIndex) }
  public func checkUnchanged() throws(BlockIOError) { try files.checkUnchanged() }
  public func fileIdentities() throws(BlockIOError) -> [FileIdentity] { try files.identities() }

  public func submit(_ request: ReadRequest) throws(BlockIOError) {
    guard !isAbandoned else { throw .afterAbandonment }
    files.checkContract(request, inFlight: recorder.inFlight, capacity: capacity)
    let now = monotonicNanoseconds()
    let slot = freeSlots.removeLast()
    recorder.began(at: now)
    destinations[slot] = request.destination
    workers.begin(
      Transfer(request, files[request.fileIndex], at: now), slot: slot)
  }

  /// Nothing to do: threads take reads as they are submitted.
  public func flush() throws(BlockIOError) {}

  /// Detaches the threads: each ends after its current read, whenever that is.
  public func abandonReads() {
    guard recorder.inFlight > 0 else { return }
    for case let destination? in destinations { AbandonedMemory.keep(destination) }
    workers.abandon()
    isAbandoned = true
    addNote(BlockIOError.abandonmentNote)
    recorder.gaveUp(at: monotonicNanoseconds())
  }

  public func reap(
    waiting: Bool, timeoutMilliseconds: Int?
  ) throws(BlockIOError) -> ReadCompletion? {
    let deadline = Deadline(timeoutMilliseconds: timeoutMilliseconds)
    while recorder.inFlight > 0 {
      if let slot = workers.queue.popDone() { return try complete(slot) }
      guard waiting else { return nil }
      let start = monotonicNanoseconds()
      let isDone = try workers.queue.waitForDone(nanoseconds: deadline.remainingNanoseconds)
      recorder.waited(nanoseconds: monotonicNanoseconds() - start)
      guard isDone else { return nil }
    }
    return nil
  }

  private func complete(_ slot: Int) throws(BlockIOError) -> ReadCompletion {
    let (transfer, failure) = workers.end(slot: slot)
    freeSlots.append(slot)
    destinations[slot] = nil
    recorder.ended(transfer, at: monotonicNanoseconds())
    if let failure { throw files.error(transfer, failure) }
    return ReadCompletion(tag: transfer.request.tag, byteCount: transfer.expectedByteCount)
  }
}
