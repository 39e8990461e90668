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
    let scale = deviation / unitDeviation(type) * (0.5 + generator.nextUnit())
    switch type.layout.scale {
    case .none: preconditionFailure("floats have no blocks")
    case .half(let offset): store(scale, at: start + offset, &bytes)
    case .halves(let offset, let minimum):
      store(scale, at: start + offset, &bytes)
      store(scale * minimumFactor(type), at: start + minimum, &bytes)
    case .nibbles(let offset):
      for index in 0..<4 {
        let byte = start + offset + 2 * index + 1
        let nibble = UInt8(truncatingIfNeeded: halfBits(Float(scale)) >> UInt16(4 * index)) & 15
        bytes[byte] = bytes[byte] & 15 | nibble << 4
      }
    case .exponent(let offset):
      bytes[start + offset] = UInt8(max(0, Float(scale).exponent + 128))
    case .finite:
      // NVFP4: four numbers of four bits of exponent, bias 7, and three of mantissa, halved.
      for byte in start..<start + 4 { bytes[byte] = UInt8(max(0, Float(scale).exponent + 8)) << 3 }
    }
  }

  private static func store(_ value: Double, at offset: Int, _ bytes: inout [UInt8]) {
    let bits = halfBits(Float(value))
    bytes[offset] = UInt8(truncatingIfNeeded: bits)
    bytes[offset + 1] = UInt8(bits >> 8)
  }

  /// The deviation that a scale of 1 gives with random bits.
  private static func unitDeviation(_ type: ElementType) -> Double {
    switch type {
    case .f32, .f16, .bf16, .q1_0: 1
    case .q4_0, .q4_1: 4.6
    case .q5_0, .q5_1: 9.2
    case .q8_0: 74
    case .q2_K: 12
    case .q3_K: 42
    case .q4_K: 220
    case .q5_K: 440
    case .q6_K: 1370
    case .iq4_NL: 67
    case .iq4_XS: 1250
    case .mxfp4, .nvfp4: 5.8
    case .tq1_0: 0.8
    case .tq2_0, .q2_0: 1.1
    case .iq2_XXS, .iq2_XS, .iq2_S: 55
    case .iq3_XXS, .iq3_S: 141
    case .iq1_S, .iq1_M: 7.2
    }
  }

  /// The factor from scale to minimum that centres values on zero.
  private static func minimumFactor(_ type: ElementType) -> Double {
    switch type {
    case .q4_1: -7.5
    case .q5_1: -15.5
    case .q2_K: 1.5
    case .q4_K: 7.5
    case .q5_K: 15.5
    default: preconditionFailure("\(type.name) has no minimum")
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
