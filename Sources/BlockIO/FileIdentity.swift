import Glibc
import TensorBasics

/// Which file it is, its size and the time of its last change.
///
/// While two identities of a regular file are equal, its bytes are the same. Writing to a file sets its
/// change time (ctime), which no program can set back as it can the modification time. A rename, a hard
/// link or a change of permissions sets it as well, although the bytes stay the same.
public struct FileIdentity: Hashable, Sendable {
  public let device: UInt64
  public let inode: UInt64
  /// Zero, like the times, for a device node: its own say nothing of the data behind it.
  public let byteCount: Int
  public let modification: Moment
  public let change: Moment
  /// Whether a change of its bytes changes the identity.
  public let isRegular: Bool

  /// A time as the file system keeps it.
  public struct Moment: Hashable, Sendable {
    public let seconds: Int
    public let nanoseconds: Int

    init(_ time: timespec) {
      seconds = Int(time.tv_sec)
      nanoseconds = Int(time.tv_nsec)
    }
  }

  init(_ status: stat) {
    device = UInt64(status.st_dev)
    inode = UInt64(status.st_ino)
    isRegular = status.st_mode & S_IFMT == S_IFREG
    byteCount = isRegular ? Int(status.st_size) : 0
    modification = Moment(isRegular ? status.st_mtim : timespec())
    change = Moment(isRegular ? status.st_ctim : timespec())
  }

  /// The identity of the file at `path`; nil if it cannot be inspected.
  public init?(path: String) {
    var status = stat()
    guard stat(path, &status) == 0 else { return nil }
    self.init(status)
  }

  /// Bytes of ``encoded``.
  public static let encodedByteCount = 56

  /// Device, inode, size, modification and change (seconds, then nanoseconds), each as 8 bytes, least
  /// significant first.
  public var encoded: [UInt8] {
    [
      device, inode, UInt64(byteCount), UInt64(bitPattern: Int64(modification.seconds)),
      UInt64(modification.nanoseconds), UInt64(bitPattern: Int64(change.seconds)),
      UInt64(change.nanoseconds),
    ].flatMap { number in (0..<8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) } }
  }

  /// Whether ``encoded`` bytes are of the same file, changed or not.
  package func isSameFile(asEncoded bytes: ArraySlice<UInt8>) -> Bool {
    let deviceAndInode = 16
    return encoded.prefix(deviceAndInode).elementsEqual(bytes.prefix(deviceAndInode))
  }

  /// Whether both are the same file, changed or not.
  func isSameFile(as other: FileIdentity) -> Bool {
    device == other.device && inode == other.inode
  }

  /// Whether both are the same file with the same size and modification time: what a run watches while it
  /// reads, so that a rename or a new link does not end it.
  func isUnmodified(since other: FileIdentity) -> Bool {
    isSameFile(as: other) && byteCount == other.byteCount && modification == other.modification
  }

  /// Nanoseconds until a change made from then on cannot bear the present change time; at most 0 if that
  /// is so already.
  ///
  /// The kernel's clock for file times steps every 10 ms at most; file systems that keep whole seconds
  /// step every 2 s at most.
  var nanosecondsUntilSettled: Int {
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    let isCoarse = change.nanoseconds == 0 && modification.nanoseconds == 0
    let step = isCoarse ? 2_000_000_000 : 20_000_000
    // Times far off in either direction must not overflow.
    let seconds = min(max(change.seconds - Int(now.tv_sec), -100), 100)
    return seconds * 1_000_000_000 + change.nanoseconds - Int(now.tv_nsec) + step
  }
}

extension BlockDevice {
  /// Waits until any later change to a file must alter its identity, then returns ``fileIdentities()``.
  ///
  /// That is at most 20 ms after a file was written, or 2 s if its file system keeps whole seconds.
  ///
  /// - Returns: nothing if that cannot be had: for device nodes, files from the future and files that
  ///   change all the time.
  public func settledFileIdentities() throws(BlockIOError) -> [FileIdentity] {
    for _ in 0..<4 {
      let identities = try fileIdentities()
      guard identities.allSatisfy(\.isRegular) else { return [] }
      let wait = identities.map(\.nanosecondsUntilSettled).max() ?? 0
      if wait <= 0 { return identities }
      guard wait <= 2_000_000_000 else { return [] }
      usleep(UInt32(wait / 1000 + 1))
    }
    return []
  }
}

extension stat {
  /// What kind of file it is, if neither a regular file nor a block device; otherwise nil.
  var unreadableKind: String? {
    switch st_mode & S_IFMT {
    case S_IFREG, S_IFBLK: nil
    case S_IFDIR: "a directory"
    case S_IFIFO: "a pipe"
    case S_IFCHR: "a character device"
    case S_IFSOCK: "a socket"
    default: "a special file"
    }
  }
}
