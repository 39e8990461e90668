/// Sixteen floats at a time. Sums have a fixed order, so that each machine finds the same scales.
typealias Lanes = SIMD16<Float>

extension SIMD16<Float> {
  @inline(__always)
  init(at values: UnsafePointer<Float>) {
    self = UnsafeRawPointer(values).loadUnaligned(as: Self.self)
  }

  /// The nearest whole numbers, halves to even, of magnitudes below 2^22.
  @inline(__always)
  var nearest: Self { (self + 0x1.8p23) - 0x1.8p23 }

  /// NaN becomes `lowest`.
  @inline(__always)
  func limited(_ lowest: Float, _ highest: Float) -> Self {
    let raised = Self(repeating: lowest).replacing(with: self, where: self .> lowest)
    return raised.replacing(with: highest, where: raised .> highest)
  }

  /// The bits of −0.0 are the only ones that are cleared.
  @inline(__always)
  var magnitudes: Self {
    unsafeBitCast(unsafeBitCast(self, to: SIMD16<UInt32>.self) & 0x7FFF_FFFF, to: Self.self)
  }

  @inline(__always)
  var total: Float {
    let eight = lowHalf + highHalf
    let four = eight.lowHalf + eight.highHalf
    let two = four.lowHalf + four.highHalf
    return two.x + two.y
  }
}
