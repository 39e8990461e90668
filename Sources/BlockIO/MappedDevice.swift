import CLinuxURing
import Glibc
import TensorBasics

/// The mmap back end: each read maps its range, copies it and drops it again, so that neither the
/// mapping nor the page cache grows with the file.
///
/// The copy is the kernel's (`process_vm_readv`): a page that cannot be had, because the file was
/// truncated or the drive failed, is an error number there and not a SIGBUS. Where that call is
/// forbidden `pread` copies. Reads are done one after the other by `reap`; `flush` starts readahead.
public final class MappedDevice: FileDevice {
  private var files: FileSet
  private let hooks: DeviceHooks
  private var queue: [Transfer] = []
  /// Transfers at the front of `queue` that are done already.
  private var firstIndex = 0
  /// Transfers whose readahead has begun, counted from the start of `queue`.
  private var startedCount = 0
  private var recorder = StatisticsRecorder()

  public let capacity: Int

  /// Opens `paths` for at most `queueDepth` reads at a time.
  public convenience init(paths: [String], queueDepth: Int) throws(BlockIOError) {
    try self.init(paths: paths, queueDepth: queueDepth, hooks: DeviceHooks())
  }

  package init(paths: [String], queueDepth: Int, hooks: DeviceHooks) throws(BlockIOError) {
    precondition(queueDepth > 0, "a device needs room for one read")
    files = try FileSet(paths: paths, direct: false, hooks: hooks)
    self.hooks = hooks
    capacity = queueDepth
    queue.reserveCapacity(queueDepth)
  }

  public var fileByteCounts: [Int] { files.byteCounts }
  public var alignment: Int { files.alignment }
  public var inFlight: Int { recorder.inFlight }
  public var notes: [String] { files.notes }
  public var statistics: IOStatistics {
    recorder.snapshot(at: monotonicNanoseconds())
  }

  public func open(path: String) throws(BlockIOError) -> Int { try files.open(path: path) }
  public func close(fileIndex: Int) { files.close(fileIndex) }
  public func checkUnchanged() throws(BlockIOError) { try files.checkUnchanged() }
  public func fileIdentities() throws(BlockIOError) -> [FileIdentity] { try files.identities() }

  public func submit(_ request: ReadRequest) throws(BlockIOError) {
    files.checkContract(request, inFlight: recorder.inFlight, capacity: capacity)
    let now = monotonicNanoseconds()
    recorder.began(at: now)
    if queue.count == capacity { compact() }
    queue.append(Transfer(request, files[request.fileIndex], at: now))
  }

  /// Drops finished transfers from the front of the queue.
  private func compact() {
    queue.removeFirst(firstIndex)
    startedCount -= firstIndex
    firstIndex = 0
  }

  /// Drops the queue: only ``reap(waiting:timeoutMilliseconds:)`` reads.
  public func abandonReads() {
    firstIndex = queue.count
    startedCount = queue.count
    recorder.gaveUp(at: monotonicNanoseconds())
  }

  public func flush() throws(BlockIOError) {
    while startedCount < queue.count {
      let transfer = queue[startedCount]
      startedCount += 1
      let end = transfer.nextOffset + transfer.expectedByteCount
      // The kernel cuts one call's readahead at the drive's request size, 128 KiB at the least.
      for offset in stride(from: transfer.nextOffset, to: end, by: Self.readaheadByteCount) {
        posix_fadvise(
          transfer.file.descriptor.rawValue, offset,
          min(Self.readaheadByteCount, end - offset), POSIX_FADV_WILLNEED)
      }
    }
  }

  private static let readaheadByteCount = 128 << 10

  /// Completes the oldest read, waiting or not: nil only where the system is short of something for
  /// longer than the timeout.
  public func reap(
    waiting: Bool, timeoutMilliseconds: Int?
  ) throws(BlockIOError) -> ReadCompletion? {
    guard recorder.inFlight > 0 else { return nil }
    try flush()
    let deadline = Deadline(timeoutMilliseconds: timeoutMilliseconds)
    var transfer = queue[firstIndex]
    let start = monotonicNanoseconds()
    var failure: BlockIOError.Reason?
    attempts: while true {
      switch copy(&transfer) {
      case .finished: break attempts
      case .failed(let reason):
        failure = reason
        break attempts
      case .again(let nanoseconds):
        queue[firstIndex] = transfer
        let left = deadline.remainingNanoseconds ?? nanoseconds
        Retries.sleep(nanoseconds: min(nanoseconds, left))
        if nanoseconds > left { return nil }
      }
    }
    firstIndex += 1
    let now = monotonicNanoseconds()
    recorder.waited(nanoseconds: now - start)
    recorder.ended(transfer, at: now)
    if let failure { throw files.error(transfer, failure) }
    return ReadCompletion(tag: transfer.request.tag, byteCount: transfer.expectedByteCount)
  }

  /// Copies one range through a mapping of it, and with `pread` what the mapping cannot deliver.
  private func copy(_ transfer: inout Transfer) -> Transfer.Step {
    let file = transfer.file
    let (offset, count) = (transfer.nextOffset, transfer.expectedByteCount)
    defer { posix_fadvise(file.descriptor.rawValue, offset, count, POSIX_FADV_DONTNEED) }
    if count > 0, transfer.deliveredByteCount == 0, let size = file.currentByteCount,
      size >= offset + count
    {
      let copied = file.copyMapped(
        offset: offset, into: UnsafeMutableRawBufferPointer(rebasing: transfer.nextBytes[..<count]))
      if copied > 0 { return transfer.accept(result: copied, hooks: hooks) }
    }
    return transfer.readOnce(hooks: hooks)
  }
}

extension OpenFile {
  /// Copies a range inside the file through a mapping that lasts for this call; returns the bytes
  /// copied, which may be none.
  fileprivate func copyMapped(
    offset: Int, into destination: UnsafeMutableRawBufferPointer
  ) -> Int {
    let slack = offset % Int(sysconf(Int32(_SC_PAGESIZE)))
    let length = slack + destination.count
    guard FaultPlan.refusal(of: .map) == 0,
      let window = mmap(nil, length, PROT_READ, MAP_SHARED, descriptor.rawValue, offset - slack),
      window != MAP_FAILED
    else { return 0 }
    defer { munmap(window, length) }
    // Fills the page table in one go; kernels before 5.14 fault page by page instead.
    madvise(window, length, MADV_POPULATE_READ)
    var local = iovec(iov_base: destination.baseAddress, iov_len: destination.count)
    var remote = iovec(iov_base: window + slack, iov_len: destination.count)
    return max(0, process_vm_readv(getpid(), &local, 1, &remote, 1, 0))
  }
}
