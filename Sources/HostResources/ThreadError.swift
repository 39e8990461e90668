import Glibc

/// The system refuses a thread.
public struct ThreadError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The system's error number: EAGAIN where a limit is reached or there is no memory for a stack.
  public let errno: Int32

  package init(errno: Int32) { self.errno = errno }

  public var description: String {
    "\(String(cString: strerror(errno))) (errno \(errno))\(LimitRemedy.threads(errno: errno))"
  }
}
