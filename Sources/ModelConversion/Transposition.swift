/// Columns of matrices in memory, as rows.
enum Transposition {
  /// Rows that are transposed together: a cache line of each, few enough to stay in the nearest cache.
  static let tileRowCount = 8

  /// Writes each column of a matrix of elements of 2 or 4 bytes as a row, columns `columnByteCount`
  /// apart.
  ///
  /// - Parameter columnStep: elements from one column to the next.
  static func transpose(
    _ rows: UnsafeRawPointer, rowByteCount: Int, rowCount: Int, columnCount: Int,
    columnStep: Int = 1, elementByteCount: Int, to output: UnsafeMutableRawPointer,
    columnByteCount: Int
  ) {
    for first in stride(from: 0, to: rowCount, by: tileRowCount) {
      let count = min(tileRowCount, rowCount - first)
      let (from, to) = (rows + first * rowByteCount, output + first * elementByteCount)
      if elementByteCount == 2 {
        transposeTile(
          UInt16.self, from, rowByteCount, count, columnCount, columnStep, to, columnByteCount)
      } else {
        transposeTile(
          UInt32.self, from, rowByteCount, count, columnCount, columnStep, to, columnByteCount)
      }
    }
  }

  @inline(__always)
  private static func transposeTile<Element: FixedWidthInteger & BitwiseCopyable>(
    _ type: Element.Type, _ rows: UnsafeRawPointer, _ rowByteCount: Int, _ rowCount: Int,
    _ columnCount: Int, _ columnStep: Int, _ output: UnsafeMutableRawPointer,
    _ columnByteCount: Int
  ) {
    let width = MemoryLayout<Element>.size
    for column in 0..<columnCount {
      let target = output + column * columnByteCount
      let source = rows + column * columnStep * width
      for row in 0..<rowCount {
        target.storeBytes(
          of: source.loadUnaligned(fromByteOffset: row &* rowByteCount, as: Element.self),
          toByteOffset: row &* width, as: Element.self)
      }
    }
  }
}
