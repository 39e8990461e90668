/// Natural exponential, logarithm and whole powers in f64, with the same bits on every machine.
///
/// Only IEEE operations that round once (+, −, ×, ÷), none of them fused, in a fixed order: no library that
/// differs from one system to the next (`docs/decisions/0001-canonical-arithmetic.md`). Coefficients are those
/// of the Taylor series.
package enum CanonicalMath {
  // ln 2 in two parts; the first has 32 significant bits, so that its product with an exponent is exact.
  private static let ln2High = 0x1.62e42feep-1
  private static let ln2Low = 0x1.a39ef35793c76p-33

  /// eˣ, less than 1 unit in the last place off.
  ///
  /// x = k ln 2 + r with |r| ≤ ln 2 ÷ 2; eʳ by the series up to r¹³ ÷ 13!.
  package static func exp(_ x: Double) -> Double {
    guard x <= 709.782712893384 else { return x.isNaN ? x : .infinity }
    guard x >= -745.2 else { return 0 }
    let magic = 0x1.8p52  // adding it rounds to the nearest integer
    let n = (x * 0x1.71547652b82fep0 + magic) - magic
    let r = (x - n * ln2High) - n * ln2Low
    var p = 1.0 / 6_227_020_800
    p = p * r + 1.0 / 479_001_600
    p = p * r + 1.0 / 39_916_800
    p = p * r + 1.0 / 3_628_800
    p = p * r + 1.0 / 362_880
    p = p * r + 1.0 / 40_320
    p = p * r + 1.0 / 5_040
    p = p * r + 1.0 / 720
    p = p * r + 1.0 / 120
    p = p * r + 1.0 / 24
    p = p * r + 1.0 / 6
    p = p * r + 1.0 / 2
    let y = 1 + (r + r * r * p)
    // In two steps, so that results below the normal numbers are rounded once.
    let k = Int(n)
    let half = k >> 1
    return y * powerOfTwo(half) * powerOfTwo(k - half)
  }

  /// ln x, less than 1 unit in the last place off; −∞ of 0, NaN of what is negative.
  ///
  /// x = 2ᵏ (1 + f) with 1 + f from √½ to √2; ln(1 + f) = 2 artanh s with s = f ÷ (2 + f), by the series up to
  /// s²¹ ÷ 21.
  package static func log(_ x: Double) -> Double {
    guard x > 0, x < .infinity else { return x == 0 ? -.infinity : x < 0 ? .nan : x }
    var (bits, k) = (x.bitPattern, 0)
    if bits >> 52 == 0 { (bits, k) = ((x * 0x1p54).bitPattern, -54) }
    let (one, rootOfHalf): (UInt64, UInt64) = (0x3FF0_0000_0000_0000, 0x3FE6_A09E_667F_3BCD)
    bits += one - rootOfHalf
    k += Int(bits >> 52) - 1023
    let f = Double(bitPattern: (bits & 0xF_FFFF_FFFF_FFFF) + rootOfHalf) - 1
    let s = f / (2 + f)
    let z = s * s
    var p = 2.0 / 21
    p = p * z + 2.0 / 19
    p = p * z + 2.0 / 17
    p = p * z + 2.0 / 15
    p = p * z + 2.0 / 13
    p = p * z + 2.0 / 11
    p = p * z + 2.0 / 9
    p = p * z + 2.0 / 7
    p = p * z + 2.0 / 5
    p = p * z + 2.0 / 3
    // 2 artanh s = f − (f²/2 − s (f²/2 + p z)), which keeps f exact.
    let h = f * f * 0.5
    let exponent = Double(k)
    return exponent * ln2High - ((h - (s * (h + z * p) + exponent * ln2Low)) - f)
  }

  /// xⁿ for n ≥ 0, by squaring.
  package static func power(_ x: Double, _ n: Int) -> Double {
    precondition(n >= 0, "a power of \(n)")
    var (result, square, left) = (1.0, x, n)
    while left > 0 {
      if left & 1 != 0 { result *= square }
      square *= square
      left >>= 1
    }
    return result
  }

  /// 2ᵏ for k from −1022 to 1023.
  private static func powerOfTwo(_ k: Int) -> Double {
    Double(bitPattern: UInt64(k + 1023) << 52)
  }
}
