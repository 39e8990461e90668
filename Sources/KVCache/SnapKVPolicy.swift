/// Attends over the blocks of the prompt that the tokens at its end attended to most, and over all that
/// follows (SnapKV, arXiv:2404.14469 §4.2).
///
/// Deviations: the unit is a block of 128 positions, so that no pooling over neighbours is needed;
/// blocks are chosen for each KV head by the sum over its queries, as the paper's models have one KV
/// head for each; nothing is deleted.
final class SnapKVPolicy: KeyValuePolicy {
  /// The same number as in the paper's code.
  static let windowLength = 64

  let observedTokenCount = SnapKVPolicy.windowLength

  private let shape: KeyValueShape
  private let pageGroupCount: Int
  /// Of each layer: page groups that a choice is made among.
  private var candidates: [Range<Int>]
  /// What blocks weighed so far [layerCount, pageGroupCount, keyValueHeadCount].
  private var shares: [Double]
  /// Blocks that are chosen, of the same shape, and layers whose choice is up to date.
  private var isChosen: [Bool]
  private var isUpToDate: [Bool]

  init(_ shape: KeyValueShape, pageGroupCount: Int) {
    self.shape = shape
    self.pageGroupCount = pageGroupCount
    let blockCount = shape.pageCount * shape.keyValueHeadCount
    candidates = Array(repeating: 0..<0, count: shape.layerCount)
    shares = Array(repeating: 0, count: blockCount)
    isChosen = Array(repeating: false, count: blockCount)
    isUpToDate = Array(repeating: false, count: shape.layerCount)
  }

  static func byteCount(_ shape: KeyValueShape) -> Int {
    shape.pageCount * shape.keyValueHeadCount * 9
  }

  func observe(_ weights: BlockWeights, layer: Int) {
    if weights.isFirst {
      for pageGroup in weights.pageGroups {
        for head in 0..<shape.keyValueHeadCount { shares[index(layer, pageGroup, head)] = 0 }
      }
    }
    candidates[layer] = weights.pageGroups
    isUpToDate[layer] = false
    for head in 0..<shape.keyValueHeadCount {
      weights.addShares(ofHead: head, to: &shares) { index(layer, $0, head) }
    }
  }

  func plan(layer: Int, queries: UnsafePointer<Float>?, into plan: BlockPlan) {
    if !isUpToDate[layer] { choose(layer) }
    for pageGroup in plan.pageGroups {
      for head in 0..<shape.keyValueHeadCount
      where !candidates[layer].contains(pageGroup) || isChosen[index(layer, pageGroup, head)] {
        plan.include(pageGroup: pageGroup, head: head)
      }
    }
  }

  /// Chooses a layer's blocks that weigh most, one page group less than there is room for: the observed tokens' own.
  private func choose(_ layer: Int) {
    for head in 0..<shape.keyValueHeadCount {
      // Ties go to the earlier block.
      let ranking = candidates[layer].sorted {
        (shares[index(layer, $1, head)], $0) < (shares[index(layer, $0, head)], $1)
      }
      for (rank, pageGroup) in ranking.enumerated() {
        isChosen[index(layer, pageGroup, head)] = rank < pageGroupCount - 1
      }
    }
    isUpToDate[layer] = true
  }

  func adopt(_ other: any KeyValuePolicy) {
    guard let other = other as? SnapKVPolicy else { return }
    (candidates, shares) = (other.candidates, other.shares)
    (isChosen, isUpToDate) = (other.isChosen, other.isUpToDate)
  }

  func reset() {
    for layer in 0..<shape.layerCount { candidates[layer] = 0..<0 }
  }

  private func index(_ layer: Int, _ pageGroup: Int, _ head: Int) -> Int {
    (layer * shape.pageGroupCount + pageGroup) * shape.keyValueHeadCount + head
  }
}
