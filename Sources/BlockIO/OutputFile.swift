import Glibc

/// A file being written under a temporary name, which takes its real name when it is complete.
///
/// Until ``commit()`` nothing at the real path changes; without it, the temporary file is removed.
/// A killed process leaves at most a file named `….part-…` behind, which the next one to write the
/// same path removes.
public struct NewFile: ~Copyable {
  /// Where the file will be.
  public let path: String
  private let temporaryPath: String
  private let descriptor: UnixDescriptor
  private var isCommitted = false

  /// Creates the temporary file beside `path` and reserves its room, so that a full drive is noticed
  /// before work begins.
  ///
  /// - Throws: ``BlockIOError`` where the folder cannot be written to or has too little room.
  public init(path: String, reserving byteCount: Int) throws(BlockIOError) {
    var present = stat()
    guard stat(path, &present) != 0 || present.st_mode & S_IFMT != S_IFDIR else {
      throw BlockIOError(.create, path: path, reason: .system(errno: EISDIR))
    }
    Self.removeAbandonedParts(of: path)
    let temporaryPath = path + Self.partMark + String(getpid())
    let flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC
    let rawDescriptor = Glibc.open(temporaryPath, flags, 0o644)
    guard rawDescriptor >= 0 else {
      throw BlockIOError(.create, path: path, reason: .system(errno: errno))
    }
    // Tells others that the file is being written, also those who do not see this process.
    flock(rawDescriptor, LOCK_EX | LOCK_NB)
    let status = posix_fallocate(rawDescriptor, 0, byteCount)
    guard status == 0 || status == EINVAL || status == EOPNOTSUPP else {
      close(rawDescriptor)
      unlink(temporaryPath)
      throw BlockIOError(
        .write, path: path, offset: 0, byteCount: byteCount, reason: .system(errno: status))
    }
    self.path = path
    self.temporaryPath = temporaryPath
    descriptor = UnixDescriptor(owning: rawDescriptor)
  }

  deinit {
    if !isCommitted { unlink(temporaryPath) }
  }

  /// Writes `bytes` at `offset`.
  public mutating func write(
    _ bytes: UnsafeRawBufferPointer, at offset: Int
  ) throws(BlockIOError) {
    var written = 0
    while written < bytes.count {
      let rest = UnsafeRawBufferPointer(rebasing: bytes[written...])
      let count = pwrite(descriptor.rawValue, rest.baseAddress, rest.count, offset + written)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else {
        throw failure(
          errno: count < 0 ? errno : EIO, offset: offset + written, byteCount: rest.count)
      }
      written += count
    }
  }

  /// Hands what was written in `range` to the drive and drops it from the page cache.
  public mutating func settle(_ range: Range<Int>) {
    fdatasync(descriptor.rawValue)
    posix_fadvise(descriptor.rawValue, range.lowerBound, range.count, POSIX_FADV_DONTNEED)
  }

  /// Makes the file durable and gives it its name, in place of whatever had it.
  public mutating func commit() throws(BlockIOError) {
    try makeDurable()
    try takeName()
  }

  /// Waits until the file is on the drive.
  mutating func makeDurable() throws(BlockIOError) {
    guard fsync(descriptor.rawValue) == 0 else {
      throw BlockIOError(.create, path: path, reason: .system(errno: errno))
    }
  }

  /// Gives a durable file its name.
  mutating func takeName() throws(BlockIOError) {
    guard rename(temporaryPath, path) == 0 else {
      throw BlockIOError(.create, path: path, reason: .system(errno: errno))
    }
    isCommitted = true
    syncFolder()
  }

  /// The new name survives a crash once its folder is on the drive.
  private func syncFolder() {
    let descriptor = Glibc.open(Self.folder(of: path), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { return }
    fsync(descriptor)
    close(descriptor)
  }

  private func failure(errno: Int32, offset: Int, byteCount: Int) -> BlockIOError {
    BlockIOError(
      .write, path: path, offset: offset, byteCount: byteCount, reason: .system(errno: errno))
  }
}

extension NewFile {
  private static let partMark = ".part-"

  private static func folder(of path: String) -> String {
    path.utf8.lastIndex(of: UInt8(ascii: "/")).map { String(path[...$0]) } ?? "."
  }

  /// Removes temporary files of `path` that killed processes left.
  ///
  /// One is left where its process is gone and nobody holds its lock: a process of another container
  /// is not seen, but its lock is.
  private static func removeAbandonedParts(of path: String) {
    let folder = folder(of: path)
    let start = path.utf8.lastIndex(of: UInt8(ascii: "/")).map { path.utf8.index(after: $0) }
    let prefix = String(path[(start ?? path.startIndex)...]) + partMark
    for name in FolderListing.names(in: folder) {
      guard name.utf8.starts(with: prefix.utf8),
        let process = pid_t(
          String(decoding: name.utf8.dropFirst(prefix.utf8.count), as: UTF8.self)),
        process > 0, kill(process, 0) != 0, errno == ESRCH
      else { continue }
      let abandoned = folder == "." ? name : folder + name
      let descriptor = Glibc.open(abandoned, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
      guard descriptor >= 0 else { continue }
      if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { unlink(abandoned) }
      close(descriptor)
    }
  }
}
