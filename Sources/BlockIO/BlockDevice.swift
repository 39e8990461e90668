public import TensorBasics

/// A read of one byte range of one file.
public struct ReadRequest: @unchecked Sendable {
  // Safety: plain values; the destination is lent to one device, and only that device writes to it.

  /// Which of the device's files.
  public var fileIndex: Int
  /// First byte, a multiple of the device's alignment. Ranges may reach past the file's end.
  public var offset: Int
  /// Where the bytes go; its count is the read's length. Address and count are multiples of the
  /// device's alignment. Lent to the device from submission until the completion is reaped.
  public var destination: UnsafeMutableRawBufferPointer
  /// The caller's identifier for this read, returned in its completion.
  public var tag: UInt64

  public init(
    fileIndex: Int, offset: Int, destination: UnsafeMutableRawBufferPointer, tag: UInt64
  ) {
    self.fileIndex = fileIndex
    self.offset = offset
    self.destination = destination
    self.tag = tag
  }
}

/// A read that is done; its destination is the caller's again.
public struct ReadCompletion: Sendable, Equatable {
  /// The request's tag.
  public var tag: UInt64
  /// Bytes that came from the file: the whole request, or less where it reaches past the file's end.
  /// The rest of the destination is zero.
  public var byteCount: Int

  public init(tag: UInt64, byteCount: Int) {
    self.tag = tag
    self.byteCount = byteCount
  }
}

/// A set of read-only files that serves many reads at a time.
///
/// Synchronous: the caller submits, flushes and reaps. Calls must not overlap; they may come from
/// different threads one after the other. Completions come in any order. Destroying a device with
/// reads in flight waits for those the kernel holds, after which no destination is written to.
public protocol BlockDevice: AnyObject {
  /// Size of each file when it was opened.
  var fileByteCounts: [Int] { get }

  /// Offset, length and address of every read are multiples of this: 4096 for direct I/O, 1 where
  /// anything goes.
  var alignment: Int { get }

  /// The most reads that can be in flight.
  var capacity: Int { get }

  /// Reads submitted and not yet reaped.
  var inFlight: Int { get }

  /// Queues a read; ``flush()`` or ``reap(waiting:timeoutMilliseconds:)`` starts it.
  ///
  /// - Precondition: `inFlight < capacity`, and the request is aligned and not empty.
  func submit(_ request: ReadRequest) throws(BlockIOError)

  /// Starts every queued read, with one system call where the kernel has one for it.
  func flush() throws(BlockIOError)

  /// Takes one completion.
  ///
  /// - Parameters:
  ///   - waiting: whether to sleep until there is one.
  ///   - timeoutMilliseconds: the longest sleep; nil for no limit.
  /// - Returns: nil if nothing is complete (yet, or within the timeout), nothing is in flight, or
  ///   a signal arrived during the sleep.
  /// - Throws: the error of one failed read, with its tag; that read is no longer in flight.
  func reap(waiting: Bool, timeoutMilliseconds: Int?) throws(BlockIOError) -> ReadCompletion?

  /// Gives up the reads in flight, because it can no longer be known whether they have ended: memory
  /// of `AlignedBuffer` that they write to is never freed. The device accepts no further reads.
  func abandonReads()

  /// Tells the device that destinations lie in `region`, so that it can register the memory with the
  /// kernel; if that is refused, reads still work and ``notes`` says so.
  ///
  /// Registered pages become resident at once. The region must stay mapped until ``unregister(_:)`` or
  /// the device's end: reads go to the pages that were registered, whatever is mapped there later.
  func register(_ region: UnsafeMutableRawBufferPointer)

  /// Unregisters a region that was given to ``register(_:)``, before its memory is freed.
  ///
  /// - Precondition: nothing is read into it.
  func unregister(_ region: UnsafeMutableRawBufferPointer)

  /// Throws if a file is no longer the one that was opened: replaced, removed or changed.
  func checkUnchanged() throws(BlockIOError)

  /// The present identities of the open files, in their order; empty if the device has no files.
  func fileIdentities() throws(BlockIOError) -> [FileIdentity]

  /// Everything counted since the device was opened.
  var statistics: IOStatistics { get }

  /// One-line warnings for people, e.g. that a slower way of reading is in use.
  var notes: [String] { get }
}

extension BlockDevice {
  public func register(_ region: UnsafeMutableRawBufferPointer) {}
  public func unregister(_ region: UnsafeMutableRawBufferPointer) {}
  public func fileIdentities() throws(BlockIOError) -> [FileIdentity] { [] }

  /// Waits until nothing is in flight, however the reads end: call this before memory is freed that they write
  /// to. If the device cannot even wait, or `cancellation` is raised and the drive does not answer within a
  /// second, the reads are abandoned.
  public func drain(unless cancellation: CancellationFlag? = nil) {
    var patience = Self.patienceSteps
    while inFlight > 0 {
      do {
        if try reap(waiting: true, timeoutMilliseconds: StallWatch.stepMilliseconds) != nil {
          patience = Self.patienceSteps
        } else if cancellation?.isRaised ?? false {
          patience -= 1
          if patience == 0 { return abandonReads() }
        }
      } catch {
        guard error.operation == .read else { return abandonReads() }
      }
    }
  }

  private static var patienceSteps: Int { 10 }

  /// Waits for one read, however often a signal interrupts that.
  ///
  /// - Throws: the error of one failed read; an error where nothing is in flight, so that nothing would come.
  public func nextCompletion() throws(BlockIOError) -> ReadCompletion {
    while inFlight > 0 {
      if let done = try reap(waiting: true, timeoutMilliseconds: nil) { return done }
    }
    throw .afterAbandonment
  }

  /// Reads one range and waits for it; for the few reads outside the stream.
  ///
  /// If that fails, nothing is left in flight.
  ///
  /// - Precondition: nothing is in flight.
  /// - Returns: bytes that came from the file.
  public func readNow(
    fileIndex: Int, offset: Int, into destination: UnsafeMutableRawBufferPointer
  ) throws(BlockIOError) -> Int {
    precondition(inFlight == 0, "readNow while other reads are in flight")
    do {
      try submit(
        ReadRequest(fileIndex: fileIndex, offset: offset, destination: destination, tag: 0))
      return try nextCompletion().byteCount
    } catch {
      drain()
      throw error
    }
  }
}
