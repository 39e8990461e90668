import Glibc
import TensorBasics

/// Classes of error numbers: failed calls are judged by these, not by single
/// numbers, which differ among file systems and kernels.
extension Int32 {
  /// A signal came, or the thread that submitted ended: the call can be made again at once.
  package var isInterruption: Bool { self == EINTR || self == ECANCELED }

  /// The system is short of something for a moment: the call can be made again after a while.
  package var isShortage: Bool {
    [EAGAIN, EBUSY, ENOMEM, ENOBUFS].contains(self)
  }

  /// The file system or the kernel does not do what was asked for, such as direct I/O, and it can be
  /// done in another way.
  package var isLackOfSupport: Bool {
    [EINVAL, EOPNOTSUPP, ENOTSUP, ENOSYS, ENOTTY].contains(self)
  }
}

/// How calls that made no progress are repeated: up to ``maximumCount`` times, after 0, 1, 2, 4 … and
/// at most 128 milliseconds if the system is short of something, which is 1.3 s in all.
enum Retries {
  /// Attempts in a row that may make no progress.
  static let maximumCount = 16
  private static let longestNanoseconds = 128_000_000

  /// How long to wait before an attempt that follows `count` without progress.
  static func delayNanoseconds(after count: Int, errno: Int32) -> Int {
    guard errno.isShortage, count > 0 else { return 0 }
    return min(1_000_000 << min(count - 1, 16), longestNanoseconds)
  }

  static func sleep(nanoseconds: Int) {
    guard nanoseconds > 0 else { return }
    var time = timespec(
      tv_sec: nanoseconds / 1_000_000_000, tv_nsec: nanoseconds % 1_000_000_000)
    nanosleep(&time, nil)
  }
}

/// When to repeat a call that the system refused because it was short of something.
struct BackOff {
  private var count = 0
  private(set) var nextNanoseconds = 0

  /// Whether the call is not to be made yet.
  var isPausing: Bool { count > 0 && monotonicNanoseconds() < nextNanoseconds }
  var isNeeded: Bool { count > 0 }

  /// Notes a refusal.
  ///
  /// - Throws: where making the call again makes no sense, or it was made often enough.
  mutating func refused(
    errno: Int32, _ operation: BlockIOError.Operation
  ) throws(BlockIOError) {
    count += 1
    guard errno.isShortage || errno.isInterruption, count <= Retries.maximumCount else {
      self = BackOff()
      throw BlockIOError(operation, reason: .system(errno: errno))
    }
    nextNanoseconds =
      monotonicNanoseconds() + Retries.delayNanoseconds(after: count, errno: errno)
  }

  /// Notes that the call was taken.
  mutating func accepted() { if count > 0 { self = BackOff() } }
}
