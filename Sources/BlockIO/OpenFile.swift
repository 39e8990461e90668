import Glibc
import Synchronization
import TensorBasics

/// One file of a device: descriptor, size and identity as they were at opening.
final class OpenFile: Sendable {
  let path: String
  /// The path as the system takes it: made once, so that asking costs no allocation.
  private let systemPath: [CChar]
  let descriptor: UnixDescriptor
  let byteCount: Int
  /// Whether opening or reading with O_DIRECT was refused where it was wanted.
  var directWasRefused: Bool { wantsDirect && !isDirect }
  private let wantsDirect: Bool
  private let direct: Atomic<Bool>
  private let identity: FileIdentity

  /// Opens `path` for reading, past the page cache where `direct` is set and the file system agrees.
  ///
  /// - Parameter refusal: the error number with which a test refuses direct I/O; 0 = as the system does.
  init(path: String, direct wantsDirect: Bool, refusal: Int32 = 0) throws(BlockIOError) {
    let descriptor = try Self.open(path, direct: wantsDirect, refusal: refusal)
    let status = try Self.status(of: descriptor, path: path)
    if let kind = status.unreadableKind {
      throw BlockIOError(.open, path: path, reason: .notReadable(kind: kind))
    }
    let end = SystemCalls.byteCount(descriptor.rawValue)
    guard end >= 0 else {
      throw BlockIOError(.inspect, path: path, reason: .system(errno: Int32(-end)))
    }
    let isDirect = descriptor.bypassesPageCache
    let outcome = descriptor.setBypassingPageCache(isDirect)
    guard outcome == 0 else {
      throw BlockIOError(.open, path: path, reason: .system(errno: -outcome))
    }
    self.path = path
    systemPath = path.systemPath.map { CChar(bitPattern: $0) } + [0]
    self.wantsDirect = wantsDirect
    direct = Atomic(isDirect)
    identity = FileIdentity(status)
    byteCount = end
    self.descriptor = descriptor
    if !isDirect { adviseExactReads() }
  }

  /// Whether reads bypass the page cache now.
  var isDirect: Bool { direct.load(ordering: .relaxed) }

  /// Reads through the page cache from here on; some file systems accept O_DIRECT at opening and
  /// refuse it at reading. Returns whether that could be arranged.
  func stopDirect() -> Bool {
    guard descriptor.setBypassingPageCache(false) == 0 else { return false }
    direct.store(false, ordering: .relaxed)
    adviseExactReads()
    return true
  }

  /// Throws if the path names another file now, or this one was changed.
  func checkUnchanged() throws(BlockIOError) {
    guard try currentIdentity().isUnmodified(since: identity) else {
      throw BlockIOError(.inspect, path: path, reason: .modified)
    }
    var named = stat()
    let outcome = SystemCalls.inspect(systemPath, followsLinks: true, &named)
    guard outcome == 0 else {
      throw BlockIOError(.inspect, path: path, reason: .system(errno: -outcome))
    }
    guard FileIdentity(named).isSameFile(as: identity) else {
      throw BlockIOError(.inspect, path: path, reason: .replaced)
    }
  }

  /// What the file is now, whatever its path names.
  func currentIdentity() throws(BlockIOError) -> FileIdentity {
    FileIdentity(try Self.status(of: descriptor, path: path))
  }

  /// The file's size now; nil if the system will not say.
  var currentByteCount: Int? {
    var status = stat()
    guard SystemCalls.inspect(descriptor.rawValue, &status) == 0 else { return nil }
    return status.st_mode & S_IFMT == S_IFREG ? Int(status.st_size) : byteCount
  }

  /// Keeps the kernel from reading ahead: requests are large, and the next one is already queued.
  private func adviseExactReads() {
    posix_fadvise(descriptor.rawValue, 0, 0, POSIX_FADV_RANDOM)
  }

  /// A descriptor for `path`, past the page cache where `direct` is set and accepted.
  private static func open(
    _ path: String, direct: Bool, refusal: Int32
  ) throws(BlockIOError) -> UnixDescriptor {
    guard direct else {
      return try UnixDescriptor(readingFrom: path, bypassingPageCache: false)
    }
    do throws(BlockIOError) {
      guard refusal == 0 else {
        throw BlockIOError(.open, path: path, reason: .system(errno: refusal))
      }
      return try UnixDescriptor(readingFrom: path, bypassingPageCache: true)
    } catch {
      guard error.errno?.isLackOfSupport ?? false else { throw error }
      return try UnixDescriptor(readingFrom: path, bypassingPageCache: false)
    }
  }

  private static func status(
    of descriptor: borrowing UnixDescriptor, path: String
  ) throws(BlockIOError) -> stat {
    var status = stat()
    let outcome = SystemCalls.inspect(descriptor.rawValue, &status)
    guard outcome == 0 else {
      throw BlockIOError(.inspect, path: path, reason: .system(errno: -outcome))
    }
    return status
  }
}
