import Runtime
import TensorBasics
import Testing

@Suite struct GumbelNoiseTests {
  /// The known answers of the Random123 distribution (`kat_vectors`).
  @Test func `Philox gives the known answers`() {
    let zero = Philox.block(counter: (0, 0, 0, 0), key: (0, 0))
    #expect(zero == (0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8))
    let most = UInt32.max
    let ones = Philox.block(counter: (most, most, most, most), key: (most, most))
    #expect(ones == (0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD))
    let pi = Philox.block(
      counter: (0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344),
      key: (0xA409_3822, 0x299F_31D0))
    #expect(pi == (0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1))
  }

  /// Computed by a program of its own, in another language.
  @Test func `Noise has these bits`() {
    func bits(_ seed: UInt64, _ stream: UInt32, _ position: Int, _ token: Int32) -> UInt64 {
      GumbelNoise(seed: seed, stream: stream, position: position)[token].bitPattern
    }
    #expect(bits(0, 0, 0, 0) == 0x3FB5_B6C7_AD99_9345)
    #expect(bits(7, 0, 10, 42) == 0x3FF8_F703_21E2_8A80)
    #expect(bits(7, 1, 10, 42) == 0x3FFE_AD2D_2B41_E562)
    #expect(bits(1 << 63 + 5, 3, 131_071, 128_255) == 0x3FD1_B49B_A71D_142D)
  }

  @Test func `Noise has the mean and the variance of a Gumbel distribution`() {
    var (sum, squares) = (0.0, 0.0)
    let count = 200_000
    for number in 0..<count {
      let noise = GumbelNoise(
        seed: UInt64(number % 10), stream: UInt32(number / 10 % 4), position: number / 40)
      let value = noise[Int32(number * 7919 % 50_000)]
      sum += value
      squares += value * value
    }
    let mean = sum / Double(count)
    #expect(abs(mean - 0.577_215_7) < 0.015)
    #expect(abs(squares / Double(count) - mean * mean - 1.644_934) < 0.05)
  }
}
