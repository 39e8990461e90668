public import TensorBasics

/// Stored values as f32, by ggml's formulas.
public enum Dequantisation {
  /// One row of `columnCount` elements, row-major.
  public static func row(
    _ bytes: UnsafeRawPointer, type: ElementType, columnCount: Int,
    into output: UnsafeMutablePointer<Float>
  ) {
    let blockCount = columnCount / type.blockElementCount
    for block in 0..<blockCount {
      let source = WeightBlock(bytes: bytes + block * type.blockByteCount)
      let target = output + block * type.blockElementCount
      switch type {
      case .f32: target[0] = Float(bitPattern: source.uint32(0))
      case .f16: target[0] = source.half(0)
      case .bf16: target[0] = Float(bitPattern: UInt32(source.uint16(0)) << 16)
      case .q4_0: source.q4(to: target, scale: source.half(0), minimum: nil, quants: 2)
      case .q4_1:
        source.q4(to: target, scale: source.half(0), minimum: source.half(2), quants: 4)
      case .q5_0: source.q5(to: target, scale: source.half(0), minimum: nil, high: 2)
      case .q5_1: source.q5(to: target, scale: source.half(0), minimum: source.half(2), high: 4)
      case .q8_0:
        for i in 0..<32 { target[i] = source.half(0) * Float(source.int8(2 + i)) }
      case .q2_K: source.q2K(to: target)
      case .q3_K: source.q3K(to: target)
      case .q4_K: source.q4K(to: target, quants: 16, high: nil)
      case .q5_K: source.q4K(to: target, quants: 48, high: 16)
      case .q6_K: source.q6K(to: target)
      case .iq4_NL: source.lookedUp(to: target, scale: source.half(0), nibbles: 2, .iq4)
      case .iq4_XS: source.iq4XS(to: target)
      case .mxfp4: source.lookedUp(to: target, scale: source.e8m0(0), nibbles: 1, .e2m1)
      case .nvfp4: source.nvfp4(to: target)
      case .q1_0: source.q1(to: target)
      case .q2_0: source.q2(to: target)
      case .tq1_0: source.tq1(to: target)
      case .tq2_0: source.tq2(to: target)
      case .iq2_XXS: source.iq2XXS(to: target)
      case .iq2_XS: source.iq2XS(to: target)
      case .iq2_S: source.iq2S(to: target)
      case .iq3_XXS: source.iq3XXS(to: target)
      case .iq3_S: source.iq3S(to: target)
      case .iq1_S: source.iq1S(to: target)
      case .iq1_M: source.iq1M(to: target)
      }
    }
  }

  /// Row `row` of an interleaved group.
  public static func row(
    inGroup group: UnsafeRawPointer, row: Int, type: ElementType, columnCount: Int,
    into output: UnsafeMutablePointer<Float>
  ) {
    let byteCount = columnCount / type.blockElementCount * type.blockByteCount
    withUnsafeTemporaryAllocation(byteCount: byteCount, alignment: 16) { bytes in
      Interleaving.deinterleave(
        group: group, type: type, columnCount: columnCount, row: row, into: bytes.baseAddress!)
      self.row(
        UnsafeRawPointer(bytes.baseAddress!), type: type, columnCount: columnCount, into: output)
    }
  }
}

/// One block of a row, row-major.
struct WeightBlock {
  let bytes: UnsafeRawPointer

  func uint8(_ offset: Int) -> UInt8 { bytes.load(fromByteOffset: offset, as: UInt8.self) }
  func int8(_ offset: Int) -> Int8 { bytes.load(fromByteOffset: offset, as: Int8.self) }
  func uint16(_ offset: Int) -> UInt16 {
    UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }
  func uint32(_ offset: Int) -> UInt32 {
    UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }
  func half(_ offset: Int) -> Float { Float(Float16(bitPattern: uint16(offset))) }

  func q4(to target: UnsafeMutablePointer<Float>, scale: Float, minimum: Float?, quants: Int) {
    for i in 0..<16 {
      let byte = Int(uint8(quants + i))
      for (index, quant) in [(i, byte & 15), (i + 16, byte >> 4)] {
        target[index] =
          if let minimum { Float(quant) * scale + minimum } else { Float(quant - 8) * scale }
      }
    }
  }

  func q5(to target: UnsafeMutablePointer<Float>, scale: Float, minimum: Float?, high: Int) {
    let bits = uint32(high)
    for i in 0..<16 {
      let byte = Int(uint8(high + 4 + i))
      for (index, low) in [(i, byte & 15), (i + 16, byte >> 4)] {
        let quant = low | Int((bits >> UInt32(index)) & 1) << 4
        target[index] =
          if let minimum { Float(quant) * scale + minimum } else { Float(quant - 16) * scale }
      }
    }
  }

  func q2K(to target: UnsafeMutablePointer<Float>) {
    let (scale, minimum) = (half(80), half(82))
    for index in 0..<256 {
      let packed = uint8(index / 16)
      let quant = (uint8(16 + index / 128 * 32 + index % 32) >> UInt8(index % 128 / 32 * 2)) & 3
      target[index] = scale * Float(packed & 15) * Float(quant) - minimum * Float(packed >> 4)
    }
  }

  func q3K(to target: UnsafeMutablePointer<Float>) {
    let scale = half(108)
    for index in 0..<256 {
      let sub = index / 16
      let low = sub < 8 ? uint8(96 + sub) & 15 : uint8(96 + sub - 8) >> 4
      let top = (uint8(104 + sub % 4) >> UInt8(2 * (sub / 4))) & 3
      let factor = Int(low | top << 4) - 32
      let two = (uint8(32 + index / 128 * 32 + index % 32) >> UInt8(index % 128 / 32 * 2)) & 3
      let hasHigh = (uint8(index % 32) >> UInt8(index / 32)) & 1 == 1
      target[index] = scale * Float(factor) * Float(Int(two) - (hasHigh ? 0 : 4))
    }
  }

  /// Q4_K, and with `high` bits Q5_K.
  func q4K(to target: UnsafeMutablePointer<Float>, quants: Int, high: Int?) {
    let (scale, minimum) = (half(0), half(2))
    for index in 0..<256 {
      let sub = index / 32
      let byte = uint8(quants + sub / 2 * 32 + index % 32)
      var quant = sub % 2 == 0 ? byte & 15 : byte >> 4
      if let high { quant |= ((uint8(high + index % 32) >> UInt8(sub)) & 1) << 4 }
      let (factor, offset) = scaleAndMinimum(sub)
      target[index] = scale * Float(factor) * Float(quant) - minimum * Float(offset)
    }
  }

  /// The six-bit scale and minimum of a sub-block, from the twelve bytes at 4.
  private func scaleAndMinimum(_ sub: Int) -> (UInt8, UInt8) {
    if sub < 4 { return (uint8(4 + sub) & 63, uint8(8 + sub) & 63) }
    return (
      uint8(8 + sub) & 15 | (uint8(sub) >> 6) << 4,
      uint8(8 + sub) >> 4 | (uint8(4 + sub) >> 6) << 4
    )
  }

  func q6K(to target: UnsafeMutablePointer<Float>) {
    let scale = half(208)
    for index in 0..<256 {
      let (n, k) = (index / 128, index % 128 / 32)
      let byte = uint8(64 * n + 32 * (k % 2) + index % 32)
      let low = k < 2 ? byte & 15 : byte >> 4
      let top = (uint8(128 + 32 * n + index % 32) >> UInt8(2 * k)) & 3
      let factor = int8(192 + index / 16)
      target[index] = scale * Float(factor) * Float(Int(low | top << 4) - 32)
    }
  }
}
