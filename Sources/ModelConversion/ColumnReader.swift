import Kernels
import ModelFormat
import TensorBasics
import WeightLoader

/// Brings stacked matrices that a folder stores transposed, row by row.
struct ColumnReader: ~Copyable {
  private let source: ModelSource
  private let reader: PieceReader
  /// Columns as they are stored, then the rows that they become.
  private let memory: AlignedBuffer
  private let halfByteCount: Int

  /// Long enough for a few KiB of each stored row.
  private static let chunkByteCount = 16 << 20

  /// - Parameters:
  ///   - source: its device must not be in use by others.
  ///   - records: the tensors that will be read.
  init(_ source: ModelSource, for records: [TensorRecord]) throws(ConversionError) {
    let byteCount =
      records.map {
        Self.rowsPerChunk($0, source) * Self.step($0, source) * $0.columnCount
          * $0.type.blockByteCount
      }.max() ?? 0
    let memory: AlignedBuffer
    do { memory = try AlignedBuffer(byteCount: 2 * byteCount) } catch { throw .allocation(error) }
    let reader = try PieceReader(source: source)
    self.source = source
    self.memory = memory
    self.reader = reader
    halfByteCount = byteCount
  }

  /// Stored columns from one row to the next.
  private static func step(_ record: TensorRecord, _ source: ModelSource) -> Int {
    guard case .transposed(_, let step, _) = source.description.derivations[record.name] else {
      preconditionFailure("the tensor is not transposed")
    }
    return step
  }

  /// Rows that are read at a time.
  static func rowsPerChunk(_ record: TensorRecord, _ source: ModelSource) -> Int {
    let size = record.type.blockByteCount * step(record, source)
    let groups = min(
      chunkByteCount / (RowGroup.rowCount * record.columnCount * size),
      PieceReader.pieceByteLimit / (RowGroup.rowCount * size))
    return min(max(1, groups) * RowGroup.rowCount, record.partRowCount)
  }

  /// Reads the matrix of one expert, and hands each chunk to `use`: its rows and the address of the first.
  func read(
    _ record: TensorRecord, expert: Int,
    _ use: (_ rows: Range<Int>, _ address: UnsafeRawPointer) throws(ConversionError) -> Void
  ) throws(ConversionError) {
    let part = record.part(expert)
    let step = Self.rowsPerChunk(record, source)
    for first in stride(from: 0, to: part.rowCount, by: step) {
      let rows = first..<min(first + step, part.rowCount)
      let address = try transposed(part, rows)
      try source.checkFinite(part, rows: rows, address)
      try use(rows, address)
    }
  }

  /// Rows of a matrix: the same elements of every stored row.
  private func transposed(
    _ part: TensorRecord, _ rows: Range<Int>
  ) throws(ConversionError) -> UnsafeRawPointer {
    guard
      case .transposed(let firstColumn, let step, let width) =
        source.description.derivations[part.name]
    else { preconditionFailure("the tensor is not transposed") }
    let size = part.type.blockByteCount
    let (stored, turned) = (memory.address, memory.address + halfByteCount)
    // Columns that other matrices have between are read too.
    let (first, place) = (firstColumn - firstColumn % step, firstColumn % step)
    let pieceByteCount = rows.count * step * size
    try reader.read(
      fileIndex: part.fileIndex, offset: part.offset + (first + rows.lowerBound * step) * size,
      pieceByteCount: pieceByteCount, stride: width * size, count: part.columnCount,
      into: stored)
    Transposition.transpose(
      UnsafeRawPointer(stored) + place * size, rowByteCount: pieceByteCount,
      rowCount: part.columnCount, columnCount: rows.count, columnStep: step,
      elementByteCount: size, to: turned, columnByteCount: part.columnCount * size)
    return UnsafeRawPointer(turned)
  }
}
