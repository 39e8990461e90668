import CKernels
import Glibc
public import TensorBasics

/// Between row-major rows and row groups (`docs/format.md`); values are moved, never changed.
public enum Interleaving {
  /// Interleaves up to sixteen rows; rows that are missing become zero.
  ///
  /// - Parameters:
  ///   - rows: `rowCount` (1...16) rows, `rowByteCount` apart.
  ///   - group: ``RowGroup/byteCount(_:columnCount:)`` bytes; must not overlap `rows`.
  public static func interleave(
    rows: UnsafeRawPointer, rowByteCount: Int, rowCount: Int, type: ElementType, columnCount: Int,
    into group: UnsafeMutableRawPointer
  ) {
    let blocks = RowGroup.blockCount(type, columnCount: columnCount)
    let blockByteCount = RowGroup.blockByteCount(type)
    let half = Int32(RowGroup.halfWordOffset(type) ?? -1)
    if rowCount == RowGroup.rowCount, blocks * blockByteCount == rowByteCount {
      ck_interleave(
        rows.assumingMemoryBound(to: UInt8.self), rowByteCount, blocks, blockByteCount, half,
        group.assumingMemoryBound(to: UInt8.self))
      return
    }
    memset(group, 0, RowGroup.rowCount * blocks * blockByteCount)
    for row in 0..<rowCount {
      moveRow(
        type: type, columnCount: columnCount, rowByteCount: rowByteCount, row: row
      ) { rowOffset, groupOffset, count in
        memcpy(group + groupOffset, rows + row * rowByteCount + rowOffset, count)
      }
    }
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
    let half = RowGroup.halfWordOffset(type)
    var groupOffset = 0
    for block in 0..<RowGroup.blockCount(type, columnCount: columnCount) {
      let start = block * blockByteCount
      var first = start
      if let half {
        move(start + half, groupOffset + 2 * row, 2)
        groupOffset += 2 * RowGroup.rowCount
        if half == 0 { first += 2 }
      }
      for word in 0..<blockByteCount / 4 {
        let count = min(4, rowByteCount - (first + 4 * word))
        move(first + 4 * word, groupOffset + 4 * row, count)
        groupOffset += 4 * RowGroup.rowCount
      }
    }
  }
}
