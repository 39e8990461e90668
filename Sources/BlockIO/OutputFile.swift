import Glibc
import TensorBasics

/// A file being written, which takes its name when it is complete and on the drive.
///
/// Until ``commit()`` nothing at its path changes; without it, the file is removed. Until then it has no name
/// if the file system can do that, so that a killed process leaves nothing behind; otherwise
/// it is called `….part-` and sixteen digits, and the next one to write the same path removes it. A file
/// that is replaced keeps its mode and owner.
///
/// After a write that failed nothing is known of the pages that were dropped with it, and a later `fsync`
/// may report success. The file is therefore given up, and every later call throws the same error.
public final class OutputFile {
  /// Where the file will be, as the user called it.
  public var path: String { place.path }

  private let place: OutputPlace
  private let descriptor: UnixDescriptor
  /// The temporary name; nil while there is none.
  private var temporaryPath: String?
  /// Where the file that was replaced waits until the whole set has its names.
  private var keptPath: String?
  private var hasName = false
  /// The error that made the file be given up.
  private var failure: BlockIOError?

  /// Creates the file without its name and reserves its room, so that a full drive is noticed before
  /// work begins.
  ///
  /// - Parameters:
  ///   - path: a regular file, which is replaced, or nothing; a link stands for the file that it names.
  ///   - inputs: files, or folders of files, that are being read: none of them is ever replaced.
  /// - Throws: ``BlockIOError`` if no file may be written there, or the folder cannot be written to or
  ///   has too little room.
  public init(
    path: String, reserving byteCount: Int, inputs: [String]
  ) throws(BlockIOError) {
    place = try OutputPlace(path, inputs: inputs)
    PartName.removeAbandoned(of: place)
    // The replacement of a private file must not be readable by others while it is written.
    let mode: mode_t = place.previous == nil ? 0o666 : 0o600
    let created = try PartName.create(beside: place, mode: mode)
    descriptor = UnixDescriptor(owning: created.descriptor)
    temporaryPath = created.temporaryPath
    // Tells other processes that the file is being written, also those in other containers.
    _ = SystemCalls.lock(descriptor.rawValue, LOCK_EX | LOCK_NB)
    let status = SystemCalls.reserve(descriptor.rawValue, byteCount: byteCount)
    guard status == 0 || (-status).isLackOfSupport else {
      throw BlockIOError(
        .write, path: path, offset: 0, byteCount: byteCount, reason: .system(errno: -status))
    }
  }

  deinit { if let temporaryPath { SystemCalls.remove(temporaryPath) } }

  /// Writes `bytes` at `offset`.
  public func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(BlockIOError) {
    if let failure { throw failure }
    guard let (errno, written) = descriptor.writeAll(bytes, at: offset) else { return }
    throw giveUp(
      BlockIOError(
        .write, path: path, offset: offset + written, byteCount: bytes.count - written,
        reason: .system(errno: errno)))
  }

  /// Writes `bytes` at `offset`.
  public func write(_ bytes: [UInt8], at offset: Int) throws(BlockIOError) {
    var failure: BlockIOError?
    bytes.withUnsafeBytes { bytes in
      do throws(BlockIOError) { try write(bytes, at: offset) } catch { failure = error }
    }
    if let failure { throw failure }
  }

  /// Hands what was written in `range` to the drive and drops it from the page cache.
  public func flushAndDropCache(_ range: Range<Int>) throws(BlockIOError) {
    try synchronise(SystemCalls.synchroniseData)
    posix_fadvise(descriptor.rawValue, range.lowerBound, range.count, POSIX_FADV_DONTNEED)
  }

  /// Makes the file durable and gives it its name, in place of whatever had it.
  public func commit() throws(BlockIOError) { try Self.commit([self]) }

  /// Makes all files durable, then gives them their names: all of them or, where one is refused,
  /// none, and what was there before is there again.
  ///
  /// Where the process is killed between two names each file is whole, but the set is not; its readers
  /// see that.
  public static func commit(_ files: [OutputFile]) throws(BlockIOError) {
    for file in files { try file.makeDurable() }
    do throws(BlockIOError) {
      for file in files {
        if files.count > 1 { try file.keepPrevious() }
        try file.publish()
      }
      for file in files { try file.syncFolder() }
    } catch {
      for file in files.reversed() { file.undo(isAlone: files.count == 1) }
      throw error
    }
    for file in files { file.forgetPrevious() }
  }

