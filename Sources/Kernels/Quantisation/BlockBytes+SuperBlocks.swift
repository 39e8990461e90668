import TensorBasics

/// Where the integers of a block of 256 lie; `Dequantisation` takes them out again.
extension BlockBytes {
  func pack(_ block: SuperBlock, as type: ElementType) {
    switch type {
    case .q2_K: q2K(block)
    case .q3_K: q3K(block)
    case .q4_K: q4K(block, quants: 16, high: nil)
    case .q5_K: q4K(block, quants: 48, high: 16)
    case .q6_K: q6K(block)
    default: preconditionFailure("\(type.name) has no super-blocks")
    }
  }

  /// A small integer in the low bits.
  private func bits(_ value: Float) -> UInt8 { UInt8(truncatingIfNeeded: Int(value)) }

  private func q2K(_ block: SuperBlock) {
    for part in 0..<16 { set(part, bits(block.factors[part]) | bits(block.offsets[part]) << 4) }
    for index in 0..<256 {
      add(16 + index / 128 * 32 + index % 32, bits(block.quants[index]) << shiftOfTwo(index))
    }
    setHalf(80, block.scale)
    setHalf(82, block.minimum)
  }

  private func q3K(_ block: SuperBlock) {
    for part in 0..<16 {
      let factor = bits(block.factors[part] + 32)
      add(96 + part % 8, part < 8 ? factor & 15 : factor << 4)
      add(104 + part % 4, (factor >> 4) << UInt8(2 * (part / 4)))
    }
    for index in 0..<256 {
      let quant = bits(block.quants[index] + 4)
      add(32 + index / 128 * 32 + index % 32, (quant & 3) << shiftOfTwo(index))
      add(index % 32, (quant >> 2) << UInt8(index / 32))
    }
    setHalf(108, block.scale)
  }

  /// Four columns share a byte, 32 apart.
  private func shiftOfTwo(_ index: Int) -> UInt8 { UInt8(index % 128 / 32 * 2) }

  /// Q4_K, and with `high` bits Q5_K.
  private func q4K(_ block: SuperBlock, quants: Int, high: Int?) {
    setHalf(0, block.scale)
    setHalf(2, block.minimum)
    for part in 0..<8 {
      let (factor, offset) = (bits(block.factors[part]), bits(block.offsets[part]))
      if part < 4 {
        add(4 + part, factor)
        add(8 + part, offset)
      } else {
        add(8 + part, factor & 15 | offset << 4)
        add(part, (factor >> 4) << 6)
        add(4 + part, (offset >> 4) << 6)
      }
    }
    for index in 0..<256 {
      let (part, quant) = (index / 32, bits(block.quants[index]))
      add(quants + part / 2 * 32 + index % 32, part % 2 == 0 ? quant & 15 : quant << 4)
      if let high { add(high + index % 32, (quant >> 4) << UInt8(part)) }
    }
  }

  private func q6K(_ block: SuperBlock) {
    for index in 0..<256 {
      let quant = bits(block.quants[index] + 32)
      let (half, quarter) = (index / 128, index % 128 / 32)
      add(64 * half + 32 * (quarter % 2) + index % 32, quarter < 2 ? quant & 15 : quant << 4)
      add(128 + 32 * half + index % 32, (quant >> 4) << UInt8(2 * quarter))
    }
    for part in 0..<16 { set(192 + part, bits(block.factors[part])) }
    setHalf(208, block.scale)
  }
}
