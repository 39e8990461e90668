/// Logical files that lie on several files, striped or mirrored: each read is split among them, so that all
/// drives work on it.
///
/// All parts go through one inner device, with io_uring through one ring. A read is complete when all
/// its parts are; where one fails, the read fails once nothing of it is in flight any more.
public final class SplittingDevice: BlockDevice {
  /// A read of the caller's.
  private struct Read {
    var request: ReadRequest
    /// Bytes of the request that are in parts already handed to the inner device.
    var submittedByteCount = 0
    /// Bytes that came from files.
    var deliveredByteCount = 0
    /// Parts in flight.
    var partCount = 0
    var failure: BlockIOError?

    var isSubmitted: Bool { submittedByteCount == request.destination.count }
  }

  /// A part in flight.
  private struct Part {
    var readSlot = 0
    var fileIndex = 0
    var byteCount = 0
  }

  private let inner: any BlockDevice
  private let mapping: ReadMapping
  private var reads: [Read?]
  private var freeReadSlots: [Int]
  /// Reads with parts that wait for room in the inner device; only the first has parts in flight.
  private var pending: SlotQueue
  /// Reads of which nothing is in flight and nothing is left to submit.
  private var done: SlotQueue
  private var parts: [Part]
  private var freePartSlots: [Int]
  /// Bytes in flight on each member, or each copy.
  private var loads: [Int]
  private let fileCount: Int
  /// The copy that was given a part last; ties between idle copies go to the next one.
  private var lastCopy = 0

  public let capacity: Int
  public private(set) var inFlight = 0
  private var isAbandoned = false

  /// Splits reads among the files of `inner`.
  ///
  /// - Parameters:
  ///   - inner: must not be used otherwise from here on; its files are the stripe's members or the
  ///     mirror's copies, in order.
  ///   - queueDepth: reads in flight at most. Parts beyond `inner`'s capacity wait for room.
  public init(_ inner: any BlockDevice, mapping: ReadMapping, queueDepth: Int) {
    precondition(queueDepth > 0, "a device needs room for one read")
    precondition(inner.fileByteCounts.count == mapping.fileCount, "one file for each member")
    precondition(inner.inFlight == 0, "the inner device is in use")
    self.inner = inner
    self.mapping = mapping
    capacity = queueDepth
    reads = Array(repeating: nil, count: queueDepth)
    freeReadSlots = Array((0..<queueDepth).reversed())
    pending = SlotQueue(capacity: queueDepth)
    done = SlotQueue(capacity: queueDepth)
    parts = Array(repeating: Part(), count: inner.capacity)
    freePartSlots = Array((0..<inner.capacity).reversed())
    loads = Array(repeating: 0, count: mapping.wayCount)
    fileByteCounts = mapping.byteCounts
    fileCount = fileByteCounts.count
  }

  public let fileByteCounts: [Int]
  public var alignment: Int { inner.alignment }
  public var notes: [String] { inner.notes }
  /// What the inner device did: bytes, requests and depths are those of parts.
  public var statistics: IOStatistics { inner.statistics }

  public func register(_ region: UnsafeMutableRawBufferPointer) { inner.register(region) }
  public func unregister(_ region: UnsafeMutableRawBufferPointer) { inner.unregister(region) }
  public func checkUnchanged() throws(BlockIOError) { try inner.checkUnchanged() }
  public func fileIdentities() throws(BlockIOError) -> [FileIdentity] {
    try inner.fileIdentities()
  }

  public func submit(_ request: ReadRequest) throws(BlockIOError) {
    guard !isAbandoned else { throw .afterAbandonment }
    precondition(inFlight < capacity, "more reads submitted than the device's capacity")
    precondition((0..<fileCount).contains(request.fileIndex), "no such file in this device")
    precondition(
      request.offset >= 0 && !request.destination.isEmpty, "a read is empty or nowhere")
    let slot = freeReadSlots.removeLast()
    reads[slot] = Read(request: request)
    inFlight += 1
    pending.append(slot)
    pump()
  }

