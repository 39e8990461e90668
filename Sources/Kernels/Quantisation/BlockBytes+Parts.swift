/// Types whose blocks are 32 columns under one scale.
extension BlockBytes {
  /// scale = max |x| / 127, q = x / scale rounded half away from zero: of eight bits no search gains anything.
  func q8(_ x: UnsafePointer<Float>) {
    var largest: Float = 0
    for index in 0..<32 { largest = max(largest, x[index].magnitude) }
    let scale = largest / 127
    let inverse = scale == 0 ? 0 : 1 / scale
    setHalf(0, scale)
    for index in 0..<32 {
      let scaled = (x[index] * inverse).rounded(.toNearestOrAwayFromZero)
      // Neither clamp is reached by finite values; what is not finite must not trap.
      let quant = scaled.isFinite ? Int8(max(-127, min(127, scaled))) : 0
      set(2 + index, UInt8(bitPattern: quant))
    }
  }

  /// scale = (the x of largest magnitude) / −8, q = ⌊x / scale + 8.5⌋ at most 15. A search that weighs values by their
  /// square raised the perplexity of a small model by 5 % (`docs/decisions/0039`).
  func q4(_ x: UnsafePointer<Float>) {
    var extreme: Float = 0
    for index in 0..<32 where x[index].magnitude > extreme.magnitude { extreme = x[index] }
    let scale = extreme / -8
    let inverse = scale == 0 ? 0 : 1 / scale
    setHalf(0, scale)
    func quant(_ value: Float) -> UInt8 {
      let shifted = value * inverse + 8.5
      return shifted.isFinite ? UInt8(min(15, max(0, shifted))) : 8
    }
    for index in 0..<16 { set(2 + index, quant(x[index]) | quant(x[index + 16]) << 4) }
  }

  /// Calls `body` with the squares of 32 values.
  private func weighted(
    _ x: UnsafePointer<Float>, _ body: (_ weights: UnsafePointer<Float>) -> Float
  ) -> Float {
    withUnsafeTemporaryAllocation(of: Float.self, capacity: 32) { weights in
      for index in 0..<32 { weights.initializeElement(at: index, to: x[index] * x[index]) }
      return body(UnsafePointer(weights.baseAddress.unsafelyUnwrapped))
    }
  }

  /// Stores 32 nibbles: columns 0 to 15 in the lower halves of sixteen bytes, 16 to 31 in the upper ones.
  private func nibbles(_ offset: Int, _ quants: (_ half: Int) -> SIMD16<UInt8>) {
    let bytes = quants(0) | quants(1) &<< 4
    address.storeBytes(of: bytes, toByteOffset: offset, as: SIMD16<UInt8>.self)
  }

  // MARK: - Types whose quants are looked up

  func iq4(_ x: UnsafePointer<Float>) {
    let scale = weighted(x) { Self.iq4Scale(x, $0) }
    setHalf(0, scale)
    let rounded = Float(Float16(scale))
    let inverse = rounded == 0 ? 0 : 1 / rounded
    let table = NibbleValues.iq4
    nibbles(2) { half in
      var codes = SIMD16<UInt8>()
      for lane in 0..<16 { codes[lane] = table.nibble(nearestTo: x[16 * half + lane] * inverse) }
      return codes
    }
  }

  /// As ``ScaleSearch/symmetric(_:_:_:)``, among the sixteen values of IQ4_NL.
  private static func iq4Scale(
    _ x: UnsafePointer<Float>, _ weights: UnsafePointer<Float>
  ) -> Float {
    var extreme: Float = 0
    for index in 0..<32 where x[index].magnitude > extreme.magnitude { extreme = x[index] }
    guard extreme != 0 else { return 0 }
    let table = NibbleValues.iq4
    var (best, scale): (Float, Float) = (0, 0)
    for trial in -9...9 {
      let inverse = (table.values[0] + 2 * Float(trial)) / extreme
      var (product, square): (Float, Float) = (0, 0)
      for index in 0..<32 {
        let q = table[table.nibble(nearestTo: x[index] * inverse)]
        let weighted = weights[index] * q
        product += weighted * x[index]
        square += weighted * q
      }
      if square > 0, product / square * product > best {
        best = product / square * product
        scale = product / square
      }
    }
    return scale
  }

  /// The power of two under which the squared error is less: the largest value, in units, is then 8 to 16, of which
  /// what is above 12 is cut off, or 4 to 8.
  func mxfp4(_ x: UnsafePointer<Float>) {
    var largest: Float = 0
    for index in 0..<32 { largest = max(largest, x[index].magnitude) }
    guard largest > 0 else { return }
    // A unit is 2^(exponent − 128).
    let fitting = 125 + (largest.isFinite ? Int(largest.exponent) : 128)
    let candidates = [fitting, fitting + 1].map { max(0, min(255, $0)) }
    let errors = candidates.map { Self.mxfp4Error(x, $0) }
    let exponent = errors[1] < errors[0] ? candidates[1] : candidates[0]
    set(0, UInt8(exponent))
    let (table, inverse) = (NibbleValues.e2m1, Self.unitInverse(exponent))
    nibbles(1) { half in
      var codes = SIMD16<UInt8>()
      for lane in 0..<16 {
        codes[lane] = table.nibble(nearestTo: Float(Double(x[16 * half + lane]) * inverse))
      }
      return codes
    }
  }

  /// Beyond f32 for the smallest exponents.
  private static func unitInverse(_ exponent: Int) -> Double {
    Double(sign: .plus, exponent: 128 - exponent, significand: 1)
  }

  private static func mxfp4Error(_ x: UnsafePointer<Float>, _ exponent: Int) -> Double {
    let (table, inverse) = (NibbleValues.e2m1, unitInverse(exponent))
    var errors: Double = 0
    for index in 0..<32 {
      let scaled = Double(x[index]) * inverse
      let difference = scaled - Double(table[table.nibble(nearestTo: Float(scaled))])
      errors += difference * difference
    }
    return errors / (inverse * inverse)
  }
}
