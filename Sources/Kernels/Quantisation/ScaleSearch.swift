import Glibc

/// Scales for 16 or 32 values that share one, by trial: each step width that is tried gives quants, those quants
/// give the scale with the least weighted squared error, and the best of all trials wins.
struct ScaleSearch {
  /// Quants lie in this range.
  let quants: ClosedRange<Float>
  /// How many trials there are on each side of the step width that uses the whole range.
  let trialCount: Int
  /// What a trial adds to the number of steps.
  let trialStep: Float

  /// A scale s for values s · q, negative where the extreme value is positive: the range reaches further down.
  ///
  /// - Parameters:
  ///   - values: [count], as are `weights`.
  ///   - count: a multiple of 16.
  func symmetric(
    _ values: UnsafePointer<Float>, _ weights: UnsafePointer<Float>, _ count: Int
  ) -> Float {
    var extreme: Float = 0
    for index in 0..<count where values[index].magnitude > extreme.magnitude {
      extreme = values[index]
    }
    guard extreme != 0 else { return 0 }
    var (best, scale): (Float, Float) = (0, 0)
    for trial in -trialCount...trialCount {
      let inverse = (quants.lowerBound + trialStep * Float(trial)) / extreme
      var (products, squares) = (Lanes.zero, Lanes.zero)
      for start in stride(from: 0, to: count, by: 16) {
        let x = Lanes(at: values + start)
        let q = (x * inverse).limited(quants.lowerBound, quants.upperBound).nearest
        let weighted = Lanes(at: weights + start) * q
        products += weighted * x
        squares += weighted * q
      }
      let (product, square) = (products.total, squares.total)
      // What the scale takes off the error.
      if square > 0, product / square * product > best {
        best = product / square * product
        scale = product / square
      }
    }
    return scale
  }

  /// A scale s ≥ 0 and a minimum m ≥ 0 for values s · q − m.
  func affine(
    _ values: UnsafePointer<Float>, _ weights: UnsafePointer<Float>, _ count: Int
  ) -> (scale: Float, minimum: Float) {
    var (lowest, highest): (Float, Float) = (0, values[0])
    var (weightSum, valueSum) = (Lanes.zero, Lanes.zero)
    for start in stride(from: 0, to: count, by: 16) {
      let weight = Lanes(at: weights + start)
      weightSum += weight
      valueSum += weight * Lanes(at: values + start)
    }
    for index in 0..<count {
      lowest = min(lowest, values[index])
      highest = max(highest, values[index])
    }
    guard highest > lowest else { return (0, -lowest) }
    let (sumW, sumX) = (weightSum.total, valueSum.total)
    var (least, scale, minimum): (Float, Float, Float) = (.infinity, 0, -lowest)
    for trial in -trialCount...trialCount {
      let inverse = (quants.upperBound + trialStep * Float(trial)) / (highest - lowest)
      let sums = quantSums(values, weights, count, inverse, lowest)
      guard sums.qq > 0 else { continue }
      let determinant = sumW * sums.qq - sums.q * sums.q
      var s = (sumW * sums.qx - sumX * sums.q) / determinant
      var m = (sums.q * sums.qx - sums.qq * sumX) / determinant
      // Where all quants are equal any minimum would do, and rounding would choose it.
      if determinant <= 1e-6 * sumW * sums.qq || m < 0 { (s, m) = (sums.qx / sums.qq, 0) }
      // The error less its part that no scale changes.
      let error =
        s * (s * sums.qq - 2 * (sums.qx + m * sums.q)) + m * (m * sumW + 2 * sumX)
      if error < least { (least, scale, minimum) = (error, s, m) }
    }
    return (scale, minimum)
  }

  private func quantSums(
    _ values: UnsafePointer<Float>, _ weights: UnsafePointer<Float>, _ count: Int,
    _ inverse: Float, _ lowest: Float
  ) -> (q: Float, qq: Float, qx: Float) {
    var (sum, squares, products) = (Lanes.zero, Lanes.zero, Lanes.zero)
    for start in stride(from: 0, to: count, by: 16) {
      let x = Lanes(at: values + start)
      let q = ((x - lowest) * inverse).limited(quants.lowerBound, quants.upperBound).nearest
      let weighted = Lanes(at: weights + start) * q
      sum += weighted
      squares += weighted * q
      products += weighted * x
    }
    return (sum.total, squares.total, products.total)
  }
}
