import CLinuxURing
import Glibc
import TensorBasics

/// An open file descriptor, closed when it goes out of scope.
package struct UnixDescriptor: ~Copyable {
  package let rawValue: Int32

  /// Takes ownership of `rawValue`.
  package init(owning rawValue: Int32) { self.rawValue = rawValue }

  /// Opens `path` for reading.
  ///
  /// Never blocks: opening a pipe without a writer returns at once, for the caller to refuse.
  package init(
    readingFrom path: String, bypassingPageCache: Bool
  ) throws(BlockIOError) {
    let flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK
    let descriptor = SystemCalls.open(path, flags | (bypassingPageCache ? __O_DIRECT : 0))
    guard descriptor >= 0 else {
      throw BlockIOError(.open, path: path, reason: .system(errno: -descriptor))
    }
    rawValue = descriptor
  }

  /// A new file in `folder` for reading and writing that no other process can open, because it has no name.
  ///
  /// - Parameter refusal: the error number with which a test refuses direct I/O; 0 = as the system does.
  package init(
    temporaryIn folder: String, bypassingPageCache: Bool, refusal: Int32 = 0
  ) throws(BlockIOError) {
    let flags = O_RDWR | O_CLOEXEC | __O_TMPFILE | O_DIRECTORY | O_EXCL
    var descriptor = refusal == 0 ? -ENOTSUP : -refusal
    if bypassingPageCache, refusal == 0 {
      descriptor = SystemCalls.open(folder, flags | __O_DIRECT, mode: 0o600)
    }
    if (-descriptor).isLackOfSupport {
      descriptor = SystemCalls.open(folder, flags, mode: 0o600)
    }
    // Kernels that do not know of such files take the folder for what is to be opened.
    if (-descriptor).isLackOfSupport || descriptor == -EISDIR {
      // File systems without such files: one whose name is taken away at once.
      descriptor = SystemCalls.openUnnamed(in: folder)
      if descriptor >= 0, bypassingPageCache, refusal == 0 {
        _ = SystemCalls.setStatusFlags(descriptor, __O_DIRECT)
      }
    }
    guard descriptor >= 0 else {
      throw BlockIOError(.create, path: folder, reason: .system(errno: -descriptor))
    }
    rawValue = descriptor
  }

  /// The path by which this process can open the same file once more, whatever its name.
  package var path: String { "/proc/self/fd/\(rawValue)" }

  /// A counter that one thread bumps and another sleeps on.
  package init(eventCounter: Void) throws(BlockIOError) {
    let descriptor = SystemCalls.whole(.open) { eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK)) }
    guard descriptor >= 0 else {
      throw BlockIOError(.startThreads, reason: .system(errno: -descriptor))
    }
    rawValue = descriptor
  }

  deinit { Glibc.close(rawValue) }

  /// Whether reads bypass the page cache.
  package var bypassesPageCache: Bool { fcntl(rawValue, F_GETFL) & __O_DIRECT != 0 }

  /// Makes reads bypass the page cache or not; also drops `O_NONBLOCK`, with which io_uring would
  /// hand buffered reads back instead of waiting for them.
  ///
  /// - Returns: 0 or the negated error number.
  package borrowing func setBypassingPageCache(_ bypassing: Bool) -> Int32 {
    SystemCalls.setStatusFlags(rawValue, bypassing ? __O_DIRECT : 0)
  }
}
