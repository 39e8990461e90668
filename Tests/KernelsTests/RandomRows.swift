import TensorBasics

/// Row-major rows of any type with seeded contents: random bits under sane f16 scales.
struct RandomRows {
  let type: ElementType
  let rowCount: Int
  let columnCount: Int
  let bytes: [UInt8]

  var rowByteCount: Int { columnCount / type.blockElementCount * type.blockByteCount }

  init(_ type: ElementType, rowCount: Int, columnCount: Int, using generator: inout SeededGenerator)
  {
    self.type = type
    self.rowCount = rowCount
    self.columnCount = columnCount
    var bytes: [UInt8] = []
    for _ in 0..<rowCount * columnCount / type.blockElementCount {
      bytes += Self.block(type, using: &generator)
    }
    self.bytes = bytes
  }

  private static func block(_ type: ElementType, using generator: inout SeededGenerator) -> [UInt8]
  {
    let value = Float(generator.nextUnit() * 2 - 1)
    switch type {
    case .f32: return withUnsafeBytes(of: value.bitPattern.littleEndian) { Array($0) }
    case .f16: return withUnsafeBytes(of: Float16(value).bitPattern.littleEndian) { Array($0) }
    case .bf16:
      return withUnsafeBytes(of: UInt16(value.bitPattern >> 16).littleEndian) { Array($0) }
    default: break
    }
    var bytes = (0..<type.blockByteCount).map { _ in UInt8.random(in: 0...255, using: &generator) }
    for offset in halfOffsets(type) {
      let scale = Float16(generator.nextUnit() * 0.1 + 0.001)
      withUnsafeBytes(of: scale.bitPattern.littleEndian) {
        bytes.replaceSubrange(offset..<offset + 2, with: $0)
      }
    }
    return bytes
  }

  /// Where a block's f16 scales are.
  private static func halfOffsets(_ type: ElementType) -> [Int] {
    switch type {
    case .q4_0, .q5_0, .q8_0: [0]
    case .q4_1, .q5_1, .q4_K, .q5_K: [0, 2]
    case .q2_K: [80, 82]
    case .q3_K: [108]
    case .q6_K: [208]
    default: []
    }
  }
}
