package import Glibc
import TensorBasics

/// The system calls on files that BlockIO and KVCache make: the one door that a test's `FaultPlan`
/// stands at.
///
/// Results are what the call returns, or the negated error number, as io_uring gives them.
package enum SystemCalls {
  package static func open(_ path: String, _ flags: Int32, mode: mode_t = 0) -> Int32 {
    call(.open) { path.withSystemPath { Glibc.open($0, flags, mode) } }
  }

  /// A new file in `folder`, whose name is gone.
  static func openUnnamed(in folder: String) -> Int32 {
    while true {
      let path = "\(folder)/flashinfer-\(UInt64.random(in: .min ... .max))"
      let flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC
      let descriptor = open(path, flags, mode: 0o600)
      if descriptor >= 0 { _ = path.withSystemPath { unlink($0) } }
      if descriptor != -EEXIST { return descriptor }
    }
  }

  package static func inspect(_ descriptor: Int32, _ status: inout stat) -> Int32 {
    call(.inspect) { fstat(descriptor, &status) }
  }

  /// - Parameter followsLinks: whether the end of a symbolic link is meant, or the link.
  package static func inspect(
    _ path: UnsafePointer<CChar>, followsLinks: Bool, _ status: inout stat
  ) -> Int32 {
    call(.inspect) { followsLinks ? stat(path, &status) : lstat(path, &status) }
  }

  /// The size of a file, or of what lies behind a device node.
  static func byteCount(_ descriptor: Int32) -> Int {
    call(.inspect) { lseek(descriptor, 0, SEEK_END) }
  }

  static func setStatusFlags(_ descriptor: Int32, _ flags: Int32) -> Int32 {
    call(.adjust) { fcntl(descriptor, F_SETFL, flags) }
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
    call(.truncate) { ftruncate(descriptor, byteCount) }
  }

  package static func synchronise(_ descriptor: Int32) -> Int32 {
    call(.sync) { fsync(descriptor) }
  }

  package static func rename(_ path: String, to name: String) -> Int32 {
    call(.rename) {
      path.withSystemPath { path in name.withSystemPath { Glibc.rename(path, $0) } }
    }
  }

  package static func lock(_ descriptor: Int32, _ operation: Int32) -> Int32 {
    call(.lock) { flock(descriptor, operation) }
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
