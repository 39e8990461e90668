package import KVCache
package import Kernels
import ModelFormat
import TensorBasics

/// The heads of attention.
package struct AttentionShape: Sendable {
  package var queryHeadCount: Int
  package var keyValueHeadCount: Int
  package var headLength: Int

  package init(queryHeadCount: Int, keyValueHeadCount: Int, headLength: Int) {
    self.queryHeadCount = queryHeadCount
    self.keyValueHeadCount = keyValueHeadCount
    self.headLength = headLength
  }

  init(_ configuration: DecoderConfiguration) {
    self.init(
      queryHeadCount: configuration.queryHeadCount,
      keyValueHeadCount: configuration.keyValueHeadCount, headLength: configuration.headLength)
  }

  /// Query heads that share a KV head.
  var groupSize: Int { queryHeadCount / keyValueHeadCount }
}

/// Attention of one layer over the cache.
///
/// The unit is a tile of 512 positions × one KV head, folded inside a kernel and merged in ascending
/// order, so how tokens are chunked and work is divided changes no bit. A prompt's tasks are blocks
/// of tokens × KV heads; a single token's are tiles × KV heads.
package final class AttentionStep: ParallelRegion {
  private let shape: AttentionShape
  private let cache: KeyValueCache
  private let pool: ThreadPool
  private let groupSize: Int
  private let memory: AlignedBuffer
  private let workerByteCount: Int
  /// Partials of each tile of a single token [tileCapacity, queryHeadCount].
  private let tilePartials: UnsafeMutableRawPointer
  private let tilePartialByteCount: Int

  /// A single token's attention under way.
  private struct TokenTask {
    var layer: Int
    var queries: UnsafeMutablePointer<Float>
    var visible: VisibleRange
    var firstTile: Int
  }
  private var tokenTask: TokenTask?

  /// Tokens of one task of a prompt.
  private static let tokenBlock = 8

  /// - Throws: ``RuntimeError/allocation(_:)``.
  package init(
    _ shape: AttentionShape, cache: KeyValueCache, pool: ThreadPool
  ) throws(RuntimeError) {
    self.shape = shape
    self.cache = cache
    self.pool = pool
    groupSize = shape.groupSize
    workerByteCount = Self.workerByteCount(shape)
    tilePartialByteCount = Self.tilePartialByteCount(shape)
    do {
      memory = try AlignedBuffer(
        byteCount: Self.byteCount(
          shape, contextLength: cache.contextLength, threadCount: pool.threadCount))
    } catch { throw .allocation(error) }
    tilePartials = memory.address + workerByteCount * pool.threadCount
  }

  /// Memory of a step for `threadCount` workers over `contextLength` positions.
  static func byteCount(
    _ shape: AttentionShape, contextLength: Int, threadCount: Int
  ) -> Int {
    let tiles = (contextLength + AttentionTile.positionCount - 1) / AttentionTile.positionCount
    return AlignedBuffer.roundedUp(
      workerByteCount(shape) * threadCount
        + tiles * shape.keyValueHeadCount * tilePartialByteCount(shape))
  }

  /// Replaces `queries` [tokenCount, queryHeadCount, headLength] (scaled, rotated) by attention's
  /// output of the same shape.
  ///
  /// - Parameters:
  ///   - position: of the first token; the cache holds all up to the last.
  ///   - window: positions a token sees, its own included; nil = all before it.
  package func run(
    layer: Int, queries: UnsafeMutablePointer<Float>, tokenCount: Int, position: Int, window: Int?
  ) {
    if tokenCount == 1 {
      runToken(layer: layer, queries: queries, position: position, window: window)
      return
    }
    let blocks = (tokenCount + Self.tokenBlock - 1) / Self.tokenBlock
    // Late blocks see the most positions: they go first, so that no worker ends on a long one.
    pool.run(count: blocks * shape.keyValueHeadCount) { index, worker in
      let block = blocks - 1 - index / shape.keyValueHeadCount
      let first = block * Self.tokenBlock
      runBlock(
        layer: layer, head: index % shape.keyValueHeadCount, queries: queries,
        tokens: first..<min(first + Self.tokenBlock, tokenCount), position: position,
        window: window, worker: worker)
    }
  }

  /// One KV head's queries of a block of tokens, over all tiles they see.
  private func runBlock(
    layer: Int, head: Int, queries: UnsafeMutablePointer<Float>, tokens: Range<Int>, position: Int,
    window: Int?, worker: Int
  ) {
    let headLength = shape.headLength
    let rowLength = shape.queryHeadCount * headLength
    let area = WorkerArea(
      memory.address + worker * workerByteCount, shape,
      queryCount: tokens.count * groupSize)
    for (row, token) in tokens.enumerated() {
      (area.queries + row * groupSize * headLength).update(
        from: queries + token * rowLength + head * groupSize * headLength,
        count: groupSize * headLength)
      for member in 0..<groupSize {
        area.visible[row * groupSize + member] = Self.visible(position + token, window)
      }
    }
    area.partials.reset()
    let firstTile = Int(area.visible[0].first) / AttentionTile.positionCount
    let lastTile = (position + tokens.upperBound - 1) / AttentionTile.positionCount
    for tile in firstTile...lastTile {
      cache.blockAddresses(layer: layer, head: head, tile: tile, into: area.blocks)
      cache.blockAddresses(layer: layer, head: head, tile: tile + 1, into: area.nextBlocks)
      AttentionKernel.accumulate(
        blocks: area.blocks, nextBlocks: area.nextBlocks,
        tileFirstPosition: tile * AttentionTile.positionCount, headLength: headLength,
        queries: area.queries, queryStride: headLength, visible: area.visible,
        queryCount: tokens.count * groupSize, into: area.partials, scratch: area.scratch)
    }
    AttentionKernel.finish(area.partials, into: area.queries, outputStride: headLength)
    for (row, token) in tokens.enumerated() {
      (queries + token * rowLength + head * groupSize * headLength).update(
        from: area.queries + row * groupSize * headLength, count: groupSize * headLength)
    }
  }

  /// A single token: every tile of every KV head is a task; partials are merged in order.
  private func runToken(
    layer: Int, queries: UnsafeMutablePointer<Float>, position: Int, window: Int?
  ) {
    let headLength = shape.headLength
    let heads = shape.keyValueHeadCount
    let range = Self.visible(position, window)
    let firstTile = Int(range.first) / AttentionTile.positionCount
    let tileCount = position / AttentionTile.positionCount - firstTile + 1
    tokenTask = TokenTask(layer: layer, queries: queries, visible: range, firstTile: firstTile)
    pool.run(count: tileCount * heads, self)
    for head in 0..<heads {
      let merged = tilePartials(head)
      for tile in 1..<max(1, tileCount) {
        AttentionKernel.merge(into: merged, from: tilePartials(tile * heads + head))
      }
      AttentionKernel.finish(
        merged, into: queries + head * groupSize * headLength, outputStride: headLength)
    }
  }

  /// One tile of one KV head of a single token.
  package func perform(index: Int, worker: Int) {
    guard let task = tokenTask else { return }
    let (headLength, heads) = (shape.headLength, shape.keyValueHeadCount)
    let (tile, head) = (task.firstTile + index / heads, index % heads)
    let area = WorkerArea(
      memory.address + worker * workerByteCount, shape, queryCount: groupSize)
    for member in 0..<groupSize { area.visible[member] = task.visible }
    let partials = tilePartials(index)
    partials.reset()
    cache.blockAddresses(layer: task.layer, head: head, tile: tile, into: area.blocks)
    // A worker's next task is the next index unless another takes it.
    cache.blockAddresses(
      layer: task.layer, head: (index + 1) % heads, tile: task.firstTile + (index + 1) / heads,
      into: area.nextBlocks)
    AttentionKernel.accumulate(
      blocks: area.blocks, nextBlocks: area.nextBlocks,
      tileFirstPosition: tile * AttentionTile.positionCount, headLength: headLength,
      queries: task.queries + head * groupSize * headLength, queryStride: headLength,
      visible: area.visible, queryCount: groupSize, into: partials, scratch: area.scratch)
  }

  private func tilePartials(_ index: Int) -> AttentionPartials {
    AttentionPartials(
      memory: tilePartials + index * tilePartialByteCount, queryCount: groupSize,
      headLength: shape.headLength)
  }

  private static func visible(_ position: Int, _ window: Int?) -> VisibleRange {
    VisibleRange(
      first: Int32(max(0, position - (window ?? position + 1) + 1)), last: Int32(position))
  }

  private static func tilePartialByteCount(_ shape: AttentionShape) -> Int {
    return AttentionPartials.byteCount(
      queryCount: shape.groupSize, headLength: shape.headLength)
  }

  private static func workerByteCount(_ shape: AttentionShape) -> Int {
    return WorkerArea.byteCount(shape, queryCount: tokenBlock * shape.groupSize)
  }
}

