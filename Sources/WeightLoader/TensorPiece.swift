import Synchronization
import TensorBasics

/// Bytes of one tensor that a stream has delivered: a whole part, or whole rows of it.
///
/// Its memory is reused once the piece is gone. A piece may outlive the loader, and any thread may let
/// go of it.
public final class TensorPiece: Sendable {
  /// Index into ``TensorLoader/tensors``.
  public let tensor: Int
  /// Which matrix of a stacked tensor.
  public let part: Int
  /// Bytes of the part before these.
  public let byteOffset: Int
  /// Whether the part ends with these.
  public let isLast: Bool
  private let range: Range<Int>
  private let memory: StreamMemory
  private let sequence: Int

  init(
    _ place: PiecePlace, range: Range<Int>, in memory: StreamMemory, sequence: Int
  ) {
    tensor = place.part.tensor
    part = place.part.part
    byteOffset = place.byteOffset
    isLast = place.isLast
    self.range = range
    self.memory = memory
    self.sequence = sequence
  }

  deinit { memory.giveBack(sequence) }

  public var byteCount: Int { range.count }

  /// Calls `body` with the bytes, which are valid during the call.
  public func withBytes<Result, Failure>(
    _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    defer { extendLifetime(self) }
    return try body(bytes)
  }

  /// The bytes; valid while the piece lives, which its last use in Swift ends.
  package var bytes: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: memory.bytes[range])
  }
}

/// The ring's memory, and the runs whose pieces were given back.
final class StreamMemory: Sendable {
  private let buffer: AlignedBuffer
  private let returned = Mutex<[Int]>([])

  init(byteCount: Int) throws(AllocationError) {
    buffer = try AlignedBuffer(byteCount: byteCount, prefersHugePages: true)
  }

  var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(buffer.bytes) }

  /// Only the device writes to it.
  var destination: UnsafeMutableRawBufferPointer { buffer.bytes }

  /// Notes that a piece of run `sequence` is used no more.
  func giveBack(_ sequence: Int) { returned.withLock { $0.append(sequence) } }

  /// Hands every noted run to `use`, once a note.
  func takeReturned(_ use: (_ sequence: Int) -> Void) {
    let sequences = returned.withLock { list in
      let taken = list
      list.removeAll(keepingCapacity: true)
      return taken
    }
    for sequence in sequences { use(sequence) }
  }
}

/// Whole parts of tensors in memory of their own, until the object is gone.
///
/// May outlive the loader; any thread may read it and let go of it.
public final class LoadedTensors: Sendable {
  /// The parts asked for.
  public let parts: [TensorPart]
  private let ranges: [Range<Int>]
  private let memory: HeldMemory

  init(_ parts: [TensorPart], ranges: [Range<Int>], in memory: HeldMemory) {
    self.parts = parts
    self.ranges = ranges
    self.memory = memory
  }

  /// Bytes of `parts[index]`.
  public func byteCount(_ index: Int = 0) -> Int { ranges[index].count }

  /// Calls `body` with the bytes of `parts[index]`, which are valid during the call.
  public func withBytes<Result, Failure>(
    _ index: Int = 0, _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    defer { extendLifetime(self) }
    return try body(bytes(index))
  }

  /// The bytes of `parts[index]`; valid while the object lives, which its last use in Swift ends.
  package func bytes(_ index: Int = 0) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory.buffer.bytes)[ranges[index]])
  }
}

/// Memory that counts against a loader's budget while it lives.
final class HeldMemory: Sendable {
  let buffer: AlignedBuffer
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
}

/// The part of a budget for tensors that is in use.
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
