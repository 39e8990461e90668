public import TensorBasics

/// Random weights in every element type, of a scale that keeps activations sane.
public enum RandomWeights {
  /// Rows of `type` whose values have mean about 0 and standard deviation about `deviation`.
  ///
  /// Quantised blocks are random in every bit but their scales. `columnCount` must be whole blocks.
  public static func bytes(
    _ type: ElementType, rowCount: Int, columnCount: Int, deviation: Double,
    using generator: inout SeededGenerator
  ) -> [UInt8] {
    guard let rowByteCount = type.rowByteCount(columnCount: columnCount) else {
      preconditionFailure("\(columnCount) columns are not whole blocks of \(type.name)")
    }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(rowCount * rowByteCount)
    if type.isQuantised {
      let blockCount = rowCount * columnCount / type.blockElementCount
      for _ in 0..<blockCount { appendBlock(type, deviation, &generator, to: &bytes) }
    } else {
      for _ in 0..<rowCount * columnCount {
        append(Float(gaussian(&generator) * deviation), as: type, to: &bytes)
      }
    }
    return bytes
  }

  /// A float stored as F32, F16 or BF16 (truncated).
  public static func append(_ value: Float, as type: ElementType, to bytes: inout [UInt8]) {
    switch type {
    case .f32: withUnsafeBytes(of: value.bitPattern.littleEndian) { bytes += $0 }
    case .bf16:
      withUnsafeBytes(of: UInt16(value.bitPattern >> 16).littleEndian) { bytes += $0 }
    default: withUnsafeBytes(of: halfBits(value).littleEndian) { bytes += $0 }
    }
  }

  /// About normal with mean 0 and deviation 1: the sum of twelve uniform numbers.
  private static func gaussian(_ generator: inout SeededGenerator) -> Double {
    (0..<12).reduce(-6.0) { sum, _ in sum + generator.nextUnit() }
  }

  private static func appendBlock(
    _ type: ElementType, _ deviation: Double, _ generator: inout SeededGenerator,
    to bytes: inout [UInt8]
  ) {
    let start = bytes.count
    while bytes.count < start + type.blockByteCount {
      bytes.append(UInt8(truncatingIfNeeded: generator.next()))
    }
    let shape = scaleFields(type)
    let scale = deviation / shape.unitDeviation * (0.5 + generator.nextUnit())
    store(scale, at: start + shape.scaleOffset, &bytes)
    if let (offset, factor) = shape.minimum { store(scale * factor, at: start + offset, &bytes) }
  }

  private static func store(_ value: Double, at offset: Int, _ bytes: inout [UInt8]) {
    let bits = halfBits(Float(value))
    bytes[offset] = UInt8(truncatingIfNeeded: bits)
    bytes[offset + 1] = UInt8(bits >> 8)
  }

  /// Where a block's f16 scale and minimum lie, the deviation that a scale of 1 gives with random
  /// bits, and the factor from scale to minimum that centres values on zero.
  private static func scaleFields(
    _ type: ElementType
  ) -> (scaleOffset: Int, unitDeviation: Double, minimum: (offset: Int, factor: Double)?) {
    switch type {
    case .q4_0: (0, 4.6, nil)
    case .q4_1: (0, 4.6, (2, -7.5))
    case .q5_0: (0, 9.2, nil)
    case .q5_1: (0, 9.2, (2, -15.5))
    case .q8_0: (0, 74, nil)
    case .q2_K: (80, 12, (82, 1.5))
    case .q3_K: (108, 42, nil)
    case .q4_K: (0, 220, (2, 7.5))
    case .q5_K: (0, 440, (2, 15.5))
    case .q6_K: (208, 1370, nil)
    case .f32, .f16, .bf16: preconditionFailure("floats have no blocks")
    }
  }

  /// IEEE half precision by truncation; numbers out of range become zero or the largest number.
  private static func halfBits(_ value: Float) -> UInt16 {
    let sign: UInt16 = value < 0 ? 0x8000 : 0
    let magnitude = min(abs(value), 65504)
    guard magnitude >= 0x1p-24 else { return sign }
    guard magnitude >= 0x1p-14 else { return sign | UInt16(magnitude * 0x1p24) }
    let bits = magnitude.bitPattern
    return sign | UInt16((bits >> 13) - (112 << 10))
  }
}
