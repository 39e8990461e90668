package import Glibc
import TensorBasics

/// The system calls on files that BlockIO and KVCache make, in one place, where a test's `FaultPlan`
/// can make them fail.
///
/// Results are what the call returns, or the negated error number, as io_uring gives them. Calls that a
/// signal interrupts are made again, except reads and writes, whose callers count.
package enum SystemCalls {
  package static func open(_ path: String, _ flags: Int32, mode: mode_t = 0) -> Int32 {
    let isUnnamed = flags & __O_TMPFILE == __O_TMPFILE
    return whole(isUnnamed ? .openUnnamed : .open) {
      path.withSystemPath { Glibc.open($0, flags, mode) }
    }
  }

  /// A new file in `folder` whose name was removed.
  static func openUnnamed(in folder: String) -> Int32 {
    while true {
      let path = "\(folder)/flashinfer-\(UInt64.random(in: .min ... .max))"
      let flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC
      let descriptor = open(path, flags, mode: 0o600)
      if descriptor >= 0 { remove(path) }
      if descriptor != -EEXIST { return descriptor }
    }
  }

  static func makeFolder(_ path: String, mode: mode_t) -> Int32 {
    whole(.open) { path.withSystemPath { mkdir($0, mode) } }
  }

  /// The names in a folder, itself and its parent included, in no order; or the negated error number.
  static func list(_ folder: String, _ names: inout [String]) -> Int32 {
    var listing: OpaquePointer?
    let status = whole(.open) {
      listing = folder.withSystemPath { opendir($0) }
      return listing == nil ? Int32(-1) : 0
    }
    guard status == 0, let listing else { return status }
    defer { closedir(listing) }
    while true {
      errno = 0
      guard let entry = readdir(listing) else { return -errno }
      names.append(
        withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
          String(systemPath: bytes.prefix { $0 != 0 })
        })
    }
  }

  package static func inspect(_ descriptor: Int32, _ status: inout stat) -> Int32 {
    whole(.inspect) { fstat(descriptor, &status) }
  }

  /// - Parameter followsLinks: whether the end of a symbolic link is meant, or the link.
  package static func inspect(
    _ path: UnsafePointer<CChar>, followsLinks: Bool, _ status: inout stat
  ) -> Int32 {
    whole(.inspect) { followsLinks ? stat(path, &status) : lstat(path, &status) }
  }

  /// Bytes that an ordinary process may still write to the file system of `path`; nil if it does not say.
  package static func freeByteCount(at path: String) -> Int? {
    var status = statvfs()
    let outcome = whole(.inspect) { path.withSystemPath { statvfs($0, &status) } }
    guard outcome == 0 else { return nil }
    return Int(clamping: status.f_bavail) &* Int(clamping: status.f_frsize)
  }

  /// Where a path leads once its links are followed; or the negated error number.
  static func resolve(_ path: String, _ target: inout String) -> Int32 {
    whole(.inspect) {
      guard let resolved = path.withSystemPath({ realpath($0, nil) }) else { return Int32(-1) }
      defer { free(resolved) }
      target = String(systemPath: resolved)
      return 0
    }
  }

  /// The path that a link holds; or the negated error number.
  static func readLink(_ path: String, _ target: inout String) -> Int32 {
    whole(.inspect) {
      let room = Int(PATH_MAX)
      var bytes = [UInt8](repeating: 0, count: room)
      let count = bytes.withUnsafeMutableBytes { bytes in
        let characters = bytes.assumingMemoryBound(to: CChar.self)
        return characters.baseAddress.map { start in
          path.withSystemPath { readlink($0, start, room) }
        } ?? -1
      }
      guard count >= 0 else { return Int32(-1) }
      target = String(systemPath: bytes[..<count])
      return 0
    }
  }

  /// The size of a file, or of what lies behind a device node.
  static func byteCount(_ descriptor: Int32) -> Int {
    whole(.inspect) { lseek(descriptor, 0, SEEK_END) }
  }

  static func setStatusFlags(_ descriptor: Int32, _ flags: Int32) -> Int32 {
    whole(.adjust) { fcntl(descriptor, F_SETFL, flags) }
  }

  /// Closes a duplicate of a descriptor: network file systems report at closing what they could not
  /// write, whichever descriptor it is.
  static func closeDuplicate(of descriptor: Int32) -> Int32 {
    let copy = whole(.adjust) { fcntl(descriptor, F_DUPFD_CLOEXEC, 0) }
    guard copy >= 0 else { return copy }
    let status = close(copy) == 0 ? 0 : -errno
    let refusal = FaultPlan.refusal(of: .sync)
    if refusal != 0 { return -refusal }
    // The descriptor is gone whether a signal came or not.
    return status == -EINTR ? 0 : status
  }

  package static func read(
    _ descriptor: Int32, into bytes: UnsafeMutableRawBufferPointer, at offset: Int
  ) -> Int {
    call(.read) { pread(descriptor, bytes.baseAddress, bytes.count, offset) }
  }

  package static func write(
    _ descriptor: Int32, _ bytes: UnsafeRawBufferPointer, at offset: Int
  ) -> Int {
    call(.write) { pwrite(descriptor, bytes.baseAddress, bytes.count, offset) }
  }

  package static func truncate(_ descriptor: Int32, byteCount: Int) -> Int32 {
    whole(.truncate) { ftruncate(descriptor, byteCount) }
  }

  /// Takes room for `byteCount` bytes.
  static func reserve(_ descriptor: Int32, byteCount: Int) -> Int32 {
    whole(.truncate) {
      errno = posix_fallocate(descriptor, 0, byteCount)
      return errno == 0 ? 0 : Int32(-1)
    }
  }

  package static func synchronise(_ descriptor: Int32) -> Int32 {
    whole(.sync) { fsync(descriptor) }
  }

  /// As ``synchronise(_:)``, without what only tells when the file was used.
  static func synchroniseData(_ descriptor: Int32) -> Int32 {
    whole(.sync) { fdatasync(descriptor) }
  }

  package static func lock(_ descriptor: Int32, _ operation: Int32) -> Int32 {
    whole(.lock) { flock(descriptor, operation) }
  }

  // MARK: Names

  package static func rename(_ path: String, to name: String) -> Int32 {
    whole(.rename) {
      path.withSystemPath { path in name.withSystemPath { Glibc.rename(path, $0) } }
    }
  }

  static func link(_ path: String, to name: String) -> Int32 {
    whole(.rename) {
      path.withSystemPath { path in name.withSystemPath { Glibc.link(path, $0) } }
    }
  }

  /// Gives a file without a name one that is free.
  static func link(_ descriptor: Int32, to name: String) -> Int32 {
    let own = "/proc/self/fd/\(descriptor)"
    return whole(.rename) {
      name.withSystemPath { linkat(AT_FDCWD, own, AT_FDCWD, $0, AT_SYMLINK_FOLLOW) }
    }
  }

  /// Removes a file's name. No plan makes it fail, because failures are cleaned up with it.
  ///
  /// - Returns: whether there was one.
  @discardableResult
  package static func remove(_ path: String) -> Bool { path.withSystemPath { unlink($0) == 0 } }

  // MARK: The door

  /// Makes a call again until no signal interrupts it.
  static func whole<Result: SignedInteger>(
    _ kind: FaultPlan.Call, _ body: () -> Result
  ) -> Result {
    while true {
      let result = call(kind, body)
      if result != -Result(EINTR) { return result }
    }
  }

  private static func call<Result: SignedInteger>(
    _ call: FaultPlan.Call, _ body: () -> Result
  ) -> Result {
    let refusal = FaultPlan.refusal(of: call)
    guard refusal == 0 else { return -Result(refusal) }
    let result = body()
    return result < 0 ? -Result(errno) : result
  }
}
