import Glibc

/// RoPE's angles, computed in f64.
public struct RopeTable: Sendable {
  /// Radians per position of each pair.
  private let frequencies: [Double]
  /// Factor on cosines and sines.
  private let magnitude: Double

  /// - Parameters:
  ///   - base: frequencies are base^(−2i / dimensionCount).
  ///   - dimensionCount: rotated elements of a head; even.
  ///   - linearScale: positions are divided by it.
  ///   - frequencyFactors: divisors [dimensionCount / 2] (Llama 3's scaling, YaRN, longrope).
  ///   - magnitude: factor on cosines and sines (YaRN's and longrope's "attention factor").
  public init(
    base: Double, dimensionCount: Int, linearScale: Double = 1,
    frequencyFactors: UnsafePointer<Float>? = nil, magnitude: Double = 1
  ) {
    self.magnitude = magnitude
    frequencies = (0..<dimensionCount / 2).map { pair in
      let factor = frequencyFactors.map { Double($0[pair]) } ?? 1
      return pow(base, -2 * Double(pair) / Double(dimensionCount)) / factor / linearScale
    }
  }

  /// Writes cosines and sines [dimensionCount / 2] of `position`.
  public func fill(
    position: Int, cosines: UnsafeMutablePointer<Float>, sines: UnsafeMutablePointer<Float>
  ) {
    for (pair, frequency) in frequencies.enumerated() {
      let angle = Double(position) * frequency
      cosines[pair] = Float(magnitude * cos(angle))
      sines[pair] = Float(magnitude * sin(angle))
    }
  }
}
