import Glibc
import HostResources

/// Why an operation on a file or device failed: what was tried, where, and the system's reason.
public struct BlockIOError: Error, Sendable, Equatable, CustomStringConvertible {
  /// What was being done, as it reads after "cannot".
  public enum Operation: String, Sendable {
    case open
    case inspect
    case read
    case create
    case write
    case allocate = "reserve memory for"
    case setUpRing = "set up io_uring"
    case submit = "hand reads to io_uring"
    case wait = "wait for reads"
    case startThreads = "start a thread"
  }

  /// Why it failed.
  public enum Reason: Sendable, Equatable {
    /// The system's error number.
    case system(errno: Int32)
    /// The file ends before bytes that were there when it was opened.
    case truncated
    /// The path names another file than the one opened.
    case replaced
    /// Size or modification time differ from those at opening.
    case modified
    /// Reads were abandoned on this device, which accepts no further ones.
    case abandoned
    /// Neither a regular file nor a block device; the text says what it is, e.g. "a directory".
    case notReadable(kind: String)
    /// Not a regular file, and only regular files are replaced; the text says what it is, e.g. "a pipe".
    case notWritable(kind: String)
    /// An output that is also a file being read, or another output.
    case inUse(as: String)
    /// An empty path.
    case unnamed
    /// A path that leads to an open file of a process, whatever its name, e.g. `/dev/stdout`.
    case openElsewhere
  }

  public let operation: Operation
  /// The file, where one was involved.
  public let path: String?
  /// First byte of the failed range, for reads and writes.
  public let offset: Int?
  /// Bytes of the failed read or write.
  public let byteCount: Int?
  public let reason: Reason
  /// The tag of the request that failed, where one did.
  public let tag: UInt64?

  public init(
    _ operation: Operation, path: String? = nil, offset: Int? = nil, byteCount: Int? = nil,
    reason: Reason, tag: UInt64? = nil
  ) {
    self.operation = operation
    self.path = path
    self.offset = offset
    self.byteCount = byteCount
    self.reason = reason
    self.tag = tag
  }

  /// A refused thread, for work on the file at `path`.
  init(_ error: ThreadError, path: String? = nil) {
    self.init(.startThreads, path: path, reason: .system(errno: error.errno))
  }

  /// What a device throws after it abandoned reads.
  static let afterAbandonment = BlockIOError(.read, reason: .abandoned)
  /// The message for people.
  static let abandonmentNote =
    "reads that may still be in flight were abandoned; their memory is not freed"

  /// The same error with another name for the file.
  package func named(_ path: String) -> BlockIOError {
    BlockIOError(
      operation, path: path, offset: offset, byteCount: byteCount, reason: reason, tag: tag)
  }

  /// The same error with another request tag.
  func tagged(_ tag: UInt64?) -> BlockIOError {
    BlockIOError(
      operation, path: path, offset: offset, byteCount: byteCount, reason: reason, tag: tag)
  }

  /// The system's error number, where the system gave one.
  public var errno: Int32? {
    if case .system(let errno) = reason { errno } else { nil }
  }

  /// Whether the path names nothing: command-line tools exit with 66.
  public var isMissingFile: Bool { operation == .open && [ENOENT, ENOTDIR, ELOOP].contains(errno) }

  /// Whether a file in use is no longer what its path names; what was opened can still be read.
  public var isReplacement: Bool {
    reason == .replaced || (operation == .inspect && errno == ENOENT)
  }

  public var description: String {
    var text = "cannot \(operation.rawValue)"
    if let byteCount { text += " \(byteCount) bytes" }
    if let offset { text += " at offset \(offset)" }
    if let path {
      text += byteCount == nil && offset == nil ? " '\(path)'" : " of '\(path)'"
    }
    return text + ": " + reason.description + remedy
  }

  /// Which limit was reached and how to raise it, where the system's number tells of one.
  private var remedy: String {
    guard let errno else { return "" }
    switch operation {
    case .startThreads:
      return LimitRemedy.threads(errno: errno) + LimitRemedy.descriptors(errno: errno)
    case .setUpRing:
      return LimitRemedy.lockedMemory(errno: errno) + LimitRemedy.descriptors(errno: errno)
    default: return LimitRemedy.descriptors(errno: errno)
    }
  }
}

extension BlockIOError.Reason: CustomStringConvertible {
  public var description: String {
    switch self {
    case .system(let errno): "\(String(cString: strerror(errno))) (errno \(errno))"
    case .truncated: "the file ends earlier than when it was opened"
    case .replaced: "the file was replaced by another while in use"
    case .abandoned: "earlier reads never ended, so the device is no longer used"
    case .modified: "the file was changed while in use"
    case .notReadable(let kind): "it is \(kind), not a regular file or block device"
    case .notWritable(let kind): "it is \(kind); only a regular file is replaced"
    case .inUse(let other): "it is the same file as '\(other)', which is in use"
    case .unnamed: "the path is empty; name a file"
    case .openElsewhere:
      "it stands for a file that a process has open, which cannot be replaced; name the file itself"
    }
  }
}
