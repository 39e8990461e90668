import TensorBasics

/// What the five types have in common whose blocks of 256 scale parts of 16 or 32 columns: a value is
/// scale · factor · quant − minimum · offset, with an integer factor, and where there is one an integer offset, of a part.
struct SuperBlockForm {
  let partLength: Int
  let quants: ClosedRange<Float>
  let factors: ClosedRange<Float>
  let hasMinimum: Bool

  init?(_ type: ElementType) {
    switch type {
    case .q2_K: self.init(16, 0...3, 0...15, hasMinimum: true)
    case .q3_K: self.init(16, -4...3, -32...31, hasMinimum: false)
    case .q4_K: self.init(32, 0...15, 0...63, hasMinimum: true)
    case .q5_K: self.init(32, 0...31, 0...63, hasMinimum: true)
    case .q6_K: self.init(16, -32...31, -128...127, hasMinimum: false)
    default: return nil
    }
  }

  private init(
    _ partLength: Int, _ quants: ClosedRange<Float>, _ factors: ClosedRange<Float>,
    hasMinimum: Bool
  ) {
    (self.partLength, self.quants, self.factors) = (partLength, quants, factors)
    self.hasMinimum = hasMinimum
  }
}

/// Finds the integers and the two scales of a block of 256.
///
/// Parts are searched by themselves; the largest scale gets the largest factor. Then, in turns, each part takes the best of
/// the factors and offsets around its own, and the scales of the block are fitted to all its integers, as long as
/// the error falls.
final class SuperBlock {
  static let length = 256

  let form: SuperBlockForm
  private(set) var scale: Float = 0
  private(set) var minimum: Float = 0
  /// [partCount], as `offsets`.
  private(set) var factors: [Float]
  private(set) var offsets: [Float]
  /// The quants, [256].
  private(set) var quants = [Float](repeating: 0, count: length)
  private var weights = [Float](repeating: 0, count: length)

  var partCount: Int { Self.length / form.partLength }

  init(_ form: SuperBlockForm) {
    self.form = form
    factors = [Float](repeating: 0, count: Self.length / form.partLength)
    offsets = factors
  }

  /// - Parameter values: [256].
  func fit(_ values: UnsafePointer<Float>) {
    weigh(values)
    start(values)
    var error = adjustParts(values)
    for _ in 0..<2 {
      let before = (scale, minimum, factors, offsets)
      guard refit(values) else { break }
      let refitted = adjustParts(values)
      guard refitted < error else {
        (scale, minimum, factors, offsets) = before
        break
      }
      error = refitted
    }
    quantise(values)
  }

  private func weigh(_ values: UnsafePointer<Float>) {
    for part in 0..<partCount {
      let first = part * form.partLength
      var squares = Lanes.zero
      for start in stride(from: first, to: first + form.partLength, by: 16) {
        let x = Lanes(at: values + start)
        squares += x * x
      }
      let deviation = (squares.total / Float(form.partLength)).squareRoot()
      for index in first..<first + form.partLength {
        weights[index] = deviation + values[index].magnitude
      }
    }
  }

  /// The first integers and scales: those of each part by itself.
  private func start(_ values: UnsafePointer<Float>) {
    let search = ScaleSearch(quants: form.quants, trialCount: 9, trialStep: 0.1)
    for part in 0..<partCount {
      let first = part * form.partLength
      weights.withUnsafeBufferPointer { weights in
        let weights = weights.baseAddress.unsafelyUnwrapped + first
        if form.hasMinimum {
          (factors[part], offsets[part]) = search.affine(values + first, weights, form.partLength)
        } else {
          factors[part] = search.symmetric(values + first, weights, form.partLength)
        }
      }
    }
    if form.hasMinimum {
      scale = rounded((factors.max() ?? 0) / form.factors.upperBound)
      minimum = rounded((offsets.max() ?? 0) / form.factors.upperBound)
    } else {
      // The range of factors reaches one further down.
      var extreme: Float = 0
      for factor in factors where factor.magnitude > extreme.magnitude { extreme = factor }
      scale = rounded(extreme / form.factors.lowerBound)
      minimum = 0
    }
    for part in 0..<partCount {
      factors[part] = nearestFactor(factors[part], scale)
      offsets[part] = nearestFactor(offsets[part], minimum)
    }
  }

  private func rounded(_ value: Float) -> Float { Float(Float16(value)) }

