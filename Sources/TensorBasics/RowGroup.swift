/// How a matrix's rows lie in memory.
public enum RowLayout: String, Sendable, Codable {
  /// One row after the other, as in GGUF and safetensors.
  case rowMajor
  /// Groups of ``RowGroup/rowCount`` rows with their 4-byte words interleaved, as in flash images.
  case interleaved
}

/// The unit of the interleaved layout: sixteen rows whose 4-byte words alternate, so that one vector
/// load brings the same columns of sixteen rows.
///
/// A group holds, for each *interleave block* along the row, first the lone bytes of each row where
/// the block has one or two that are no 4-byte word (16 × 1 or 2 bytes), then for each 4-byte word of the block the words of the sixteen
/// rows (16 × 4 bytes). The interleave block is the quantisation block, or for floats 4 bytes of the
/// row (1 × F32, 2 × F16, 2 × BF16). Rows missing from the last group, and an odd 16-bit element at
/// the end of a row, are zero. `docs/format.md` is the specification.
public enum RowGroup {
  /// Rows in a group.
  @inlinable public static var rowCount: Int { 16 }

  /// Elements of one row in one interleave block.
  @inlinable public static func blockElementCount(_ type: ElementType) -> Int {
    switch type {
    case .f32: 1
    case .f16, .bf16: 2
    default: type.blockElementCount
    }
  }

  /// Bytes of one row in one interleave block.
  @inlinable public static func blockByteCount(_ type: ElementType) -> Int {
    type.isQuantised ? type.blockByteCount : 4
  }

  /// Interleave blocks in a row of `columnCount` elements.
  @inlinable public static func blockCount(_ type: ElementType, columnCount: Int) -> Int {
    let elements = blockElementCount(type)
    return (columnCount + elements - 1) / elements
  }

  /// Bytes of one group of rows of `columnCount` elements.
  @inlinable public static func byteCount(_ type: ElementType, columnCount: Int) -> Int {
    rowCount * blockCount(type, columnCount: columnCount) * blockByteCount(type)
  }

  /// Groups that `rows` rows make; the last may be padded.
  public static func groupCount(rows: Int) -> Int { (rows + rowCount - 1) / rowCount }
}
