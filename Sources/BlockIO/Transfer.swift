import Glibc

/// A read on its way: how far the kernel has come, and what to ask of it next.
///
/// Every back end drives one through the same steps, so that short results, interruptions and file
/// ends mean the same everywhere.
struct Transfer {
  let request: ReadRequest
  let file: OpenFile
  /// Bytes of the request that the file held when it was opened.
  let expectedByteCount: Int
  let startNanoseconds: Int
  /// Whether the last attempt bypassed the page cache.
  var isDirect = false
  private(set) var deliveredByteCount = 0
  /// Bytes the kernel delivered over all attempts.
  private(set) var receivedByteCount = 0
  /// Attempts after the first.
  private(set) var retryCount = 0
  private var retriesWithoutProgress = 0

  /// What follows from an attempt.
  enum Step {
    case finished
    /// Another attempt, after a while where the system is short of something.
    case again(afterNanoseconds: Int)
    case failed(BlockIOError.Reason)
  }

  /// The most one system call is asked for; the kernel itself stops just below 2 GiB.
  static let maximumAttemptByteCount = 1 << 30

  init(_ request: ReadRequest, _ file: OpenFile, at now: Int) {
    self.request = request
    self.file = file
    expectedByteCount = max(0, min(request.destination.count, file.byteCount - request.offset))
    startNanoseconds = now
  }

  /// Where the next attempt reads.
  var nextOffset: Int { request.offset + deliveredByteCount }

  /// Where the next attempt's bytes go.
  var nextBytes: UnsafeMutableRawBufferPointer {
    let rest = UnsafeMutableRawBufferPointer(rebasing: request.destination[deliveredByteCount...])
    return UnsafeMutableRawBufferPointer(
      rebasing: rest[..<min(rest.count, Self.maximumAttemptByteCount)])
  }

  /// Decides what follows from an attempt's result: bytes read or a negated error number.
  mutating func accept(result rawResult: Int, hooks: DeviceHooks) -> Step {
    var result = rawResult
    if let filter = hooks.filterResult {
      result = filter(
        ReadAttempt(
          fileIndex: request.fileIndex, offset: nextOffset, byteCount: nextBytes.count,
          isDirect: isDirect, result: rawResult))
    }
    return result < 0 ? fail(errno: Int32(-result)) : receive(result)
  }

  private mutating func fail(errno: Int32) -> Step {
    let failure = BlockIOError.Reason.system(errno: errno)
    // Other reads of this file may have met the refusal of direct I/O first.
    if errno.isLackOfSupport, isDirect, !file.isDirect || file.stopDirect() {
      return fruitless(errno: errno, otherwise: failure)
    }
    guard errno.isInterruption || errno.isShortage else { return .failed(failure) }
    return fruitless(errno: errno, otherwise: failure)
  }

  private mutating func receive(_ byteCount: Int) -> Step {
    receivedByteCount += byteCount
    let delivered = min(deliveredByteCount + byteCount, expectedByteCount)
    if delivered == expectedByteCount {
      deliveredByteCount = delivered
      // What lies past the end the file had at opening is not part of it, whatever it is now.
      UnsafeMutableRawBufferPointer(rebasing: request.destination[delivered...])
        .initializeMemory(as: UInt8.self, repeating: 0)
      return .finished
    }
    if byteCount == 0 { return .failed(.truncated) }
    let usable = isDirect ? delivered & ~(FileSet.directAlignment - 1) : delivered
    guard usable > deliveredByteCount else { return fruitless(errno: 0, otherwise: .truncated) }
    deliveredByteCount = usable
    retriesWithoutProgress = 0
    retryCount += 1
    return .again(afterNanoseconds: 0)
  }

  private mutating func fruitless(
    errno: Int32, otherwise failure: BlockIOError.Reason
  ) -> Step {
    retriesWithoutProgress += 1
    guard retriesWithoutProgress <= Retries.maximumCount else { return .failed(failure) }
    retryCount += 1
    return .again(
      afterNanoseconds: Retries.delayNanoseconds(after: retriesWithoutProgress, errno: errno))
  }
}
