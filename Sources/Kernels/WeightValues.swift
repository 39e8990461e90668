public import TensorBasics

/// Looks at stored weights for what is not a finite number.
public enum WeightValues {
  /// The first weight, or block of weights under one scale, that is infinite or NaN.
  ///
  /// Of a quantised type the scales decide: whatever integers lie below a scale that is finite are.
  ///
  /// - Parameters:
  ///   - rows: row-major, [rowCount, columnCount].
  ///   - columnCount: whole blocks of `type`.
  /// - Returns: its row and first column; nil if all weights are finite.
  public static func firstNotFinite(
    _ rows: UnsafeRawPointer, type: ElementType, columnCount: Int, rowCount: Int
  ) -> (row: Int, column: Int)? {
    let blockByteCount = type.blockByteCount
    let blocksPerRow = columnCount / type.blockElementCount
    let blockCount = blocksPerRow * rowCount
    func place(_ block: Int) -> (row: Int, column: Int) {
      (block / blocksPerRow, block % blocksPerRow * type.blockElementCount)
    }
    switch type {
    case .f32:
      for row in 0..<rowCount {
        let values = (rows + row * 4 * columnCount).assumingMemoryBound(to: Float.self)
        guard !VectorOps.isFinite(values, count: columnCount) else { continue }
        return (row, (0..<columnCount).first { !values[$0].isFinite } ?? 0)
      }
      return nil
    case .f16: return first(of: blockCount, in: rows, exponent: 0x7C00).map(place)
    case .bf16: return first(of: blockCount, in: rows, exponent: 0x7F80).map(place)
    default:
      let offsets = scaleOffsets(type)
      for block in 0..<blockCount {
        for offset in offsets where !isFinite(rows + block * blockByteCount + offset) {
          return place(block)
        }
      }
      return nil
    }
  }

  /// The first 16-bit float whose exponent is all ones.
  private static func first(
    of count: Int, in rows: UnsafeRawPointer, exponent: UInt16
  ) -> Int? {
    let words = rows.assumingMemoryBound(to: UInt16.self)
    var start = 0
    while start < count {
      let end = min(start + 4096, count)
      var found = false
      for index in start..<end {
        found = found || UInt16(littleEndian: words[index]) & exponent == exponent
      }
      if found {
        return (start..<end).first { UInt16(littleEndian: words[$0]) & exponent == exponent }
      }
      start = end
    }
    return nil
  }

  private static func isFinite(_ half: UnsafeRawPointer) -> Bool {
    half.loadUnaligned(as: UInt16.self) & 0x7C00 != 0x7C00
  }

  /// Where the f16 scales and minima of a block lie.
  private static func scaleOffsets(_ type: ElementType) -> [Int] {
    switch type {
    case .f32, .f16, .bf16: []
    case .q4_0, .q5_0, .q8_0: [0]
    case .q4_1, .q5_1, .q4_K, .q5_K: [0, 2]
    case .q2_K: [80, 82]
    case .q3_K: [108]
    case .q6_K: [208]
    }
  }
}
