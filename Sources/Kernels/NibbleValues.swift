/// What nibbles stand for, in types that look them up.
struct NibbleValues {
  static let iq4 = NibbleValues(
    values: [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
  /// E2M1 (OCP Microscaling Formats 1.0, 5.3.3), doubled.
  static let e2m1 = NibbleValues(values: [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12])

  let values: [Float]
  /// The nibble for each half from −128 on, [512]: where two values are equally near, a half begins.
  private let nearest: [UInt8]

  private init(values: [Float]) {
    self.values = values
    nearest = (0..<512).map { half in
      let middle = (Float(half) + 0.5) / 2 - 128
      let best = values.indices.min {
        (values[$0] - middle).magnitude < (values[$1] - middle).magnitude
      }
      return UInt8(best ?? 0)
    }
  }

  subscript(nibble: UInt8) -> Float { values[Int(nibble & 15)] }

  /// The nibble of the value nearest to `value`.
  func nibble(nearestTo value: Float) -> UInt8 {
    let half = 2 * value + 256
    // Written so that NaN becomes 0.
    return nearest[half > 0 ? half < 511 ? Int(half) : 511 : 0]
  }
}
