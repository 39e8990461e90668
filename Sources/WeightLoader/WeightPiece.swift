import ModelFormat
public import TensorBasics

/// Whole row groups of one matrix that lie together in a file: what a kernel consumes at once.
public struct WeightPiece: Sendable {
  /// Index into `ModelDescription.tensors`.
  public let tensor: Int
  /// First row of the piece, a multiple of `RowGroup.rowCount`.
  public let firstRow: Int
  /// Rows of the piece; only a tensor's last piece may end inside a group.
  public let rowCount: Int
  /// Index into `ModelDescription.files`.
  public let fileIndex: Int
  /// Byte offset in the file.
  public let offset: Int
  /// Bytes in the file.
  public let byteCount: Int
  /// How the rows lie in the file.
  public let layout: RowLayout
}

/// A tensor cut into pieces, as `ResidencyPlan` places them.
struct PieceCutter {
  /// Upper bound of a piece's bytes; one row group may exceed it.
  let targetByteCount: Int

  /// Cuts `record` (tensor number `tensor`) into pieces of whole row groups.
  ///
  /// Where the group size allows it, cuts fall on multiples of `alignment`, so that no byte is read
  /// twice.
  func cut(_ record: TensorRecord, tensor: Int, alignment: Int) -> [WeightPiece] {
    let groupByteCount = Self.groupByteCount(record)
    let groupCount = RowGroup.groupCount(rows: record.rowCount)
    var step = max(1, targetByteCount / groupByteCount)
    let alignedStep = alignment / Self.greatestCommonDivisor(groupByteCount, alignment)
    if alignedStep <= step { step -= step % alignedStep }
    var pieces: [WeightPiece] = []
    pieces.reserveCapacity((groupCount + step - 1) / step)
    for group in stride(from: 0, to: groupCount, by: step) {
      let firstRow = group * RowGroup.rowCount
      let rowCount = min(step * RowGroup.rowCount, record.rowCount - firstRow)
      let start = group * groupByteCount
      let end = min(start + step * groupByteCount, record.byteCount)
      pieces.append(
        WeightPiece(
          tensor: tensor, firstRow: firstRow, rowCount: rowCount, fileIndex: record.fileIndex,
          offset: record.offset + start, byteCount: end - start, layout: record.layout))
    }
    return pieces
  }

  /// Bytes of sixteen rows as they lie in the file.
  static func groupByteCount(_ record: TensorRecord) -> Int {
    switch record.layout {
    case .interleaved: RowGroup.byteCount(record.type, columnCount: record.columnCount)
    case .rowMajor: RowGroup.rowCount * (record.byteCount / record.rowCount)
    }
  }

  private static func greatestCommonDivisor(_ a: Int, _ b: Int) -> Int {
    b == 0 ? a : greatestCommonDivisor(b, a % b)
  }
}