  public func abandonReads() {
    guard inFlight > 0 else { return }
    inner.abandonReads()
    inFlight = 0
    isAbandoned = true
  }

  public func flush() throws(BlockIOError) {
    guard !isAbandoned else { return }
    pump()
    try inner.flush()
  }

  public func reap(
    waiting: Bool, timeoutMilliseconds: Int?
  ) throws(BlockIOError) -> ReadCompletion? {
    let deadline = Deadline(timeoutMilliseconds: timeoutMilliseconds)
    while inFlight > 0 {
      if let slot = done.removeFirst() { return try complete(slot) }
      let remaining = deadline.remainingNanoseconds.map { ($0 + 999_999) / 1_000_000 }
      do throws(BlockIOError) {
        guard let part = try inner.reap(waiting: waiting, timeoutMilliseconds: remaining) else {
          return nil
        }
        partEnded(slot: Int(part.tag), byteCount: part.byteCount, failure: nil)
      } catch {
        // Without a tag it is not a read that failed but the device.
        guard let tag = error.tag else { throw error }
        partEnded(slot: Int(tag), byteCount: 0, failure: error)
      }
      pump()
    }
    return nil
  }

  /// Hands parts to the inner device while it has room.
  private func pump() {
    while inner.inFlight < inner.capacity, let slot = pending.first, var read = reads[slot] {
      let request = read.request
      let part = mapping.part(
        at: read.submittedByteCount, offset: request.offset, byteCount: request.destination.count)
      let fileIndex = part.fileIndex ?? idlestCopy() * fileCount + request.fileIndex
      let start = read.submittedByteCount
      let partSlot = freePartSlots.removeLast()
      parts[partSlot] = Part(readSlot: slot, fileIndex: fileIndex, byteCount: part.byteCount)
      do throws(BlockIOError) {
        try inner.submit(
          ReadRequest(
            fileIndex: fileIndex, offset: part.offset,
            destination: UnsafeMutableRawBufferPointer(
              rebasing: request.destination[start..<start + part.byteCount]),
            tag: UInt64(partSlot)))
        loads[fileIndex / fileCount] += part.byteCount
        read.submittedByteCount += part.byteCount
        read.partCount += 1
      } catch {
        freePartSlots.append(partSlot)
        read.failure = error
        read.submittedByteCount = request.destination.count
      }
      reads[slot] = read
      if read.isSubmitted {
        pending.removeFirst()
        if read.partCount == 0 { done.append(slot) }
      }
    }
  }

  /// The copy with the fewest bytes in flight: a slower drive is given less to do.
  private func idlestCopy() -> Int {
    var best = (lastCopy + 1) % loads.count
    for step in 2..<(loads.count + 1) {
      let copy = (lastCopy + step) % loads.count
      if loads[copy] < loads[best] { best = copy }
    }
    lastCopy = best
    return best
  }

  private func partEnded(slot partSlot: Int, byteCount: Int, failure: BlockIOError?) {
    let part = parts[partSlot]
    freePartSlots.append(partSlot)
    loads[part.fileIndex / fileCount] -= part.byteCount
    guard var read = reads[part.readSlot] else { return }
    read.partCount -= 1
    read.deliveredByteCount += byteCount
    if let failure {
      read.failure = read.failure ?? failure
      if !read.isSubmitted {
        // With parts in flight and others to come it is the first that waits.
        pending.removeFirst()
        read.submittedByteCount = read.request.destination.count
      }
    }
    reads[part.readSlot] = read
    if read.isSubmitted && read.partCount == 0 { done.append(part.readSlot) }
  }

  private func complete(_ slot: Int) throws(BlockIOError) -> ReadCompletion? {
    guard let read = reads[slot] else { return nil }
    reads[slot] = nil
    freeReadSlots.append(slot)
    inFlight -= 1
    if let failure = read.failure { throw failure.tagged(read.request.tag) }
    return ReadCompletion(tag: read.request.tag, byteCount: read.deliveredByteCount)
  }
}
