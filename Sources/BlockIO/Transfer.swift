import Glibc

/// A read on its way: how far the kernel has come, and what to ask of it next.
///
/// Every back end drives one through the same steps, so that short results, interruptions and file
/// ends mean the same everywhere.
struct Transfer {
  let request: ReadRequest
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
  private var fruitlessCount = 0

  /// What follows from an attempt.
  enum Step {
    case finished
    case again
    case failed(BlockIOError.Reason)
  }

  /// Attempts in a row that may bring nothing.
  static let maximumFruitlessCount = 16
  /// The most one system call is asked for; the kernel itself stops just below 2 GiB.
  static let maximumAttemptByteCount = 1 << 30

  init(_ request: ReadRequest, fileByteCount: Int, at now: Int) {
    self.request = request
    expectedByteCount = max(0, min(request.destination.count, fileByteCount - request.offset))
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

  /// Draws the consequence of an attempt's result: bytes read or a negated error number.
  mutating func accept(result rawResult: Int, file: OpenFile, hooks: DeviceHooks) -> Step {
    var result = rawResult
    if let filter = hooks.filterResult {
      result = filter(
        ReadAttempt(
          fileIndex: request.fileIndex, offset: nextOffset, byteCount: nextBytes.count,
          isDirect: isDirect, result: rawResult))
    }
    return result < 0 ? fail(errno: Int32(-result), file: file) : receive(result)
  }

  private mutating func fail(errno: Int32, file: OpenFile) -> Step {
    switch errno {
    case EINTR, EAGAIN, ECANCELED:  // The last: the thread that submitted has ended.
      return fruitless(otherwise: .failed(.system(errno: errno)))
    case EINVAL where isDirect:
      // Other reads of this file may have met the refusal first.
      guard !file.isDirect || file.stopDirect() else { return .failed(.system(errno: errno)) }
      return fruitless(otherwise: .failed(.system(errno: errno)))
    default:
      return .failed(.system(errno: errno))
    }
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
    guard usable > deliveredByteCount else { return fruitless(otherwise: .failed(.truncated)) }
    deliveredByteCount = usable
    fruitlessCount = 0
    retryCount += 1
    return .again
  }

  private mutating func fruitless(otherwise failure: Step) -> Step {
    fruitlessCount += 1
    guard fruitlessCount <= Self.maximumFruitlessCount else { return failure }
    retryCount += 1
    return .again
  }
}
