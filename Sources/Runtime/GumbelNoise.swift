import TensorBasics

/// Gumbel noise of each (seed, stream, position, token): a function, not a sequence.
///
/// The token whose logit ÷ temperature + noise is highest is distributed as the softmax at that temperature
/// (Gumbel-max). Noise depends on nothing that was drawn before, so a token is the same whether its sequence is
/// alone or in a batch, read in one piece or resumed.
package struct GumbelNoise: Sendable {
  private let key: (UInt32, UInt32)
  private let stream: UInt32
  private let position: UInt32

  /// - Parameter position: index in the context of the token that is drawn.
  package init(seed: UInt64, stream: UInt32, position: Int) {
    key = (UInt32(truncatingIfNeeded: seed), UInt32(truncatingIfNeeded: seed >> 32))
    self.stream = stream
    self.position = UInt32(truncatingIfNeeded: position)
  }

  /// −ln(−ln u) with u = (k + ½) ÷ 2⁵², k the 52 random bits of `token`.
  package subscript(token: Int32) -> Double { Self.value(bits(of: token)) }

  /// The 52 random bits of a token: the upper ones of the first two words of its Philox block.
  @inline(__always)
  func bits(of token: Int32) -> UInt64 {
    let block = Philox.block(
      counter: (UInt32(bitPattern: token), position, stream, 0), key: key)
    return (UInt64(block.0) << 32 | UInt64(block.1)) >> 12
  }

  static func value(_ bits: UInt64) -> Double {
    // Exact: an odd number of 53 bits.
    let u = Double(2 * bits + 1) * 0x1p-53
    return -CanonicalMath.log(-CanonicalMath.log(u))
  }

  /// No noise is higher: −ln(−ln(1 − 2⁻⁵³)) is 36.737.
  static let highest = 36.75

  /// What `value(bits)` does not exceed, without a logarithm: −ln(−ln u) ≤ −ln(1 − u), rounded up to a power of two.
  @inline(__always)
  static func bound(_ bits: UInt64) -> Double {
    let complement = (1 << 53) - (2 * bits + 1)
    return Double(complement.leadingZeroBitCount - 10) * 0.693_147_2
  }
}

/// Philox4x32-10: a block of random bits for each counter (Salmon et al., SC 2011, doi:10.1145/2063384.2063405).
package enum Philox {
  /// The block of `counter` under `key`.
  @inline(__always)
  package static func block(
    counter: (UInt32, UInt32, UInt32, UInt32), key: (UInt32, UInt32)
  ) -> (UInt32, UInt32, UInt32, UInt32) {
    var (c, k) = (counter, key)
    for _ in 0..<10 {
      let first = UInt64(c.0) * 0xD251_1F53
      let second = UInt64(c.2) * 0xCD9E_8D57
      c = (
        UInt32(second >> 32) ^ c.1 ^ k.0, UInt32(truncatingIfNeeded: second),
        UInt32(first >> 32) ^ c.3 ^ k.1, UInt32(truncatingIfNeeded: first)
      )
      k = (k.0 &+ 0x9E37_79B9, k.1 &+ 0xBB67_AE85)
    }
    return c
  }
}
