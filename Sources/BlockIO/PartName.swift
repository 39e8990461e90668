import Glibc
import TensorBasics

/// Files that are being written, beside the place where they will be.
///
/// Its writer holds its lock: a file whose lock is free was left by a killed process.
package enum PartName {
  private static let mark = ".part-"
  private static let digitCount = 16
  private static let nameByteLimit = 255

  /// A name beside `place` that cannot be predicted.
  static func next(beside place: OutputPlace) -> String {
    let digits = String(UInt64.random(in: .min ... .max), radix: 16)
    return place.folder + prefix(of: place)
      + String(repeating: "0", count: digitCount - digits.count) + digits
  }

  private static func prefix(of place: OutputPlace) -> String {
    // A long name is cut, between characters.
    var name = place.name.unicodeScalars
    while name.reduce(0, { $0 + UTF8.width($1) }) > nameByteLimit - mark.utf8.count - digitCount {
      name.removeLast()
    }
    return String(name) + mark
  }

  /// Creates a file beside `place`: without a name where the file system can do that and it can be
  /// given one later, else under a temporary one.
  static func create(
    beside place: OutputPlace, mode: mode_t
  ) throws(BlockIOError) -> (descriptor: Int32, temporaryPath: String?) {
    let unnamed = SystemCalls.open(
      place.folder, O_RDWR | O_CLOEXEC | __O_TMPFILE | O_DIRECTORY, mode: mode)
    if unnamed >= 0 {
      // Its name will come by way of /proc.
      if access("/proc/self/fd/\(unnamed)", F_OK) == 0 { return (unnamed, nil) }
      close(unnamed)
    }
    while true {
      let path = next(beside: place)
      let flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC
      let raw = SystemCalls.open(path, flags, mode: mode)
      if raw >= 0 { return (raw, path) }
      guard raw == -EEXIST else {
        throw BlockIOError(.create, path: place.path, reason: .system(errno: -raw))
      }
    }
  }

  /// Removes temporary files of `place` that killed processes left.
  static func removeAbandoned(of place: OutputPlace) {
    let prefix = prefix(of: place)
    for name in (try? FolderListing.names(in: place.folder)) ?? []
    where name.utf8.starts(with: prefix.utf8) {
      let digits = name.utf8.dropFirst(prefix.utf8.count)
      guard digits.count == digitCount,
        UInt64(String(decoding: digits, as: UTF8.self), radix: 16) != nil
      else { continue }
      removeAbandoned(place.folder + name)
    }
  }

  /// Removes a file that has no writer any more: a writer would hold its lock.
  package static func removeAbandoned(_ path: String) {
    let flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY
    let raw = SystemCalls.open(path, flags)
    guard raw >= 0 else { return }
    if SystemCalls.lock(raw, LOCK_EX | LOCK_NB) == 0 { SystemCalls.remove(path) }
    close(raw)
  }

  /// Waits until the names in a folder are on the drive; not all file systems can be asked.
  ///
  /// - Throws: ``BlockIOError`` if they may be lost.
  package static func syncFolder(_ path: String) throws(BlockIOError) {
    let raw = SystemCalls.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    // A folder may be written to and not be read.
    if raw == -EACCES { return }
    guard raw >= 0 else { throw BlockIOError(.write, path: path, reason: .system(errno: -raw)) }
    let folder = UnixDescriptor(owning: raw)
    let status = SystemCalls.synchronise(folder.rawValue)
    guard status == 0 || status == -EROFS || (-status).isLackOfSupport else {
      throw BlockIOError(.write, path: path, reason: .system(errno: -status))
    }
  }
}

extension UnixDescriptor {
  /// Writes `bytes` at `offset`; nil, or the error number and how many bytes were written before it.
  package borrowing func writeAll(
    _ bytes: UnsafeRawBufferPointer, at offset: Int
  ) -> (errno: Int32, written: Int)? {
    var written = 0
    while written < bytes.count {
      let rest = UnsafeRawBufferPointer(rebasing: bytes[written...])
      let count = SystemCalls.write(rawValue, rest, at: offset + written)
      if count == -Int(EINTR) { continue }
      guard count > 0 else { return (count < 0 ? Int32(-count) : ENOSPC, written) }
      written += count
    }
    return nil
  }
}
