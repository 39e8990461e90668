/// Attends over the blocks of the prompt that the tokens at its end attended to most, and over all that
/// follows (SnapKV, arXiv:2404.14469 §4.2).
///
/// Deviations: the unit is a block of 128 positions, so that no pooling over neighbours is needed;
/// blocks are chosen for each KV head by the sum over its queries, as the paper's models have one KV
/// head for each; nothing is deleted.
final class SnapKVPolicy: KeyValuePolicy {
  /// The paper's code observes as many.
  static let windowLength = 64

  let observedTokenCount = SnapKVPolicy.windowLength

  private let shape: KeyValueShape
  private let slabCount: Int
  /// Of each layer: slabs that a choice was made among.
  private var chosenFrom: [Range<Int>]
  /// Blocks that were chosen [layerCount, slabCount, keyValueHeadCount].
  private var isChosen: [Bool]

  init(_ shape: KeyValueShape, slabCount: Int) {
    self.shape = shape
    self.slabCount = slabCount
    chosenFrom = Array(repeating: 0..<0, count: shape.layerCount)
    isChosen = Array(repeating: false, count: shape.rowCount * shape.keyValueHeadCount)
  }

  func observe(_ weights: BlockWeights, layer: Int) {
    chosenFrom[layer] = weights.slabs
    for head in 0..<shape.keyValueHeadCount {
      let shares = weights.shares(ofHead: head)
      // The window itself stays; ties go to the earlier block.
      let ranking = shares.indices.dropLast().sorted {
        (shares[$1], $0) < (shares[$0], $1)
      }
      for slab in weights.slabs { isChosen[index(layer, slab, head)] = false }
      for place in ranking.prefix(max(0, slabCount - 1)) + shares.indices.suffix(1) {
        isChosen[index(layer, weights.slabs.lowerBound + place, head)] = true
      }
    }
  }

  func plan(layer: Int, queries: UnsafePointer<Float>?, into plan: BlockPlan) {
    for slab in plan.slabs {
      for head in 0..<shape.keyValueHeadCount
      where !chosenFrom[layer].contains(slab) || isChosen[index(layer, slab, head)] {
        plan.include(slab: slab, head: head)
      }
    }
  }

  func reset() {
    for layer in 0..<shape.layerCount { chosenFrom[layer] = 0..<0 }
  }

  private func index(_ layer: Int, _ slab: Int, _ head: Int) -> Int {
    (layer * shape.slabCount + slab) * shape.keyValueHeadCount + head
  }
}
