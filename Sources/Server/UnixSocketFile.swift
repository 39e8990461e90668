import Glibc

/// A socket in the file system that only its owner can connect to, and that is there as long as the server.
struct UnixSocketFile {
  /// Why a path is not taken.
  struct PathError: Error, CustomStringConvertible {
    let description: String
  }

  let path: String
  /// The process's mask of permissions before.
  private let mask: mode_t

  /// Makes sure that a socket can be made there; a stale one goes.
  ///
  /// Until ``publish()`` or ``remove()`` nothing that the process makes can be opened by others.
  init(_ path: String) throws {
    self.path = path
    if let isSocket = Self.isSocket(path) {
      guard isSocket else {
        throw PathError(description: "\(path) is there, and is no socket")
      }
      guard !Self.isListening(path) else {
        throw PathError(description: "\(path): another program is listening there")
      }
      guard unlink(path) == 0 else {
        throw PathError(description: "\(path): \(String(cString: strerror(errno)))")
      }
    }
    // A mode that is set after the socket is there would come too late for who connects before.
    mask = umask(0o077)
  }

  /// The socket is there and listens.
  func publish() {
    chmod(path, 0o600)
    umask(mask)
  }

  /// The server has ended, or could not begin.
  func remove() {
    umask(mask)
    // What others have made there since is not ours: it listens, or is no socket.
    if Self.isSocket(path) ?? false, !Self.isListening(path) { unlink(path) }
  }

  /// nil = nothing is there.
  private static func isSocket(_ path: String) -> Bool? {
    var status = stat()
    return lstat(path, &status) == 0 ? status.st_mode & S_IFMT == S_IFSOCK : nil
  }

  /// Whether somebody takes connections there, or has so many that the next would have to wait.
  private static func isListening(_ path: String) -> Bool {
    // Swift's module of the C library has them as an enumeration.
    let kinds = [SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC].map { Int32($0.rawValue) }
    let socket = Glibc.socket(AF_UNIX, kinds.reduce(0, |), 0)
    guard socket >= 0 else { return false }
    defer { close(socket) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    let isWhole = withUnsafeMutableBytes(of: &address.sun_path) { room in
      guard bytes.count < room.count else { return false }
      room.copyBytes(from: bytes)
      return true
    }
    guard isWhole else { return false }
    let status = withUnsafePointer(to: &address) { address in
      address.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        connect(socket, address, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    return status == 0 || errno == EAGAIN
  }
}
