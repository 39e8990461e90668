import CommandLineSupport
import Glibc
import Kernels
import TensorBasics

/// What DRAM gives, as the limit that figures are compared with.
enum MemoryLimit {
  /// What all threads of `pool` read together.
  static func bytesPerSecond(_ pool: ThreadPool) throws -> Double {
    let buffer = try AlignedBuffer(byteCount: 256 << 20, prefersHugePages: true)
    // Pages that were never written are one page of zeros.
    memset(buffer.address, 1, buffer.byteCount)
    return MemoryBandwidth.bytesPerSecond(
      reading: UnsafeRawBufferPointer(start: buffer.address, count: buffer.byteCount),
      passCount: 8, pool: pool)
  }
}
