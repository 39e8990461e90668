import CKernels
import Glibc
public import TensorBasics

/// Between row-major rows and row groups (`docs/format.md`); values are moved, never changed.
public enum Interleaving {
  /// Interleaves up to sixteen rows; rows that are missing become zero.
  ///
  /// - Parameters:
  ///   - rows: `rowCount` (1...16) rows, `rowByteCount` apart.
  ///   - group: `RowGroup.byteCount(_:columnCount:)` bytes; must not overlap `rows`.
  public static func interleave(
    rows: UnsafeRawPointer, rowByteCount: Int, rowCount: Int, type: ElementType, columnCount: Int,
    into group: UnsafeMutableRawPointer, instructionSet: InstructionSet? = nil
  ) {
    withUnsafeTemporaryAllocation(of: UnsafePointer<UInt8>?.self, capacity: rowCount) { pointers in
      for row in 0..<rowCount {
        pointers[row] = (rows + row * rowByteCount).assumingMemoryBound(to: UInt8.self)
      }
      interleave(
        pointers.baseAddress!, rowCount, rowByteCount, type, columnCount, group, instructionSet)
    }
  }

  /// Interleaves up to sixteen rows that lie anywhere.
  ///
  /// - Parameters:
  ///   - rowPointers: `rowCount` (0...16) addresses of any alignment; nil is a row of zeros, and so are
  ///     the rows that are missing.
  ///   - group: `RowGroup.byteCount(_:columnCount:)` bytes; must not overlap the rows.
  public static func interleave(
    rowPointers: UnsafePointer<UnsafeRawPointer?>, rowCount: Int, type: ElementType,
    columnCount: Int, into group: UnsafeMutableRawPointer, instructionSet: InstructionSet? = nil
  ) {
    rowPointers.withMemoryRebound(to: UnsafePointer<UInt8>?.self, capacity: rowCount) {
      interleave(
        $0, rowCount, columnCount / type.blockElementCount * type.blockByteCount, type, columnCount,
        group, instructionSet)
    }
  }

  private static func interleave(
    _ rows: UnsafePointer<UnsafePointer<UInt8>?>, _ rowCount: Int, _ rowByteCount: Int,
    _ type: ElementType, _ columnCount: Int, _ group: UnsafeMutableRawPointer,
    _ set: InstructionSet?
  ) {
    precondition(rowCount <= RowGroup.rowCount, "a group has sixteen rows")
    let layout = type.layout
    var rowSet = ck_row_set(
      rows: rows, row_count: rowCount, row_bytes: rowByteCount,
      blocks: RowGroup.blockCount(type, columnCount: columnCount),
      block_bytes: RowGroup.blockByteCount(type),
      lone_offset: Int32(layout.loneOffset), lone_bytes: Int32(layout.loneByteCount))
    KernelTable.of(set).pointee.interleave_rows(&rowSet, group.assumingMemoryBound(to: UInt8.self))
  }

  /// Takes one row out of a group, as row-major bytes.
  ///
  /// - Parameter bytes: the type's bytes of `columnCount` elements.
  public static func deinterleave(
    group: UnsafeRawPointer, type: ElementType, columnCount: Int, row: Int,
    into bytes: UnsafeMutableRawPointer
  ) {
    moveRow(
      type: type, columnCount: columnCount,
      rowByteCount: columnCount / type.blockElementCount * type.blockByteCount, row: row
    ) { rowOffset, groupOffset, count in memcpy(bytes + rowOffset, group + groupOffset, count) }
  }

  /// Names every piece of a row and its place in the group.
  private static func moveRow(
    type: ElementType, columnCount: Int, rowByteCount: Int, row: Int,
    _ move: (_ rowOffset: Int, _ groupOffset: Int, _ byteCount: Int) -> Void
  ) {
    let blockByteCount = RowGroup.blockByteCount(type)
    let (lone, loneByteCount) = (type.layout.loneOffset, type.layout.loneByteCount)
    var groupOffset = 0
    for block in 0..<RowGroup.blockCount(type, columnCount: columnCount) {
      let start = block * blockByteCount
      var first = start
      if loneByteCount > 0 {
        move(start + lone, groupOffset + loneByteCount * row, loneByteCount)
        groupOffset += loneByteCount * RowGroup.rowCount
        if lone == 0 { first += loneByteCount }
      }
      for word in 0..<blockByteCount / 4 {
        let count = min(4, rowByteCount - (first + 4 * word))
        move(first + 4 * word, groupOffset + 4 * row, count)
        groupOffset += 4 * RowGroup.rowCount
      }
    }
  }
}
