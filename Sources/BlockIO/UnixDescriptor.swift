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
  /// Never blocks: opening a pipe nobody writes to returns at once, for the caller to refuse.
  package init(
    readingFrom path: String, bypassingPageCache: Bool
  ) throws(BlockIOError) {
    let flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK
    let descriptor = path.withSystemPath {
      Glibc.open($0, flags | (bypassingPageCache ? __O_DIRECT : 0))
    }
    guard descriptor >= 0 else {
      throw BlockIOError(.open, path: path, reason: .system(errno: errno))
    }
    rawValue = descriptor
  }

  /// A counter that one thread bumps and another sleeps on.
  package init(eventCounter: Void) throws(BlockIOError) {
    let descriptor = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
    guard descriptor >= 0 else {
      throw BlockIOError(.startThreads, reason: .system(errno: errno))
    }
    rawValue = descriptor
  }

  deinit { Glibc.close(rawValue) }

  /// Whether reads bypass the page cache.
  package var bypassesPageCache: Bool { fcntl(rawValue, F_GETFL) & __O_DIRECT != 0 }

  /// Makes reads bypass the page cache or not; also drops `O_NONBLOCK`, with which io_uring would
  /// hand buffered reads back instead of waiting for them.
  package borrowing func setBypassingPageCache(_ bypassing: Bool) -> Bool {
    fcntl(rawValue, F_SETFL, bypassing ? __O_DIRECT : 0) == 0
  }
}
