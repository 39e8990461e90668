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
      let scale = type.layout.scale
      let firstBad = (0..<blockCount).first { !isFinite(scale, rows + $0 * blockByteCount) }
      return firstBad.map(place)
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

  private static func isFinite(_ scale: BlockLayout.Scale, _ block: UnsafeRawPointer) -> Bool {
    func exponent(_ offset: Int) -> UInt16 {
      UInt16(littleEndian: block.loadUnaligned(fromByteOffset: offset, as: UInt16.self)) & 0x7C00
    }
    switch scale {
    case .none, .finite: return true
    case .exponent(let offset): return block.load(fromByteOffset: offset, as: UInt8.self) < 253
    case .half(let offset): return exponent(offset) != 0x7C00
    case .halves(let scale, let minimum):
      return exponent(scale) != 0x7C00 && exponent(minimum) != 0x7C00
    case .nibbles(let offset):
      // The exponent is the lower three bits of the top nibble and the upper two of the one below.
      let (high, low) = (
        block.load(fromByteOffset: offset + 7, as: UInt8.self),
        block.load(fromByteOffset: offset + 5, as: UInt8.self)
      )
      return high & 0x70 != 0x70 || low & 0xC0 != 0xC0
    }
  }
}
