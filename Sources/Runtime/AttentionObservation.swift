import KVCache
import Kernels
import TensorBasics

/// What each block of a layer weighs in the attention of the tokens at a prompt's end, for policies that
/// choose blocks by it.
final class AttentionObservation {
  private let shape: AttentionShape
  private let cache: KeyValueStore
  private let pool: ThreadPool
  private let memory: AlignedBuffer
  private let workerByteCount: Int
  /// [slabCount, keyValueHeadCount, queryCount] of the layer in work.
  private let maxima: UnsafeMutablePointer<Float>
  private let sums: UnsafeMutablePointer<Float>

  /// Nil where the cache's policy wants to see nothing.
  init?(
    _ shape: AttentionShape, cache: KeyValueStore, pool: ThreadPool
  ) throws(RuntimeError) {
    let tokenCount = cache.observedTokenCount
    guard tokenCount > 0 else { return nil }
    self.shape = shape
    self.cache = cache
    self.pool = pool
    workerByteCount = Self.workerByteCount(shape, cache.shape)
    do {
      memory = try AlignedBuffer(
        byteCount: Self.byteCount(
          shape, cache.shape, tokenCount: tokenCount, threadCount: pool.threadCount))
    } catch { throw .allocation(error) }
    let count = cache.shape.slabCount * shape.queryHeadCount * tokenCount
    maxima = (memory.address + pool.threadCount * workerByteCount).bindMemory(
      to: Float.self, capacity: 2 * count)
    sums = maxima + count
  }

  /// Memory for observing `tokenCount` tokens.
  static func byteCount(
    _ shape: AttentionShape, _ keyValues: KeyValueShape, tokenCount: Int, threadCount: Int
  ) -> Int {
    guard tokenCount > 0 else { return 0 }
    return AlignedBuffer.roundedUp(
      threadCount * workerByteCount(shape, keyValues)
        + 8 * keyValues.slabCount * shape.queryHeadCount * tokenCount)
  }

  /// Weighs the blocks of `tiles` before the observed positions for those of them that are in a chunk; the
  /// tiles are in memory.
  ///
  /// - Parameters:
  ///   - queries: [tokenCount, queryHeadCount, headLength], scaled and rotated.
  ///   - position: of the first of these tokens.
  func weigh(
    layer: Int, queries: UnsafePointer<Float>, tokenCount: Int, position: Int, window: Int?,
    tiles: Range<Int>
  ) {
    guard let positions = cache.observedPositions else { return }
    let (slabs, observed) = (
      Self.slabs(positions, window), positions.clamped(to: position..<position + tokenCount)
    )
    let here = slabs.clamped(
      to: tiles.lowerBound * AttentionTile.blockCount..<tiles.upperBound * AttentionTile.blockCount)
    guard !here.isEmpty else { return }
    let heads = shape.keyValueHeadCount
    // Safety: read by all workers, written by none.
    nonisolated(unsafe) let queries = queries
    pool.run(count: here.count * heads) { index, worker in
      let (slab, head) = (here.lowerBound + index / heads, index % heads)
      let area = memory.address + worker * workerByteCount
      let place = ((slab - slabs.lowerBound) * heads + head) * shape.groupSize * observed.count
      let partials = AttentionPartials(
        memory: area, queryCount: shape.groupSize, headLength: shape.headLength)
      let block = cache.expandedBlock(
        layer: layer, head: head, slab: slab, expansion: area + Self.weighingByteCount(shape))
      for token in 0..<observed.count {
        let at = observed.lowerBound + token
        weigh(
          slab: slab, block: block,
          queries: queries
            + ((at - position) * shape.queryHeadCount + head * shape.groupSize) * shape.headLength,
          visible: AttentionStep.visible(at, window), into: partials)
        (maxima + place + token * shape.groupSize).update(
          from: partials.maxima, count: shape.groupSize)
        (sums + place + token * shape.groupSize).update(from: partials.sums, count: shape.groupSize)
      }
    }
  }

  /// Hands what was weighed in a layer to the policy.
  func end(layer: Int, position: Int, tokenCount: Int, window: Int?) {
    guard let positions = cache.observedPositions else { return }
    let (slabs, observed) = (
      Self.slabs(positions, window), positions.clamped(to: position..<position + tokenCount)
    )
    cache.observe(
      BlockWeights(
        slabs: slabs, keyValueHeadCount: shape.keyValueHeadCount,
        queryCount: shape.groupSize * observed.count,
        isFirst: observed.lowerBound == positions.lowerBound, maxima: maxima, sums: sums),
      layer: layer)
  }

  /// One token's attention over one block alone.
  private func weigh(
    slab: Int, block: UnsafeRawPointer?, queries: UnsafePointer<Float>, visible: VisibleRange,
    into partials: AttentionPartials
  ) {
    let (tile, index) = slab.quotientAndRemainder(dividingBy: AttentionTile.blockCount)
    let end = UnsafeMutableRawPointer(mutating: UnsafeRawPointer(partials.sums + shape.groupSize))
    let blocks = end.alignedUp(for: UnsafeRawPointer?.self).bindMemory(
      to: UnsafeRawPointer?.self, capacity: AttentionTile.blockCount)
    let ranges = UnsafeMutableRawPointer(blocks + AttentionTile.blockCount).bindMemory(
      to: VisibleRange.self, capacity: shape.groupSize)
    for other in 0..<AttentionTile.blockCount { blocks[other] = other == index ? block : nil }
    for member in 0..<shape.groupSize { ranges[member] = visible }
    partials.reset()
    AttentionKernel.accumulate(
      blocks: blocks, tileFirstPosition: tile * AttentionTile.positionCount,
      headLength: shape.headLength, queries: queries, queryStride: shape.headLength,
      visible: ranges, queryCount: shape.groupSize, into: partials,
      scratch: UnsafeMutableRawPointer(ranges + shape.groupSize).alignedUp(toMultipleOf: 64))
  }

  /// Slabs before the observed positions that the first of them sees.
  private static func slabs(_ positions: Range<Int>, _ window: Int?) -> Range<Int> {
    let end = positions.lowerBound / KeyValueBlock.positionCount
    let first =
      Int(AttentionStep.visible(positions.lowerBound, window).first) / KeyValueBlock.positionCount
    return min(first, end)..<end
  }

  private static func workerByteCount(
    _ shape: AttentionShape, _ keyValues: KeyValueShape
  ) -> Int {
    weighingByteCount(shape) + (keyValues.quantises ? keyValues.openBlockByteCount : 0)
  }

  /// Memory of a worker but for the block.
  private static func weighingByteCount(_ shape: AttentionShape) -> Int {
    let blocks = AttentionTile.blockCount * MemoryLayout<UnsafeRawPointer?>.stride
    return AlignedBuffer.roundedUp(
      AttentionPartials.byteCount(queryCount: shape.groupSize, headLength: shape.headLength)
        + 128 + blocks + shape.groupSize * MemoryLayout<VisibleRange>.stride
        + AttentionKernel.scratchByteCount(
          queryCount: shape.groupSize, headLength: shape.headLength))
  }
}
