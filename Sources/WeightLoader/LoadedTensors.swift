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
