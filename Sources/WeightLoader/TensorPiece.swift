import Synchronization
import TensorBasics

/// Bytes of one tensor that a stream has delivered: a whole part, or whole rows of it if they fit.
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
  /// Whether what was asked for of the part ends with these.
  public let isLast: Bool
  /// Rows of the part that lie whole in these bytes; none, from the row they belong to, where they are less
  /// than a row.
  public let rows: Range<Int>
  private let range: Range<Int>
  private let memory: StreamMemory
  private let sequence: Int

  init(
    _ place: PiecePlace, rows: Range<Int>, range: Range<Int>, in memory: StreamMemory,
    sequence: Int
  ) {
    tensor = place.part.tensor
    part = place.part.part
    byteOffset = place.byteOffset
    isLast = place.isLast
    self.rows = rows
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