/// What one worker needs for one task.
private struct WorkerArea {
  /// [queryCount, headLength]
  let queries: UnsafeMutablePointer<Float>
  /// [queryCount]
  let visible: UnsafeMutablePointer<VisibleRange>
  /// Of the tile in work, and of the one after it [AttentionTile.blockCount].
  let blocks: UnsafeMutablePointer<UnsafeRawPointer?>
  let nextBlocks: UnsafeMutablePointer<UnsafeRawPointer?>
  let partials: AttentionPartials
  let scratch: UnsafeMutableRawPointer

  init(_ memory: UnsafeMutableRawPointer, _ shape: AttentionShape, queryCount: Int) {
    let headLength = shape.headLength
    var next = memory
    queries = next.bindMemory(to: Float.self, capacity: queryCount * headLength)
    next += Self.rounded(queryCount * headLength * 4)
    visible = next.bindMemory(to: VisibleRange.self, capacity: queryCount)
    next += Self.rounded(queryCount * MemoryLayout<VisibleRange>.stride)
    blocks = next.bindMemory(to: UnsafeRawPointer?.self, capacity: 2 * AttentionTile.blockCount)
    nextBlocks = blocks + AttentionTile.blockCount
    next += Self.blocksByteCount
    partials = AttentionPartials(memory: next, queryCount: queryCount, headLength: headLength)
    next += Self.rounded(
      AttentionPartials.byteCount(queryCount: queryCount, headLength: headLength))
    scratch = next
  }

  static func byteCount(_ shape: AttentionShape, queryCount: Int) -> Int {
    let headLength = shape.headLength
    return rounded(queryCount * headLength * 4)
      + rounded(queryCount * MemoryLayout<VisibleRange>.stride)
      + blocksByteCount
      + rounded(AttentionPartials.byteCount(queryCount: queryCount, headLength: headLength))
      + rounded(
        AttentionKernel.scratchByteCount(queryCount: queryCount, headLength: headLength))
  }

  private static var blocksByteCount: Int {
    rounded(2 * AttentionTile.blockCount * MemoryLayout<UnsafeRawPointer?>.stride)
  }

  private static func rounded(_ count: Int) -> Int { (count + 63) & ~63 }
}
