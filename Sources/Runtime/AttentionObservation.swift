import KVCache
import Kernels
import TensorBasics

/// What each block of a layer weighs in the attention of the tokens at a prompt's end, for policies that
/// choose blocks by it.
final class AttentionObservation {
  private let shape: AttentionShape
  private let pool: ThreadPool
  private let memory: AlignedBuffer
  private let workerByteCount: Int
  /// [pageGroupCount, keyValueHeadCount, queryCount] of the current layer.
  private let maxima: UnsafeMutablePointer<Float>
  private let sums: UnsafeMutablePointer<Float>

  /// - Parameter tokenCount: as `KeyValueStore.observedTokenCount`; of 0 there is nothing to observe, and the result
  ///   is nil.
  init?(
    _ shape: AttentionShape, _ keyValues: KeyValueShape, tokenCount: Int, pool: ThreadPool
  ) throws(RuntimeError) {
    guard tokenCount > 0 else { return nil }
    self.shape = shape
    self.pool = pool
    workerByteCount = AttentionWorkerArea.byteCount(
      shape, keyValues, queryCount: shape.groupSize)
    do {
      memory = try AlignedBuffer(
        byteCount: Self.byteCount(
          [shape], keyValues, tokenCount: tokenCount, threadCount: pool.threadCount))
    } catch { throw .allocation(error) }
    let count = keyValues.pageGroupCount * shape.queryHeadCount * tokenCount
    maxima = (memory.address + pool.threadCount * workerByteCount).bindMemory(
      to: Float.self, capacity: 2 * count)
    sums = maxima + count
  }

  /// Memory for observing `tokenCount` tokens of layers that have the same heads.
  static func byteCount(
    _ shapes: [AttentionShape], _ keyValues: KeyValueShape, tokenCount: Int, threadCount: Int
  ) -> Int {
    guard tokenCount > 0, let shape = shapes.first else { return 0 }
    return AlignedBuffer.roundedUp(
      threadCount
        * AttentionWorkerArea.byteCount(shape, keyValues, queryCount: shape.groupSize)
        + 8 * keyValues.pageGroupCount * shape.queryHeadCount * tokenCount)
  }

  /// Weighs the blocks of `tiles` before the observed positions for those of them that are in a chunk; the
  /// tiles are in memory.
  ///
  /// - Parameters:
  ///   - queries: [tokenCount, queryHeadCount, headDim], scaled and rotated.
  ///   - position: of the first of these tokens.
  func weigh(
    layer: Int, queries: UnsafePointer<Float>, tokenCount: Int, position: Int, window: Int?,
    tiles: Range<Int>, _ cache: KeyValueStore
  ) {
    guard let extent = extent(cache, position: position, tokenCount: tokenCount, window: window)
    else { return }
    let (pageGroups, observed) = (extent.pageGroups, extent.tokens)
    let here = pageGroups.clamped(
      to: tiles.lowerBound * AttentionTile.blockCount..<tiles.upperBound * AttentionTile.blockCount)
    guard !here.isEmpty else { return }
    let heads = shape.keyValueHeadCount
    // Safety: read by all workers, written by none.
    nonisolated(unsafe) let queries = queries
    pool.run(count: here.count * heads) { index, worker in
      let (pageGroup, head) = (here.lowerBound + index / heads, index % heads)
      let area = AttentionWorkerArea(
        memory.address + worker * workerByteCount, shape, queryCount: shape.groupSize)
      let place =
        ((pageGroup - pageGroups.lowerBound) * heads + head) * shape.groupSize * observed.count
      let block = cache.expandedBlock(
        layer: layer, head: head, pageGroup: pageGroup, expansion: area.expansion)
      for token in 0..<observed.count {
        let at = observed.lowerBound + token
        weigh(
          pageGroup: pageGroup, block: block,
          queries: queries
            + ((at - position) * shape.queryHeadCount + head * shape.groupSize) * shape.headDim,
          visible: AttentionStep.visible(at, window), area)
        (maxima + place + token * shape.groupSize).update(
          from: area.partials.maxima, count: shape.groupSize)
        (sums + place + token * shape.groupSize).update(
          from: area.partials.sums, count: shape.groupSize)
      }
    }
  }

  /// Hands what was weighed in a layer to the policy.
  func end(
    layer: Int, position: Int, tokenCount: Int, window: Int?, _ cache: KeyValueStore
  ) {
    guard let extent = extent(cache, position: position, tokenCount: tokenCount, window: window)
    else { return }
    cache.observe(
      BlockWeights(
        pageGroups: extent.pageGroups, keyValueHeadCount: shape.keyValueHeadCount,
        queryCount: shape.groupSize * extent.tokens.count, isFirst: extent.isFirst,
        maxima: maxima, sums: sums),
      layer: layer)
  }

  /// One token's attention over one block alone.
  private func weigh(
    pageGroup: Int, block: UnsafeRawPointer?, queries: UnsafePointer<Float>, visible: VisibleRange,
    _ area: AttentionWorkerArea
  ) {
    let (tile, index) = pageGroup.quotientAndRemainder(dividingBy: AttentionTile.blockCount)
    for other in 0..<AttentionTile.blockCount {
      AttentionTile.place(
        other == index ? block : nil, at: other, headDim: shape.headDim, in: area.groups)
    }
    for member in 0..<shape.groupSize { area.visible[member] = visible }
    area.partials.reset()
    AttentionKernel.accumulate(
      groups: area.groups, tileFirstPosition: tile * AttentionTile.positionCount,
      headDim: shape.headDim, queries: queries, queryStride: shape.headDim,
      visible: area.visible, queryCount: shape.groupSize, into: area.partials,
      scratch: area.scratch)
  }

  /// What is weighed with a chunk's tokens.
  private struct Extent {
    /// Page groups before the observed positions that the first of them sees.
    var pageGroups: Range<Int>
    /// Positions of the chunk that are observed, and whether the first of all is among them.
    var tokens: Range<Int>
    var isFirst: Bool
  }

  /// Nil where nothing of a chunk is observed.
  private func extent(
    _ cache: KeyValueStore, position: Int, tokenCount: Int, window: Int?
  ) -> Extent? {
    guard let positions = cache.observedPositions else { return nil }
    let end = positions.lowerBound / KeyValueBlock.positionCount
    let first =
      Int(AttentionStep.visible(positions.lowerBound, window).first) / KeyValueBlock.positionCount
    let tokens = positions.clamped(to: position..<position + tokenCount)
    return Extent(
      pageGroups: min(first, end)..<end, tokens: tokens,
      isFirst: tokens.lowerBound == positions.lowerBound)
  }
}
