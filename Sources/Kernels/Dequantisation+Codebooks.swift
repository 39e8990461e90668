import CKernels

/// Types whose quants are looked up, and those of one to two bits a weight.
extension WeightBlock {
  typealias Target = UnsafeMutablePointer<Float>

  /// An exponent of 8 bits, bias 127, halved: 2^(e − 128). 255, which OCP calls NaN, is 2^127 as in ggml.
  func e8m0(_ offset: Int) -> Float {
    let exponent = uint8(offset)
    return Float(
      bitPattern: exponent < 2 ? 0x0020_0000 << UInt32(exponent) : UInt32(exponent - 1) << 23)
  }

  /// Four bits of exponent, bias 7, and three of mantissa, halved. The sign bit counts for nothing, and 0x7F
  /// is 0, as in ggml.
  func ue4m3(_ offset: Int) -> Float {
    let bits = uint8(offset)
    guard bits != 0x7F else { return 0 }
    return Float(Float16(bitPattern: UInt16(bits & 0x7F) << 7)) * 128
  }

  /// Thirty-two columns: nibble j of sixteen bytes is column j, its upper half column j + 16.
  func lookedUp(to target: Target, scale: Float, nibbles: Int, _ values: NibbleValues) {
    for j in 0..<16 {
      let byte = uint8(nibbles + j)
      target[j] = scale * values[byte]
      target[j + 16] = scale * values[byte >> 4]
    }
  }

  func iq4XS(to target: Target) {
    for sub in 0..<8 {
      let low = uint8(4 + sub / 2) >> UInt8(4 * (sub % 2)) & 15
      let high = UInt8(truncatingIfNeeded: uint16(2) >> UInt16(2 * sub)) & 3
      lookedUp(
        to: target + 32 * sub, scale: half(0) * Float(Int(low | high << 4) - 32),
        nibbles: 8 + 16 * sub, .iq4)
    }
  }

  func nvfp4(to target: Target) {
    for sub in 0..<4 {
      let scale = ue4m3(sub)
      for j in 0..<8 {
        let byte = uint8(4 + 8 * sub + j)
        target[16 * sub + j] = scale * NibbleValues.e2m1[byte]
        target[16 * sub + j + 8] = scale * NibbleValues.e2m1[byte >> 4]
      }
    }
  }

  func q1(to target: Target) {
    for j in 0..<128 {
      target[j] = uint8(2 + j / 8) >> UInt8(j % 8) & 1 == 1 ? half(0) : -half(0)
    }
  }

  func q2(to target: Target) {
    for j in 0..<64 {
      target[j] = half(0) * Float(Int(uint8(2 + j / 4) >> UInt8(2 * (j % 4)) & 3) - 1)
    }
  }

  func tq1(to target: Target) {
    let powers: [UInt8] = [1, 3, 9, 27, 81]
    var index = 0
    for (start, count, digits) in [(0, 32, 5), (32, 16, 5), (48, 4, 4)] {
      for digit in 0..<digits {
        for byte in start..<start + count {
          let fraction = uint8(byte) &* powers[digit]
          target[index] = half(52) * Float(Int((UInt16(fraction) * 3) >> 8) - 1)
          index += 1
        }
      }
    }
  }

  func tq2(to target: Target) {
    for j in 0..<256 {
      let quant = uint8(j / 128 * 32 + j % 32) >> UInt8(j % 128 / 32 * 2) & 3
      target[j] = half(64) * Float(Int(quant) - 1)
    }
  }

  // MARK: - Codebooks

  /// The eighth sign makes the number of minuses even.
  private func eight(_ seven: UInt32) -> UInt32 {
    let signs = seven & 127
    return signs | UInt32(signs.nonzeroBitCount & 1) << 7
  }

  /// Eight columns of IQ2.
  private func iq2(_ entry: UInt16, signs: UInt32, scale: Float, to target: Target) {
    let magnitudes: [Float] = [8, 25, 43, 0]
    for j in 0..<8 {
      let magnitude = magnitudes[Int(entry >> UInt16(2 * j) & 3)]
      target[j] = scale * (signs >> UInt32(j) & 1 == 1 ? -magnitude : magnitude)
    }
  }

  func iq2XXS(to target: Target) {
    withCodebook(CK_IQ2_XXS) { codebook in
      for sub in 0..<8 {
        let bits = uint32(2 + 8 * sub + 4)
        let scale = half(0) * (0.5 + Float(bits >> 28)) * 0.25
        for group in 0..<4 {
          iq2(
            codebook[Int(uint8(2 + 8 * sub + group))], signs: eight(bits >> UInt32(7 * group)),
            scale: scale, to: target + 32 * sub + 8 * group)
        }
      }
    }
  }

