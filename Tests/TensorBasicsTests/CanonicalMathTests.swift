import Glibc
import TensorBasics
import Testing

@Suite struct CanonicalMathTests {
  /// How many numbers lie between two of the same sign, the second included.
  private func distance(_ value: Double, _ expected: Double) -> Int {
    abs(Int(bitPattern: UInt(value.bitPattern)) - Int(bitPattern: UInt(expected.bitPattern)))
  }

  @Test func `Values are within a unit in the last place of the C library's`() {
    var generator = SeededGenerator(seed: 1)
    for _ in 0..<100_000 {
      let exponent = (generator.nextUnit() - 0.5) * 1400
      for x in [exponent, exponent / 20, exponent / 1e6, exponent * 1e-300] {
        #expect(distance(CanonicalMath.exp(x), Glibc.exp(x)) <= 1, "exp \(x)")
      }
      let unit = generator.nextUnit()
      for x in [unit, 1 - unit * 0x1p-40, 0.5 + unit, Glibc.exp(exponent)] where x > 0 {
        #expect(distance(CanonicalMath.log(x), Glibc.log(x)) <= 1, "log \(x)")
      }
    }
  }

  /// Computed by a program of its own, in another language.
  @Test(
    arguments: [
      (1.0, 0x4005_BF0A_8B14_576A), (-1.0, 0x3FD7_8B56_362C_EF38), (0.5, 0x3FFA_6129_8E1E_069C),
      (-0.1, 0x3FEC_F46D_99D5_2B3A), (-20.25, 0x3E1B_93DE_1E27_CA3B),
      (-700.0, 0x00D1_4F2B_0FB9_307F), (-740.0, 0x55), (88.7, 0x47EF_4705_BBFF_AE5C),
    ] as [(Double, UInt64)])
  func `The exponential has these bits`(x: Double, bits: UInt64) {
    #expect(CanonicalMath.exp(x).bitPattern == bits)
  }

  @Test(
    arguments: [
      (2.0, 0x3FE6_2E42_FEFA_39EF), (0.5, 0xBFE6_2E42_FEFA_39EF), (0.1, 0xC002_6BB1_BBB5_5515),
      (3.0, 0x3FF1_93EA_7AAD_030A), (1.0000000000000002, 0x3CAF_FFFF_FFFF_FFFF),
      (0.9999999999999999, 0xBCA0_0000_0000_0000), (1e-300, 0xC085_9634_47F8_7FB5),
      (.leastNonzeroMagnitude, 0xC087_4385_446D_71C3), (1.7e308, 0x4086_2DD0_8FDC_6F88),
    ] as [(Double, UInt64)])
  func `The logarithm has these bits`(x: Double, bits: UInt64) {
    #expect(CanonicalMath.log(x).bitPattern == bits)
  }

  @Test func `A power is that of as many factors`() {
    for x in [0.0, 0.5, -2, 1, 3] {
      var product = 1.0
      for n in 0..<20 {
        #expect(CanonicalMath.power(x, n) == product, "\(x) to the power of \(n)")
        product *= x
      }
    }
    #expect(CanonicalMath.power(0.99, 2048) < 1.2e-9 && CanonicalMath.power(0.1, 1 << 20) == 0)
  }

  @Test func `The ends of the numbers are where they belong`() {
    #expect(CanonicalMath.exp(0) == 1 && CanonicalMath.exp(-0.0) == 1)
    #expect(CanonicalMath.exp(.infinity) == .infinity && CanonicalMath.exp(710) == .infinity)
    #expect(CanonicalMath.exp(-.infinity) == 0 && CanonicalMath.exp(-746) == 0)
    #expect(
      CanonicalMath.exp(709.78).isFinite && CanonicalMath.exp(-745.1) == .leastNonzeroMagnitude)
    #expect(CanonicalMath.exp(.nan).isNaN && CanonicalMath.log(.nan).isNaN)
    #expect(CanonicalMath.log(0) == -.infinity && CanonicalMath.log(.infinity) == .infinity)
    #expect(CanonicalMath.log(-1).isNaN && CanonicalMath.log(-.infinity).isNaN)
    #expect(CanonicalMath.log(1) == 0)
  }
}
