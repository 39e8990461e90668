import Glibc
import TensorBasics

/// Files that are being written, beside the place where they will be.
///
/// Whoever writes one holds its lock: one that nobody holds was left by a killed process.
package enum PartName {
  private static let mark = ".part-"
  private static let digitCount = 16
  private static let nameByteLimit = 255

  /// A name beside `place` that nobody can foresee.
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
    beside place: OutputPlace, mode: mode_t, unnamed: Bool
  ) throws(BlockIOError) -> (descriptor: Int32, temporaryPath: String?) {
    if unnamed {
      let raw = place.folder.withSystemPath {
        open($0, O_RDWR | O_CLOEXEC | __O_TMPFILE | O_DIRECTORY, mode)
      }
      // Its name will come by way of /proc.
      if raw >= 0, access("/proc/self/fd/\(raw)", F_OK) == 0 {
        return (raw, nil)
      }
      if raw >= 0 { close(raw) }
    }
    while true {
      let path = next(beside: place)
      let flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC
      let raw = path.withSystemPath { open($0, flags, mode) }
      if raw >= 0 { return (raw, path) }
      guard errno == EEXIST else {
        throw BlockIOError(.create, path: place.path, reason: .system(errno: errno))
      }
    }
  }

  /// Removes temporary files of `place` that killed processes left.
  static func removeAbandoned(of place: OutputPlace) {
    let prefix = prefix(of: place)
    for name in FolderListing.names(in: place.folder)
    where name.utf8.starts(with: prefix.utf8) {
      let digits = name.utf8.dropFirst(prefix.utf8.count)
      guard digits.count == digitCount,
        UInt64(String(decoding: digits, as: UTF8.self), radix: 16) != nil
      else { continue }
      removeAbandoned(place.folder + name)
    }
  }

  /// Removes a file that nobody writes any more: whoever does holds its lock.
  package static func removeAbandoned(_ path: String) {
    let flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY
    let raw = path.withSystemPath { open($0, flags) }
    guard raw >= 0 else { return }
    if flock(raw, LOCK_EX | LOCK_NB) == 0 { remove(path) }
    close(raw)
  }

  // MARK: Calls; those that answer false leave errno

  @discardableResult
  package static func rename(_ path: String, to other: String) -> Bool {
    path.withSystemPath { path in
      other.withSystemPath { Glibc.rename(path, $0) == 0 }
    }
  }

  @discardableResult
  package static func remove(_ path: String) -> Bool {
    path.withSystemPath { unlink($0) == 0 }
  }

  static func link(_ path: String, to other: String) -> Bool {
    path.withSystemPath { path in
      other.withSystemPath { Glibc.link(path, $0) == 0 }
    }
  }

  /// Gives a file without a name one that nobody has.
  static func link(_ descriptor: borrowing UnixDescriptor, to path: String) -> Bool {
    let own = "/proc/self/fd/\(descriptor.rawValue)"
    return path.withSystemPath {
      linkat(AT_FDCWD, own, AT_FDCWD, $0, AT_SYMLINK_FOLLOW) == 0
    }
  }

  /// Waits until the names in a folder are on the drive.
  ///
  /// - Returns: 0 or the error number; 0 also where folders cannot be synchronised at all.
  package static func syncFolder(_ path: String) -> Int32 {
    let raw = path.withSystemPath { open($0, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
    // A folder may be written to and not be read.
    guard raw >= 0 else { return errno == EACCES ? 0 : errno }
    defer { close(raw) }
    guard fsync(raw) != 0, errno != EINVAL, errno != EROFS else { return 0 }
    return errno
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
      let count = pwrite(rawValue, rest.baseAddress, rest.count, offset + written)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { return (count < 0 ? errno : ENOSPC, written) }
      written += count
    }
    return nil
  }
}
