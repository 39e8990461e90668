import Kernels
import ModelFormat
import TensorBasics

/// Compares each reading of a run with its first reading, which was compared with the
/// image's checksums.
///
/// A run need not be whole extents, so it has a checksum of its own: that of the checksums of its chunks,
/// which the pool's workers take.
final class RereadVerifier: ParallelRegion {
  private let pool: ThreadPool?
  private var checksums: [UInt64]
  private var isKnown: [Bool]
  /// The current run, and the checksums of its chunks.
  private var bytes = UnsafeRawBufferPointer(start: nil, count: 0)
  private let chunks: UnsafeMutableBufferPointer<UInt64>

  private static let chunkByteCount = 128 << 10

  /// - Parameter pool: nil = the caller alone.
  init(_ runs: [ResidencyPlan.Run], pool: ThreadPool?) {
    self.pool = pool
    checksums = [UInt64](repeating: 0, count: runs.count)
    isKnown = [Bool](repeating: false, count: runs.count)
    let longest = runs.lazy.map(\.byteCount).max() ?? 0
    chunks = .allocate(capacity: longest / Self.chunkByteCount + 1)
    chunks.initialize(repeating: 0)
  }

  deinit { chunks.deallocate() }

  /// Whether a run's bytes are those of its first reading; true for the first.
  func matches(_ bytes: UnsafeRawBufferPointer, run: Int) -> Bool {
    self.bytes = bytes
    let count = (bytes.count + Self.chunkByteCount - 1) / Self.chunkByteCount
    if let pool {
      pool.run(count: count, self)
    } else {
      for index in 0..<count { perform(index: index, worker: 0) }
    }
    let found = Checksum.of(
      UnsafeRawBufferPointer(UnsafeMutableBufferPointer(rebasing: chunks[..<count])))
    guard isKnown[run] else {
      checksums[run] = found
      isKnown[run] = true
      return true
    }
    return checksums[run] == found
  }

  func perform(index: Int, worker: Int) {
    let start = index * Self.chunkByteCount
    chunks[index] = Checksum.of(
      UnsafeRawBufferPointer(
        rebasing: bytes[start..<min(start + Self.chunkByteCount, bytes.count)]))
  }
}
