import Kernels
import ModelFormat
import TensorBasics
import WeightLoader

extension ModelSource {
  /// Whether a tensor's values are known only once its rows are converted, which checks them.
  func isPacked(_ record: TensorRecord) -> Bool {
    switch description.derivations[record.name] {
    case .packed, .everyOther: true
    case .plusOne, .negatedPower, .values, .transposed, nil: false
    }
  }

  /// Refuses weights that are infinite or NaN.
  ///
  /// - Parameters:
  ///   - columns: the part of each row that lies at `address`, whole blocks; nil = all of it.
  ///   - address: row-major, [rows.count, columns.count].
  /// - Throws: ``ConversionError/format(_:)`` with the tensor, the row and the column.
  func checkFinite(
    _ record: TensorRecord, rows: Range<Int>, columns: Range<Int>? = nil,
    _ address: UnsafeRawPointer
  ) throws(ConversionError) {
    let columns = columns ?? 0..<record.columnCount
    guard
      let place = WeightValues.firstNotFinite(
        address, type: record.type, columnCount: columns.count, rowCount: rows.count)
    else { return }
    let (row, column) = (rows.lowerBound + place.row, columns.lowerBound + place.column)
    throw .format(
      FormatError(
        .malformed,
        at: offset(of: record, row: row, column: column),
        path: description.files[record.fileIndex],
        "row \(row) of tensor '\(record.name)' has a weight that is infinite or not a number at column "
          + "\(column): the file is damaged, or was made from weights that were"))
  }
  /// Where the file has the block of an element.
  private func offset(of record: TensorRecord, row: Int, column: Int) -> Int {
    let type = record.type
    if case .transposed(let first, let step, let width) = description.derivations[record.name] {
      return record.offset + (column * width + first + row * step) * type.blockByteCount
    }
    return record.offset + row * (record.byteCount / record.rowCount)
      + column / type.blockElementCount * type.blockByteCount
  }
}