  private func nearestFactor(_ value: Float, _ scale: Float) -> Float {
    guard scale != 0 else { return 0 }
    return limited((value / scale).rounded(.toNearestOrEven))
  }

  private func limited(_ factor: Float) -> Float {
    max(form.factors.lowerBound, min(form.factors.upperBound, factor))
  }

  /// Gives each part the best factor and offset near its own; returns the block's error.
  private func adjustParts(_ values: UnsafePointer<Float>) -> Float {
    var total: Float = 0
    for part in 0..<partCount {
      let (factor, offset) = (factors[part], offsets[part])
      var least = Float.infinity
      for offsetStep: Float in form.hasMinimum ? [0, -1, 1] : [0] {
        for factorStep: Float in [0, -1, 1] {
          let (f, o) = (limited(factor + factorStep), limited(offset + offsetStep))
          let error = partError(values, part, scale * f, minimum * o)
          if error < least { (least, factors[part], offsets[part]) = (error, f, o) }
        }
      }
      total += least
    }
    return total
  }

  @inline(__always)
  private func partQuants(_ x: Lanes, _ inverse: Float, _ offset: Float) -> Lanes {
    ((x + offset) * inverse).limited(form.quants.lowerBound, form.quants.upperBound).nearest
  }

  /// The weighted squared error of a part under `step` · quant − `offset`.
  private func partError(
    _ values: UnsafePointer<Float>, _ part: Int, _ step: Float, _ offset: Float
  ) -> Float {
    let inverse = step == 0 ? 0 : 1 / step
    var errors = Lanes.zero
    weights.withUnsafeBufferPointer { weights in
      let weights = weights.baseAddress.unsafelyUnwrapped
      let first = part * form.partLength
      for start in stride(from: first, to: first + form.partLength, by: 16) {
        let x = Lanes(at: values + start)
        let difference = x + offset - partQuants(x, inverse, offset) * step
        errors += Lanes(at: weights + start) * difference * difference
      }
    }
    return errors.total
  }

  /// Fits the scales to the integers by least squares; false where that changes nothing.
  private func refit(_ values: UnsafePointer<Float>) -> Bool {
    quantise(values)
    // Of the values s · a − m · b: a = factor · quant, b = offset.
    var (aa, ab, bb, ax, bx) = (Lanes.zero, Lanes.zero, Lanes.zero, Lanes.zero, Lanes.zero)
    quants.withUnsafeBufferPointer { quants in
      weights.withUnsafeBufferPointer { weights in
        for start in stride(from: 0, to: Self.length, by: 16) {
          let part = start / form.partLength
          let x = Lanes(at: values + start)
          let weight = Lanes(at: weights.baseAddress.unsafelyUnwrapped + start)
          let a = Lanes(at: quants.baseAddress.unsafelyUnwrapped + start) * factors[part]
          aa += weight * a * a
          ax += weight * a * x
          guard form.hasMinimum else { continue }
          ab += weight * a * offsets[part]
          bb += weight * offsets[part] * offsets[part]
          bx += weight * x * offsets[part]
        }
      }
    }
    let fitted = Self.solution(aa.total, ab.total, bb.total, ax.total, bx.total)
    let (newScale, newMinimum) = (rounded(fitted.scale), rounded(fitted.minimum))
    guard newScale.isFinite, newMinimum.isFinite, newMinimum >= 0,
      !form.hasMinimum || newScale >= 0, (newScale, newMinimum) != (scale, minimum)
    else { return false }
    (scale, minimum) = (newScale, newMinimum)
    return true
  }

  /// The s and m of least Σ w (s a − m b − x)².
  private static func solution(
    _ aa: Float, _ ab: Float, _ bb: Float, _ ax: Float, _ bx: Float
  ) -> (scale: Float, minimum: Float) {
    let determinant = aa * bb - ab * ab
    guard bb > 0, determinant > 0 else { return (aa > 0 ? ax / aa : 0, 0) }
    return ((ax * bb - bx * ab) / determinant, (ax * ab - bx * aa) / determinant)
  }

  private func quantise(_ values: UnsafePointer<Float>) {
    for start in stride(from: 0, to: Self.length, by: 16) {
      let part = start / form.partLength
      let step = scale * factors[part]
      let q = partQuants(
        Lanes(at: values + start), step == 0 ? 0 : 1 / step, minimum * offsets[part])
      for lane in 0..<16 { quants[start + lane] = q[lane] }
    }
  }
}
