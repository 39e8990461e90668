import Synchronization
import TensorBasics

/// Parts of tensors in memory of their own, until the object is gone.
///
/// May outlive the loader; any thread may read it and let go of it.
public final class LoadedTensors: Sendable {
  /// The parts asked for.
  public let parts: [TensorPart]
  private let ranges: [Range<Int>]
  private let rowRanges: [Range<Int>]
  private let memory: HeldMemory

  init(
    _ parts: [TensorPart], rows: [Range<Int>], ranges: [Range<Int>], in memory: HeldMemory
  ) {
    self.parts = parts
    rowRanges = rows
    self.ranges = ranges
    self.memory = memory
  }

  /// Bytes of `parts[index]`.
  public func byteCount(_ index: Int = 0) -> Int { ranges[index].count }

  /// The rows of the part that these bytes are: those asked for, or of interleaved ones their whole groups.
  public func rows(_ index: Int = 0) -> Range<Int> { rowRanges[index] }

  /// Hands the bytes of `parts[index]` to `body`, during whose call they are valid.
  public func withBytes<Result, Failure>(
    _ index: Int = 0, _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    defer { extendLifetime(self) }
    return try body(bytes(index))
  }

  /// The bytes of `parts[index]`; valid while the object lives, which its last use in Swift ends.
  package func bytes(_ index: Int = 0) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory.bytes)[ranges[index]])
  }
}

/// Memory within a loader's budget for tensors, until the object is gone. It may outlive the loader.
public final class HeldMemory: Sendable {
  private let buffer: AlignedBuffer
  private let account: MemoryAccount

  /// - Throws: ``LoaderError/tensorsInUse(wanted:free:limit:)``, ``LoaderError/allocation(_:)``.
  init(byteCount: Int, of account: MemoryAccount) throws(LoaderError) {
    let buffer: AlignedBuffer
    do { buffer = try AlignedBuffer(byteCount: byteCount) } catch { throw .allocation(error) }
    try account.take(buffer.byteCount)
    self.buffer = buffer
    self.account = account
  }

  deinit { account.giveBack(buffer.byteCount) }

  /// All of it, zero at first; valid while the object lives, which its last use in Swift ends.
  package var bytes: UnsafeMutableRawBufferPointer { buffer.bytes }

  /// Calls `body` with the bytes, which are valid during the call. Threads agree among themselves who writes.
  public func withBytes<Result, Failure>(
    _ body: (inout MutableRawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    defer { extendLifetime(self) }
    var span = bytes.mutableBytes
    return try body(&span)
  }
}

/// What of a budget for tensors is in use.
final class MemoryAccount: Sendable {
  let limit: Int
  private let used = Mutex(0)

  init(limit: Int) { self.limit = limit }

  func take(_ byteCount: Int) throws(LoaderError) {
    let free = used.withLock { used in
      let free = limit - used
      if free >= byteCount { used += byteCount }
      return free
    }
    guard free >= byteCount else {
      throw .tensorsInUse(
        wanted: ByteCount(byteCount), free: ByteCount(free), limit: ByteCount(limit))
    }
  }

  func giveBack(_ byteCount: Int) { used.withLock { $0 -= byteCount } }
}
