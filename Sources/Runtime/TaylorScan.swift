import Kernels
import ModelFormat

/// A head's linear attention with products of two elements for keys (`ScanSpec.Inputs.taylor`), token by token.
struct TaylorScan {
  let spec: ScanSpec
  /// Room for a token's query and key as the state takes them, and its value and a 1 [`ScanSpec.expandedCount`].
  let memory: UnsafeMutablePointer<Float>

  /// Puts what a head gives in the place of its values: o = Sᵀφ(q), over the sum that the state's last column is.
  ///
  /// - Parameters:
  ///   - channels: of the first token, [tokenCount, channelCount].
  ///   - state: [`ScanSpec.headStateCount`], carried on.
  func run(
    _ channels: UnsafeMutablePointer<Float>, head: Int, state: UnsafeMutablePointer<Float>,
    tokenCount: Int
  ) {
    let (count, length) = (spec.featureCount, spec.valueLength)
    let (query, key, value) = (memory, memory + count, memory + 2 * count)
    let scan = LinearScan(
      keyCount: count, columnCount: length + 1, keyStride: 0, valueStride: 0, decay: .none,
      decayStride: 0, betaStride: 0, deletes: false)
    for token in 0..<tokenCount {
      let channels = channels + token * spec.channelCount
      expand(channels + spec.queriesStart + head * spec.keyLength, into: query)
      expand(channels + spec.keysStart + head * spec.keyLength, into: key)
      let own = channels + spec.valuesStart + head * length
      value.update(from: own, count: length)
      value[length] = 1
      scan.run(
        state: state, queries: query, keys: key, values: value, decays: nil, betas: nil,
        tokenCount: 1)
      // No term of the sum is below a half.
      let sum = value[length]
      for index in 0..<length { own[index] = value[index] / sum }
    }
  }

  /// 1, the elements over the fourth root of their number, and over its square root the products of any two, of one with
  /// itself over √2 too: φ(q)ᵀφ(k) = 1 + s + s²/2 (arXiv:2402.18668).
  private func expand(
    _ x: UnsafePointer<Float>, into features: UnsafeMutablePointer<Float>
  ) {
    let count = spec.keyLength
    let root = Float(count).squareRoot()
    let (fourthRoot, doubleRoot) = (root.squareRoot(), (2 * Float(count)).squareRoot())
    features[0] = 1
    for index in 0..<count { features[1 + index] = x[index] / fourthRoot }
    var next = 1 + count
    for first in 0..<count {
      features[next] = x[first] * x[first] / doubleRoot
      for second in first + 1..<count {
        features[next + second - first] = x[first] * x[second] / root
      }
      next += count - first
    }
  }
}
