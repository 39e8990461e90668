import BlockIO
import ModelFormat
import TensorBasics
import WeightLoader

/// Brings a source's row-major tensors in chunks of whole row groups, each read while the one before
/// it is being worked on.
struct RowChunkReader: ~Copyable {
  private let source: ModelSource
  private let buffers: AlignedBuffer
  private let bufferByteCount: Int

  /// Rows are brought about so many bytes at a time; a single row group may be longer.
  private static let chunkByteCount = 2 << 20

  /// - Parameter source: its device must not be in use by others.
  init(source: ModelSource) throws(ConversionError) {
    self.source = source
    let longest =
      source.description.tensors.map { Self.rowsPerChunk($0) * Self.rowByteCount($0) }.max() ?? 0
    // The aligned range around a chunk is at most two blocks longer.
    bufferByteCount = AlignedBuffer.roundedUp(longest) + 2 * AlignedBuffer.pageByteCount
    do { buffers = try AlignedBuffer(byteCount: 2 * bufferByteCount) } catch {
      throw .allocation(error)
    }
  }

  /// Reads plain tensors, or parts of stacked ones, one after the other, and hands each chunk to `use`:
  /// the index in `records`, its rows and the address of the first.
  func read(
    _ records: [TensorRecord],
    _ use: (_ index: Int, _ rows: Range<Int>, _ address: UnsafeRawPointer) throws(ConversionError)
      -> Void
  ) throws(ConversionError) {
    var chunks: [(index: Int, rows: Range<Int>)] = []
    for (index, record) in records.enumerated() {
      let step = Self.rowsPerChunk(record)
      for start in stride(from: 0, to: record.rowCount, by: step) {
        chunks.append((index, start..<min(start + step, record.rowCount)))
      }
    }
    do throws(ConversionError) {
      for (number, chunk) in chunks.enumerated() {
        let record = records[chunk.index]
        if number == 0 { try submit(record, chunk.rows, buffer: 0) }
        let address = try arrival(record, chunk.rows, buffer: number % 2)
        if number + 1 < chunks.count {
          let next = chunks[number + 1]
          try submit(records[next.index], next.rows, buffer: (number + 1) % 2)
        }
        if !source.isPacked(record) { try source.checkFinite(record, rows: chunk.rows, address) }
        try use(chunk.index, chunk.rows, address)
      }
    } catch {
      // The buffers may go once nothing writes to them any more.
      source.device.drain()
      throw error
    }
  }

  private func submit(
    _ record: TensorRecord, _ rows: Range<Int>, buffer: Int
  ) throws(ConversionError) {
    let range = extent(record, rows)
    do throws(BlockIOError) {
      try source.device.submit(
        ReadRequest(
          fileIndex: range.fileIndex, offset: range.offset,
          destination: UnsafeMutableRawBufferPointer(
            start: buffers.address + buffer * bufferByteCount, count: range.byteCount),
          tag: UInt64(buffer)))
      try source.device.flush()
    } catch { throw .io(error) }
  }

  /// Waits for a chunk and returns the address of its first row.
  private func arrival(
    _ record: TensorRecord, _ rows: Range<Int>, buffer: Int
  ) throws(ConversionError) -> UnsafeRawPointer {
    let range = extent(record, rows)
    let completion: ReadCompletion
    do { completion = try source.device.nextCompletion() } catch { throw .io(error) }
    let start = record.offset + rows.lowerBound * Self.rowByteCount(record)
    let end = record.offset + rows.upperBound * Self.rowByteCount(record)
    guard completion.byteCount >= end - range.offset else {
      throw .format(
        FormatError(
          .truncated, at: range.offset + completion.byteCount,
          path: source.description.files[record.fileIndex],
          "the file ends inside tensor '\(record.name)'; it was complete when it was opened"))
    }
    return UnsafeRawPointer(buffers.address + buffer * bufferByteCount + (start - range.offset))
  }

  private func extent(_ record: TensorRecord, _ rows: Range<Int>) -> Extent {
    let rowByteCount = Self.rowByteCount(record)
    return Extent(
      fileIndex: record.fileIndex, offset: record.offset + rows.lowerBound * rowByteCount,
      byteCount: rows.count * rowByteCount
    ).aligned(to: max(source.device.alignment, 1))
  }

  static func rowByteCount(_ record: TensorRecord) -> Int { record.byteCount / record.rowCount }

  static func rowsPerChunk(_ record: TensorRecord) -> Int {
    let groups = max(1, chunkByteCount / (RowGroup.rowCount * max(1, rowByteCount(record))))
    return min(groups * RowGroup.rowCount, record.rowCount)
  }
}
