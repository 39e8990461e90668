import BlockIO
import Glibc
import ModelFormat
import TensorBasics
import WeightLoader

/// Brings equally long pieces of a file, at equal distances, and lays them next to each other.
struct PieceReader: ~Copyable {
  let source: ModelSource
  private let buffer: AlignedBuffer

  /// The longest piece.
  static let pieceByteLimit = 1 << 20
  /// How neighbouring bytes are cut: short enough for several reads at a time.
  private static let cutByteCount = 256 << 10
  private static let bufferByteCount = 8 << 20

  /// - Parameter source: its device must not be in use by others.
  init(source: ModelSource) throws(ConversionError) {
    self.source = source
    do { buffer = try AlignedBuffer(byteCount: Self.bufferByteCount) } catch {
      throw .allocation(error)
    }
  }

  /// Reads `count` pieces of `pieceByteCount`, `stride` apart from `offset` on; neighbouring pieces
  /// may be of any length, others are at most ``pieceByteLimit`` long.
  func read(
    fileIndex: Int, offset: Int, pieceByteCount: Int, stride: Int, count: Int,
    into destination: UnsafeMutableRawPointer
  ) throws(ConversionError) {
    let total = pieceByteCount * count
    let isOnePiece = stride == pieceByteCount
    let length = isOnePiece ? Self.cutByteCount : pieceByteCount
    let distance = isOnePiece ? length : stride
    precondition(length <= Self.pieceByteLimit, "too long a piece")
    func piece(_ number: Int) -> Extent {
      Extent(
        fileIndex: fileIndex, offset: offset + number * distance,
        byteCount: min(length, total - number * length))
    }
    let pieceCount = (total + length - 1) / length
    let alignment = max(source.device.alignment, 1)
    let slotByteCount = AlignedBuffer.roundedUp(length) + 2 * AlignedBuffer.pageByteCount
    let slotCount = min(source.device.capacity, Self.bufferByteCount / slotByteCount, pieceCount)
    var pieceInSlot = Array(0..<slotCount)
    do throws(ConversionError) {
      for slot in 0..<slotCount {
        try submit(piece(slot).aligned(to: alignment), slot, slotByteCount)
      }
      var next = slotCount
      for _ in 0..<pieceCount {
        let completion = try arrival()
        let slot = Int(completion.tag)
        let number = pieceInSlot[slot]
        let wanted = piece(number)
        let start = wanted.offset - wanted.aligned(to: alignment).offset
        guard completion.byteCount >= start + wanted.byteCount else {
          throw .format(
            FormatError(
              .truncated, at: wanted.offset - start + completion.byteCount,
              path: source.description.files[fileIndex],
              "the file ends here; it was complete when it was opened"))
        }
        memcpy(
          destination + number * length, buffer.address + slot * slotByteCount + start,
          wanted.byteCount)
        guard next < pieceCount else { continue }
        pieceInSlot[slot] = next
        try submit(piece(next).aligned(to: alignment), slot, slotByteCount)
        next += 1
      }
    } catch {
      // The buffer may go once nothing writes to it any more.
      source.device.drain()
      throw error
    }
  }

  private func submit(
    _ range: Extent, _ slot: Int, _ slotByteCount: Int
  ) throws(ConversionError) {
    do throws(BlockIOError) {
      try source.device.submit(
        ReadRequest(
          fileIndex: range.fileIndex, offset: range.offset,
          destination: UnsafeMutableRawBufferPointer(
            start: buffer.address + slot * slotByteCount, count: range.byteCount),
          tag: UInt64(slot)))
    } catch { throw .io(error) }
  }

  private func arrival() throws(ConversionError) -> ReadCompletion {
    do { return try source.device.nextCompletion() } catch { throw .io(error) }
  }
}
