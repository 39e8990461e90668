import Glibc
import NIOCore

/// An address that the system does not let the server listen on.
struct ListenFailure: Error, CustomStringConvertible {
  let description: String

  /// nil where it is another error.
  init?(_ error: any Error, _ options: ServerOptions) {
    guard let code = (error as? IOError)?.errnoCode,
      [EADDRINUSE, EACCES, EADDRNOTAVAIL].contains(code)
    else { return nil }
    description =
      "\(options.host), port \(options.port): \(String(cString: strerror(code))); --port gives another, 0 any "
      + "that is free"
  }
}
