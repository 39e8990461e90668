import CKernels
import TensorBasics

/// Plain reading of memory, as a measure of what DRAM gives.
public enum MemoryBandwidth {
  /// Reads all of `bytes` with every thread of `pool`, `passCount` times.
  ///
  /// - Parameter bytes: far larger than the caches, aligned to 64.
  /// - Returns: bytes per second.
  public static func bytesPerSecond(
    reading bytes: UnsafeRawBufferPointer, passCount: Int, pool: ThreadPool
  ) -> Double {
    let grain = 256 << 10
    let count = max(1, bytes.count / grain)
    let read = min(grain, bytes.count) & ~255
    guard let base = bytes.baseAddress, read > 0 else { return 0 }
    let address = UInt(bitPattern: base)
    let start = monotonicNanoseconds()
    for _ in 0..<passCount {
      pool.run(count: count) { index, _ in
        _ = ck_read_memory(UnsafeRawPointer(bitPattern: address + UInt(index * grain)), read)
      }
    }
    let seconds = Double(max(1, monotonicNanoseconds() - start)) / 1e9
    return Double(passCount * count * read) / seconds
  }
}
