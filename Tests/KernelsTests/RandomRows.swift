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
    let scale = Float16(generator.nextUnit() * 0.1 + 0.001).bitPattern
    switch type.layout.scale {
    case .none, .finite: break
    case .half(let offset): store(scale, at: offset, &bytes)
    case .halves(let offset, let minimum):
      store(scale, at: offset, &bytes)
      store(
        Float16(generator.nextUnit() * 0.1 + 0.001).bitPattern, at: minimum, &bytes)
    case .exponent(let offset): bytes[offset] = UInt8.random(in: 118...127, using: &generator)
    case .nibbles(let offset):
      for index in 0..<4 {
        let byte = offset + 2 * index + 1
        bytes[byte] = bytes[byte] & 15 | UInt8(scale >> UInt16(4 * index) & 15) << 4
      }
    }
    return bytes
  }
  private static func store(_ half: UInt16, at offset: Int, _ bytes: inout [UInt8]) {
    (bytes[offset], bytes[offset + 1]) = (UInt8(half & 255), UInt8(half >> 8))
  }
}