  /// Throws if two files would lie at one place.
  static func checkDistinct(_ files: [OutputFile]) throws(BlockIOError) {
    for (index, file) in files.enumerated() {
      for other in files[..<index] where try other.place.isSame(as: file.place) {
        throw BlockIOError(.create, path: file.path, reason: .inUse(as: other.path))
      }
    }
  }
}

// MARK: Steps of appearing

extension OutputFile {
  /// Waits until the file's name is on the drive.
  private func syncFolder() throws(BlockIOError) {
    do throws(BlockIOError) { try PartName.syncFolder(place.folder) } catch {
      // A file beside nothing but a name has the folder `./`, which nobody named.
      throw error.named(path)
    }
  }

  /// Waits until the file is on the drive.
  private func makeDurable() throws(BlockIOError) {
    if let failure { throw failure }
    inheritAttributes()
    try synchronise(SystemCalls.synchronise)
    // This descriptor keeps the lock meanwhile.
    try synchronise(SystemCalls.closeDuplicate)
  }

  /// - Parameter call: returns 0 or a negated error number.
  private func synchronise(_ call: (Int32) -> Int32) throws(BlockIOError) {
    if let failure { throw failure }
    let status = call(descriptor.rawValue)
    guard status == 0 else {
      throw giveUp(BlockIOError(.write, path: path, reason: .system(errno: -status)))
    }
  }

  private func giveUp(_ error: BlockIOError) -> BlockIOError {
    failure = error
    return error
  }

  /// Owner and mode of the file that is replaced, as far as this user may give them.
  private func inheritAttributes() {
    guard let previous = place.previous else { return }
    var mode = previous.st_mode & 0o7777
    if fchown(descriptor.rawValue, previous.st_uid, previous.st_gid) != 0 {
      // Set-user-ID and set-group-ID would apply to another owner or group than before.
      mode &= 0o1777
      // The permissions of the group would apply to another group than before.
      if fchown(descriptor.rawValue, uid_t.max, previous.st_gid) != 0 { mode &= 0o1707 }
    }
    fchmod(descriptor.rawValue, mode)
  }

  /// Gives the file that is replaced a temporary name.
  private func keepPrevious() throws(BlockIOError) {
    guard try place.current() != nil else { return }
    let kept = PartName.next(beside: place)
    // File systems without links can only move it away.
    if SystemCalls.link(place.target, to: kept) != 0 {
      try checkNamed(SystemCalls.rename(place.target, to: kept))
    }
    keptPath = kept
  }

  /// Gives a durable file its name.
  private func publish() throws(BlockIOError) {
    if try place.current() == nil, temporaryPath == nil,
      SystemCalls.link(descriptor.rawValue, to: place.target) == 0
    {
      hasName = true
      return
    }
    while temporaryPath == nil {
      let name = PartName.next(beside: place)
      let status = SystemCalls.link(descriptor.rawValue, to: name)
      if status == -EEXIST { continue }
      try checkNamed(status)
      temporaryPath = name
    }
    if let temporaryPath { try checkNamed(SystemCalls.rename(temporaryPath, to: place.target)) }
    self.temporaryPath = nil
    hasName = true
  }

  /// - Parameter status: 0 or a negated error number.
  private func checkNamed(_ status: Int32) throws(BlockIOError) {
    guard status == 0 else {
      throw BlockIOError(.create, path: path, reason: .system(errno: -status))
    }
  }

  /// Restores what was there. A file that replaced another on its own stays: it is complete.
  private func undo(isAlone: Bool) {
    if let keptPath {
      _ = SystemCalls.rename(keptPath, to: place.target)
      // Where both were still names of one file, renaming did nothing.
      SystemCalls.remove(keptPath)
    } else if hasName, !(isAlone && place.previous != nil) {
      SystemCalls.remove(place.target)
    }
    keptPath = nil
    hasName = false
  }

  private func forgetPrevious() {
    if let keptPath { SystemCalls.remove(keptPath) }
    keptPath = nil
  }
}
