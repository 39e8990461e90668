import Kernels
import ModelFormat

/// How a row's experts are chosen by its scores, and weighed: by a layer's router, and by what foresees it.
struct ExpertChoice {
  private let experts: ExpertConfiguration

  init(_ experts: ExpertConfiguration) { self.experts = experts }

  /// Floats of a row: its scores, then the numbers that experts are chosen by, where these are others.
  var rowLength: Int { Self.rowLength(experts) }

  static func rowLength(_ experts: ExpertConfiguration) -> Int {
    experts.routing.choosesByOtherNumbers ? 2 * experts.expertCount : experts.expertCount
  }

  /// Writes the chosen experts of a row, the highest first, ties to the lower number, and their weights.
  ///
  /// Where scores are no numbers, any experts are chosen, each once, as there is no room for more rows of one.
  ///
  /// - Parameters:
  ///   - row: what the router's product is [expertCount] of ``rowLength``; its contents are lost.
  ///   - chosen: [expertsPerToken], as `weights`.
  func choose(
    _ row: UnsafeMutablePointer<Float>, _ layer: DecoderWeights.Experts,
    into chosen: UnsafeMutablePointer<Int32>, weights: UnsafeMutablePointer<Float>
  ) {
    let (count, used) = (experts.expertCount, experts.expertsPerToken)
    if let bias = layer.routerBias { VectorOps.add(row, bias, count: count) }
    let total = score(row)
    var keys = row
    if experts.routing.choosesByOtherNumbers {
      keys += count
      keys.update(from: row, count: count)
      if let bias = layer.selectionBias { VectorOps.add(keys, bias, count: count) }
      if let groups = experts.routing.groups { keep(groups, keys) }
    }
    var chosenTotal: Float = 0
    for rank in 0..<used {
      var best = -1
      for expert in 0..<count
      where keys[expert] > -.infinity && (best < 0 || keys[expert] > keys[best]) {
        best = expert
      }
      if best < 0 { best = lowest(notAmong: chosen, rank) }
      chosen[rank] = Int32(best)
      weights[rank] = row[best] / total
      chosenTotal += weights[rank]
      keys[best] = -.infinity
    }
    if experts.normalisesWeights {
      if experts.routing.score == .sigmoid { chosenTotal += Self.leastTotal }
      for rank in 0..<used { weights[rank] /= chosenTotal }
    }
    let scale = experts.routing.scale
    if scale != 1 { for rank in 0..<used { weights[rank] *= scale } }
  }

  /// What keeps a sum of sigmoids, each of them 0, from being divided by.
  private static let leastTotal: Float = 1e-20

  /// Turns products into scores, but for a divisor that all have in common, and returns that.
  private func score(_ row: UnsafeMutablePointer<Float>) -> Float {
    let count = experts.expertCount
    switch experts.routing.score {
    case .softmax:
      var highest = row[0]
      for expert in 1..<count where row[expert] > highest { highest = row[expert] }
      for expert in 0..<count { row[expert] -= highest }
      VectorOps.exp(row, count: count)
      var total: Float = 0
      for expert in 0..<count { total += row[expert] }
      return total
    case .sigmoid:
      for expert in 0..<count { row[expert] = -row[expert] }
      VectorOps.exp(row, count: count)
      for expert in 0..<count { row[expert] = 1 / (1 + row[expert]) }
      return 1
    }
  }

  /// Leaves the keys of the groups whose best two are the highest in sum, and makes all others the lowest.
  private func keep(_ groups: ExpertRouting.Groups, _ keys: UnsafeMutablePointer<Float>) {
    let length = experts.expertCount / groups.count
    func sum(_ group: Int) -> Float {
      var (first, second) = (-Float.infinity, -Float.infinity)
      for expert in group * length..<(group + 1) * length {
        if keys[expert] > first {
          (first, second) = (keys[expert], first)
        } else if keys[expert] > second {
          second = keys[expert]
        }
      }
      return first + second
    }
    // A group goes whose sum is the lowest of those left, the last among equals: then its sum is -infinity.
    for _ in groups.usedCount..<groups.count {
      var worst = -1
      var lowest = Float.infinity
      for group in 0..<groups.count {
        let sum = sum(group)
        if sum > -.infinity, sum <= lowest { (worst, lowest) = (group, sum) }
      }
      guard worst >= 0 else { return }
      (keys + worst * length).update(repeating: -.infinity, count: length)
    }
  }

  private func lowest(notAmong chosen: UnsafePointer<Int32>, _ count: Int) -> Int {
    var expert = 0
    while (0..<count).contains(where: { chosen[$0] == Int32(expert) }) { expert += 1 }
    return expert
  }
}
