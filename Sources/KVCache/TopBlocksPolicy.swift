import Kernels
import TensorBasics

/// Attends over the blocks that may weigh most with the token's queries, as summaries in memory tell (Quest,
/// arXiv:2406.10774 §3.2).
///
/// Each query head names its share of the blocks; a KV head's plan is what any of its queries named.
/// Deviations: a block weighs what its groups of sixteen positions are estimated to weigh together, where
/// the paper ranks pages by the bound of a single score; `docs/decisions/0020` has the figures. The first
/// block and the last complete one are always named.
final class TopBlocksPolicy: KeyValuePolicy {
  let usesQueries = true

  private let shape: KeyValueShape
  private let share: Double
  private let groupSize: Int
  /// [layerCount, keyValueHeadCount, summaryCount] of ``KeySummary``, two page groups each.
  private let summaries: AlignedBuffer
  private let summaryCount: Int
  /// Page groups that are summed up [layerCount, pageGroupCount, keyValueHeadCount].
  private var isKnown: [Bool]
  // Of the current query: of each group, and of each page group.
  private var estimates: [Float]
  private var weights: [Float]
  private var chosen: [Int32]

  /// - Throws: ``KeyValueError/allocation(_:)``.
  init(_ shape: KeyValueShape, queryHeadCount: Int, share: Double) throws(KeyValueError) {
    self.shape = shape
    self.share = share
    groupSize = queryHeadCount / shape.keyValueHeadCount
    summaryCount = Self.summaryCount(shape)
    do {
      summaries = try AlignedBuffer(
        byteCount: shape.layerCount * shape.keyValueHeadCount * summaryCount
          * KeySummary.byteCount(headDim: shape.headDim))
    } catch { throw .allocation(error) }
    isKnown = Array(repeating: false, count: shape.pageCount * shape.keyValueHeadCount)
    estimates = Array(repeating: 0, count: summaryCount * KeySummary.laneCount)
    weights = Array(repeating: 0, count: shape.pageGroupCount)
    chosen = Array(repeating: 0, count: shape.pageGroupCount)
  }

  static func byteCount(_ shape: KeyValueShape) -> Int {
    shape.layerCount * shape.keyValueHeadCount * summaryCount(shape)
      * KeySummary.byteCount(headDim: shape.headDim)
      + shape.pageGroupCount * 68 + shape.openBlockByteCount + shape.pageCount
      * shape.keyValueHeadCount
  }

  func complete(layer: Int, head: Int, pageGroup: Int, block: UnsafeRawPointer) {
    KeySummary.summarise(
      block: block, headDim: shape.headDim, firstLane: pageGroup % 2 * (KeySummary.laneCount / 2),
      into: summary(layer, head, pageGroup / 2))
    isKnown[(layer * shape.pageGroupCount + pageGroup) * shape.keyValueHeadCount + head] = true
  }

  func plan(layer: Int, queries: UnsafePointer<Float>?, into plan: BlockPlan) {
    guard let queries else { return }
    let count = plan.pageGroups.count
    let budget = Int((Double(count) * share).rounded(.up))
    for head in 0..<shape.keyValueHeadCount {
      guard budget < count else {
        for pageGroup in plan.pageGroups { plan.include(pageGroup: pageGroup, head: head) }
        continue
      }
      for member in 0..<groupSize {
        weigh(
          plan.pageGroups, layer: layer, head: head,
          query: queries + (head * groupSize + member) * shape.headDim)
        // Ties go to the earlier page group.
        weights.withUnsafeBufferPointer { weights in
          chosen.withUnsafeMutableBufferPointer { chosen in
            TopSelection.largest(
              budget, of: weights.baseAddress! + plan.pageGroups.lowerBound, valueCount: count,
              into: chosen.baseAddress!)
          }
        }
        for place in chosen[..<budget] {
          plan.include(pageGroup: plan.pageGroups.lowerBound + Int(place), head: head)
        }
      }
    }
  }

  /// What each of `pageGroups` may weigh for a query, relative to the others, in `weights`.
  private func weigh(_ pageGroups: Range<Int>, layer: Int, head: Int, query: UnsafePointer<Float>) {
    estimates.withUnsafeMutableBufferPointer { estimates in
      for index in pageGroups.lowerBound / 2...(pageGroups.upperBound - 1) / 2 {
        KeySummary.estimateScores(
          query: query, headDim: shape.headDim, summary: summary(layer, head, index),
          into: estimates.baseAddress! + index * KeySummary.laneCount)
      }
    }
    let groups = KeySummary.laneCount / 2
    let range = pageGroups.lowerBound * groups..<pageGroups.upperBound * groups
    var highest = -Float.infinity
    for group in range { highest = max(highest, estimates[group]) }
    for group in range { estimates[group] -= highest }
    estimates.withUnsafeMutableBufferPointer {
      VectorOps.exp($0.baseAddress! + range.lowerBound, count: range.count)
    }
    for pageGroup in pageGroups {
      weights[pageGroup] = 0
      for group in pageGroup * groups..<(pageGroup + 1) * groups {
        weights[pageGroup] += estimates[group]
      }
      if !isKnown[(layer * shape.pageGroupCount + pageGroup) * shape.keyValueHeadCount + head] {
        weights[pageGroup] = .infinity
      }
    }
    weights[pageGroups.lowerBound] = .infinity
    weights[pageGroups.upperBound - 1] = .infinity
  }

  func forget(fromPageGroup pageGroup: Int) {
    for layer in 0..<shape.layerCount {
      for index in pageGroup * shape.keyValueHeadCount..<shape.pageGroupCount
        * shape.keyValueHeadCount
      {
        isKnown[layer * shape.pageGroupCount * shape.keyValueHeadCount + index] = false
      }
    }
  }

  func adopt(_ other: any KeyValuePolicy) {
    guard let other = other as? TopBlocksPolicy else { return }
    summaries.address.copyMemory(
      from: other.summaries.address, byteCount: summaries.byteCount)
    isKnown = other.isKnown
  }

  func reset() {
    for index in isKnown.indices { isKnown[index] = false }
  }

  private func summary(_ layer: Int, _ head: Int, _ index: Int) -> UnsafeMutableRawPointer {
    summaries.address
      + ((layer * shape.keyValueHeadCount + head) * summaryCount + index)
      * KeySummary.byteCount(headDim: shape.headDim)
  }

  private static func summaryCount(_ shape: KeyValueShape) -> Int { (shape.pageGroupCount + 1) / 2 }
}
