import KVCache
import Kernels
import ModelFormat
import TensorBasics

/// Attention of one layer over the cache.
///
/// The unit is a tile of 512 positions × one KV head, folded inside a kernel and merged in ascending
/// order, so how tokens are chunked and work is divided changes no bit. A prompt's tasks are blocks
/// of tokens × KV heads; a single token's are tiles × KV heads.
final class AttentionStep: ParallelRegion {
  private let configuration: DecoderConfiguration
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
  init(
    _ configuration: DecoderConfiguration, cache: KeyValueCache, pool: ThreadPool
  ) throws(RuntimeError) {
    self.configuration = configuration
    self.cache = cache
    self.pool = pool
    groupSize = configuration.queryHeadCount / configuration.keyValueHeadCount
    workerByteCount = Self.workerByteCount(configuration)
    tilePartialByteCount = Self.tilePartialByteCount(configuration)
    do {
      memory = try AlignedBuffer(
        byteCount: Self.byteCount(
          configuration, contextLength: cache.contextLength, threadCount: pool.threadCount))
    } catch { throw .allocation(error) }
    tilePartials = memory.address + workerByteCount * pool.threadCount
  }

  /// Memory of a step for `threadCount` workers over `contextLength` positions.
  static func byteCount(
    _ configuration: DecoderConfiguration, contextLength: Int, threadCount: Int
  ) -> Int {
    let tiles = (contextLength + AttentionTile.positionCount - 1) / AttentionTile.positionCount
    return AlignedBuffer.roundedUp(
      workerByteCount(configuration) * threadCount
        + tiles * configuration.keyValueHeadCount * tilePartialByteCount(configuration))
  }

  /// Replaces `queries` [tokenCount, queryHeadCount, headLength] (scaled, rotated) by attention's
  /// output of the same shape.
  ///
  /// - Parameters:
  ///   - position: of the first token; the cache holds all up to the last.
  ///   - window: positions a token sees, its own included; nil = all before it.
  func run(
    layer: Int, queries: UnsafeMutablePointer<Float>, tokenCount: Int, position: Int, window: Int?
  ) {
    if tokenCount == 1 {
      runToken(layer: layer, queries: queries, position: position, window: window)
      return
    }
    let blocks = (tokenCount + Self.tokenBlock - 1) / Self.tokenBlock
    // Late blocks see the most positions: they go first, so that no worker ends on a long one.
    pool.run(count: blocks * configuration.keyValueHeadCount) { index, worker in
      let block = blocks - 1 - index / configuration.keyValueHeadCount
      let first = block * Self.tokenBlock
      runBlock(
        layer: layer, head: index % configuration.keyValueHeadCount, queries: queries,
        tokens: first..<min(first + Self.tokenBlock, tokenCount), position: position,
        window: window, worker: worker)
    }
  }

  /// One KV head's queries of a block of tokens, over all tiles they see.
  private func runBlock(
    layer: Int, head: Int, queries: UnsafeMutablePointer<Float>, tokens: Range<Int>, position: Int,
    window: Int?, worker: Int
  ) {
    let headLength = configuration.headLength
    let rowLength = configuration.queryHeadCount * headLength
    let area = WorkerArea(
      memory.address + worker * workerByteCount, configuration,
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
      AttentionKernel.accumulate(
        blocks: area.blocks,
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
    let headLength = configuration.headLength
    let heads = configuration.keyValueHeadCount
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
  func perform(index: Int, worker: Int) {
    guard let task = tokenTask else { return }
    let (headLength, heads) = (configuration.headLength, configuration.keyValueHeadCount)
    let (tile, head) = (task.firstTile + index / heads, index % heads)
    let area = WorkerArea(
      memory.address + worker * workerByteCount, configuration, queryCount: groupSize)
    for member in 0..<groupSize { area.visible[member] = task.visible }
    let partials = tilePartials(index)
    partials.reset()
    cache.blockAddresses(layer: task.layer, head: head, tile: tile, into: area.blocks)
    AttentionKernel.accumulate(
      blocks: area.blocks,
      tileFirstPosition: tile * AttentionTile.positionCount, headLength: headLength,
      queries: task.queries + head * groupSize * headLength, queryStride: headLength,
      visible: area.visible, queryCount: groupSize, into: partials, scratch: area.scratch)
  }

  private func tilePartials(_ index: Int) -> AttentionPartials {
    AttentionPartials(
      memory: tilePartials + index * tilePartialByteCount, queryCount: groupSize,
      headLength: configuration.headLength)
  }

  private static func visible(_ position: Int, _ window: Int?) -> VisibleRange {
    VisibleRange(
      first: Int32(max(0, position - (window ?? position + 1) + 1)), last: Int32(position))
  }

  private static func tilePartialByteCount(_ configuration: DecoderConfiguration) -> Int {
    let groupSize = configuration.queryHeadCount / configuration.keyValueHeadCount
    return AttentionPartials.byteCount(
      queryCount: groupSize, headLength: configuration.headLength)
  }

  private static func workerByteCount(_ configuration: DecoderConfiguration) -> Int {
    let groupSize = configuration.queryHeadCount / configuration.keyValueHeadCount
    return WorkerArea.byteCount(configuration, queryCount: tokenBlock * groupSize)
  }
}

/// What one worker needs for one task.
private struct WorkerArea {
  /// [queryCount, headLength]
  let queries: UnsafeMutablePointer<Float>
  /// [queryCount]
  let visible: UnsafeMutablePointer<VisibleRange>
  /// Of the tile in work [AttentionTile.blockCount].
  let blocks: UnsafeMutablePointer<UnsafeRawPointer?>
  let partials: AttentionPartials
  let scratch: UnsafeMutableRawPointer

  init(_ memory: UnsafeMutableRawPointer, _ configuration: DecoderConfiguration, queryCount: Int) {
    let headLength = configuration.headLength
    var next = memory
    queries = next.bindMemory(to: Float.self, capacity: queryCount * headLength)
    next += Self.rounded(queryCount * headLength * 4)
    visible = next.bindMemory(to: VisibleRange.self, capacity: queryCount)
    next += Self.rounded(queryCount * MemoryLayout<VisibleRange>.stride)
    blocks = next.bindMemory(to: UnsafeRawPointer?.self, capacity: AttentionTile.blockCount)
    next += Self.blocksByteCount
    partials = AttentionPartials(memory: next, queryCount: queryCount, headLength: headLength)
    next += Self.rounded(
      AttentionPartials.byteCount(queryCount: queryCount, headLength: headLength))
    scratch = next
  }

  static func byteCount(_ configuration: DecoderConfiguration, queryCount: Int) -> Int {
    let headLength = configuration.headLength
    return rounded(queryCount * headLength * 4)
      + rounded(queryCount * MemoryLayout<VisibleRange>.stride)
      + blocksByteCount
      + rounded(AttentionPartials.byteCount(queryCount: queryCount, headLength: headLength))
      + rounded(
        AttentionKernel.scratchByteCount(queryCount: queryCount, headLength: headLength))
  }

  private static var blocksByteCount: Int {
    rounded(AttentionTile.blockCount * MemoryLayout<UnsafeRawPointer?>.stride)
  }

  private static func rounded(_ count: Int) -> Int { (count + 63) & ~63 }
}