  func iq2XS(to target: Target) {
    withCodebook(CK_IQ2_XS) { codebook in
      for group in 0..<32 {
        let bits = uint16(2 + 2 * group)
        let scale = half(0) * (0.5 + Float(nibble(66, group / 2))) * 0.25
        iq2(
          codebook[Int(bits & 511)], signs: eight(UInt32(bits >> 9)), scale: scale,
          to: target + 8 * group)
      }
    }
  }

  func iq2S(to target: Target) {
    withCodebook(CK_IQ2_S) { codebook in
      for group in 0..<32 {
        let high = Int(uint8(66 + group / 4) >> UInt8(2 * (group % 4)) & 3)
        let scale = half(0) * (0.5 + Float(nibble(74, group / 2))) * 0.25
        iq2(
          codebook[Int(uint8(2 + group)) | high << 8], signs: UInt32(uint8(34 + group)),
          scale: scale, to: target + 8 * group)
      }
    }
  }

  func iq3XXS(to target: Target) {
    withCodebook(CK_IQ3_XXS) { codebook in
      for quad in 0..<64 {
        let bits = uint32(66 + 4 * (quad / 8))
        let scale = half(0) * (0.5 + Float(bits >> 28)) * 0.5
        let signs = eight(bits >> UInt32(7 * (quad / 2 % 4))) >> UInt32(4 * (quad % 2))
        for j in 0..<4 {
          let code = codebook[Int(uint8(2 + quad))] >> UInt16(4 * j) & 15
          let magnitude: Float = code == 7 ? 62 : Float(4 + 8 * code)
          target[4 * quad + j] = scale * (signs >> UInt32(j) & 1 == 1 ? -magnitude : magnitude)
        }
      }
    }
  }

  func iq3S(to target: Target) {
    withCodebook(CK_IQ3_S) { codebook in
      for quad in 0..<64 {
        let high = Int(uint8(66 + quad / 8) >> UInt8(quad % 8) & 1)
        let scale = half(0) * Float(1 + 2 * Int(nibble(106, quad / 8)))
        let signs = uint8(74 + quad / 2) >> UInt8(4 * (quad % 2))
        for j in 0..<4 {
          let code = codebook[Int(uint8(2 + quad)) | high << 8] >> UInt16(4 * j) & 15
          let magnitude = Float(2 * code + 1)
          target[4 * quad + j] = scale * (signs >> UInt8(j) & 1 == 1 ? -magnitude : magnitude)
        }
      }
    }
  }

  /// Eight columns of IQ1: −1, 0 or 1, all shifted by an eighth.
  private func iq1(_ entry: UInt16, isBelow: Bool, scale: Float, to target: Target) {
    let shift: Float = isBelow ? -0.125 : 0.125
    for j in 0..<8 {
      target[j] = scale * (Float(Int(entry >> UInt16(2 * j) & 3) - 1) + shift)
    }
  }

  func iq1S(to target: Target) {
    withCodebook(CK_IQ1_S) { codebook in
      for group in 0..<32 {
        let bits = uint16(34 + 2 * (group / 4))
        let high = Int(bits >> UInt16(3 * (group % 4)) & 7)
        iq1(
          codebook[Int(uint8(2 + group)) | high << 8], isBelow: bits & 0x8000 != 0,
          scale: half(0) * Float(2 * (bits >> 12 & 7) + 1), to: target + 8 * group)
      }
    }
  }

  func iq1M(to target: Target) {
    let bits = (0..<4).reduce(UInt16(0)) { $0 | (uint16(48 + 2 * $1) >> 12) << UInt16(4 * $1) }
    let block = Float(Float16(bitPattern: bits))
    withCodebook(CK_IQ1_S) { codebook in
      for group in 0..<32 {
        let high = nibble(32, group)
        let factor = uint16(48 + 2 * (group / 8)) >> UInt16(3 * (group / 2 % 4)) & 7
        iq1(
          codebook[Int(uint8(group)) | Int(high & 7) << 8], isBelow: high & 8 != 0,
          scale: block * Float(2 * factor + 1), to: target + 8 * group)
      }
    }
  }

  /// Nibble `index` of the bytes from `offset` on, the lower one of each byte first.
  private func nibble(_ offset: Int, _ index: Int) -> UInt8 {
    uint8(offset + index / 2) >> UInt8(4 * (index % 2)) & 15
  }

  private func withCodebook(_ type: ck_type, _ body: (UnsafePointer<UInt16>) -> Void) {
    guard let codebook = ck_codebook_of(Int32(type.rawValue)) else {
      preconditionFailure("type \(type.rawValue) has no codebook")
    }
    body(codebook)
  }
}
