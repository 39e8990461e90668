import Glibc
import NIOCore

/// Who asks, as shares among clients know it: a key's holder, an address, or a program of this machine.
package struct RequestClient: Sendable, Equatable {
  package var name = ""
  /// The lowest priority value that its requests may have: nobody comes sooner than the key says.
  package var leastPriority = 0

  /// Whoever is at the other end of a connection.
  init(at channel: any Channel) async throws {
    if let address = channel.remoteAddress?.ipAddress {
      name = address
    } else if let process = try await Self.process(at: channel) {
      name = "process \(process)"
    }
  }

  init(name: String = "", leastPriority: Int = 0) {
    self.name = name
    self.leastPriority = leastPriority
  }

  /// `struct ucred` of the C library.
  private struct Credentials {
    var process: Int32 = 0
    var user: UInt32 = 0
    var group: UInt32 = 0
  }

  /// The number of the process that connected to a socket in the file system; nil where the system does not say.
  private static func process(at channel: any Channel) async throws -> Int32? {
    guard let provider = channel as? any SocketOptionProvider else { return nil }
    let credentials: EventLoopFuture<Credentials> = provider.unsafeGetSocketOption(
      level: .socket, name: NIOBSDSocket.Option(rawValue: SO_PEERCRED))
    return try await credentials.get().process
  }
}
