package import KVCache
package import Kernels
import ModelFormat
import TensorBasics

/// The heads of attention.
package struct AttentionShape: Sendable {
  package var queryHeadCount: Int
  package var keyValueHeadCount: Int
  package var headDim: Int

  package init(queryHeadCount: Int, keyValueHeadCount: Int, headDim: Int) {
    self.queryHeadCount = queryHeadCount
    self.keyValueHeadCount = keyValueHeadCount
    self.headDim = headDim
  }

  init(_ configuration: DecoderConfiguration) {
    self.init(
      queryHeadCount: configuration.queryHeadCount,
      keyValueHeadCount: configuration.keyValueHeadCount, headDim: configuration.storedHeadDim)
  }

  /// Query heads that share a KV head.
  var groupSize: Int { queryHeadCount / keyValueHeadCount }
}

/// Attention of one layer over the rows in memory and those that a drive brings.
///
/// The unit is a tile of 512 positions × one KV head, folded inside a kernel and merged in ascending
/// order, so how tokens are chunked, work is divided and tiles arrive changes no bit. A prompt's tasks
/// are blocks of tokens × KV heads, over the tiles that are there; a single token's are tiles × KV heads,
/// in any order.
package final class AttentionStep: ParallelRegion {
  private let shape: AttentionShape
  private let cache: KeyValueStore
  private let pool: ThreadPool
  private let groupSize: Int
  private let memory: AlignedBuffer
  private let chunkMemory: AlignedBuffer
  private let workerByteCount: Int
  /// Partials of each tile of a single token [tileCapacity, queryHeadCount].
  private let tilePartials: UnsafeMutableRawPointer
  private let tilePartialByteCount: Int
  /// Tiles of a single token's region in work, and which tiles no region had yet [tileCapacity].
  private let regionTiles: UnsafeMutablePointer<Int32>
  private let isLeft: UnsafeMutablePointer<Bool>
  /// Partials of a chunk's blocks of tokens [blockCapacity, keyValueHeadCount], kept from tile to tile;
  /// only where tiles may have to be waited for.
  private let chunkPartials: UnsafeMutableRawPointer?
  /// For a policy that chooses blocks at a prompt's end.
  private let observation: AttentionObservation?

  /// A single token's attention under way.
  private struct TokenTask {
    var layer: Int
    var queries: UnsafeMutablePointer<Float>
    var visible: VisibleRange
    var firstTile: Int
    /// Tasks of the current region.
    var taskCount = 0
  }
  private var tokenTask: TokenTask?

  /// A chunk's attention under way.
  private struct ChunkTask {
    var layer: Int
    var queries: UnsafeMutablePointer<Float>
    var tokenCount: Int
    var position: Int
    var window: Int?
    /// All tiles that one of the chunk's tokens sees.
    var tiles: Range<Int>
  }

  /// Tokens of one task of a prompt, which divide a block of keys and values: enough that a tile is read,
  /// and expanded, for many queries, few enough that their scores stay in the cache.
  private let tokenBlock: Int

  private static func tokenBlock(_ shape: AttentionShape) -> Int { shape.groupSize > 4 ? 8 : 16 }

  /// - Throws: ``RuntimeError/allocation(_:)``.
  package init(
    _ shape: AttentionShape, cache: KeyValueStore, chunkLength: Int, pool: ThreadPool
  ) throws(RuntimeError) {
    self.shape = shape
    self.cache = cache
    self.pool = pool
    groupSize = shape.groupSize
    tokenBlock = Self.tokenBlock(shape)
    workerByteCount = Self.workerByteCount(shape, cache.shape)
    tilePartialByteCount = Self.tilePartialByteCount(shape)
    let tileCount = Self.tileCount(cache.shape.contextLength)
    do {
      memory = try AlignedBuffer(
        byteCount: Self.byteCount(
          shape, cache: cache.shape, threadCount: pool.threadCount))
      chunkMemory = try AlignedBuffer(
        byteCount: cache.plan.hasTier
          ? Self.chunkByteCount(shape, chunkLength: chunkLength) : 0)
    } catch { throw .allocation(error) }
    observation = try AttentionObservation(shape, cache: cache, pool: pool)
    chunkPartials = cache.plan.hasTier ? chunkMemory.address : nil
    tilePartials = memory.address + workerByteCount * pool.threadCount
    let lists = tilePartials + tileCount * shape.keyValueHeadCount * tilePartialByteCount
    regionTiles = lists.bindMemory(to: Int32.self, capacity: tileCount)
    isLeft = (lists + 4 * tileCount).bindMemory(to: Bool.self, capacity: tileCount)
  }

  /// Memory of a step for `threadCount` workers over a cache of that shape.
  static func byteCount(
    _ shape: AttentionShape, cache: KeyValueShape, threadCount: Int
  ) -> Int {
    let tiles = tileCount(cache.contextLength)
    return AlignedBuffer.roundedUp(
      workerByteCount(shape, cache) * threadCount
        + tiles * shape.keyValueHeadCount * tilePartialByteCount(shape)
        + 5 * tiles)
  }

  /// Memory of the partials of a chunk whose tiles may have to be waited for.
  static func chunkByteCount(_ shape: AttentionShape, chunkLength: Int) -> Int {
    AlignedBuffer.roundedUp(
      mostTokenBlocks(shape, chunkLength: chunkLength) * shape.keyValueHeadCount
        * blockPartialByteCount(shape))
  }

  /// Blocks of tokens that a chunk reaches into at most: they begin at multiples of their length.
  private static func mostTokenBlocks(_ shape: AttentionShape, chunkLength: Int) -> Int {
    (chunkLength + tokenBlock(shape) - 2) / tokenBlock(shape) + 1
  }

  /// Replaces `queries` [tokenCount, queryHeadCount, headDim] (scaled, rotated) by attention's
  /// output of the same shape.
  ///
  /// - Parameters:
  ///   - position: of the first token; the cache holds all up to the last.
  ///   - window: positions a token sees, its own included; nil = all before it.
  package func run(
    layer: Int, queries: UnsafeMutablePointer<Float>, tokenCount: Int, position: Int, window: Int?
  ) throws(KeyValueError) {
    if tokenCount == 1, cache.observedPositions == nil {
      try runToken(layer: layer, queries: queries, position: position, window: window)
      return
    }
    let first = Int(Self.visible(position, window).first)
    let last = position + tokenCount - 1
    let task = ChunkTask(
      layer: layer, queries: queries, tokenCount: tokenCount, position: position, window: window,
      tiles: first / AttentionTile.positionCount..<last / AttentionTile.positionCount + 1)
    var next = task.tiles.lowerBound
    while next < task.tiles.upperBound {
      var end = next
      while end < task.tiles.upperBound,
        cache.isReady(layer: layer, tile: end, positions: first...last)
      {
        end += 1
      }
      // Without a place for partials every tile is waited for.
      guard end > next, end == task.tiles.upperBound || chunkPartials != nil else {
        try cache.waitForRead()
        continue
      }
      // Its queries make room for what they get.
      observation?.weigh(
        layer: layer, queries: queries, tokenCount: tokenCount, position: position, window: window,
        tiles: next..<end)
      run(task, tiles: next..<end)
      for tile in next..<end { cache.release(layer: layer, tile: tile) }
      try cache.readAhead()
      next = end
    }
    observation?.end(layer: layer, position: position, tokenCount: tokenCount, window: window)
  }

  /// All tokens of a chunk over tiles that are there, which follow those before.
  private func run(_ task: ChunkTask, tiles: Range<Int>) {
    // Blocks begin at absolute positions, so that the tokens of one lie in one block of keys and values.
    let first = task.position / tokenBlock
    let blocks = (task.position + task.tokenCount - 1) / tokenBlock - first + 1
    // Late blocks see the most positions: they go first, so that no worker ends on a long one.
    pool.run(count: blocks * shape.keyValueHeadCount) { index, worker in
      runBlock(
        task, block: blocks - 1 - index / shape.keyValueHeadCount,
        head: index % shape.keyValueHeadCount, tiles: tiles, worker: worker)
    }
  }

  /// One KV head's queries of a block of tokens, over those of `tiles` that they see.
  private func runBlock(_ task: ChunkTask, block: Int, head: Int, tiles: Range<Int>, worker: Int) {
    let headDim = shape.headDim
    let rowLength = shape.queryHeadCount * headDim
    let firstToken = (task.position / tokenBlock + block) * tokenBlock - task.position
    let tokens = max(0, firstToken)..<min(firstToken + tokenBlock, task.tokenCount)
    let queryCount = tokens.count * groupSize
    let area = AttentionWorkerArea(
      memory.address + worker * workerByteCount, shape, queryCount: queryCount)
    for (row, token) in tokens.enumerated() {
      (area.queries + row * groupSize * headDim).update(
        from: task.queries + token * rowLength + head * groupSize * headDim,
        count: groupSize * headDim)
      for member in 0..<groupSize {
        area.visible[row * groupSize + member] = Self.visible(
          task.position + token, task.window)
      }
    }
    var partials = area.partials
    if tiles != task.tiles, let chunkPartials {
      partials = AttentionPartials(
        memory: chunkPartials
          + (block * shape.keyValueHeadCount + head)
            * Self.blockPartialByteCount(shape),
        queryCount: queryCount, headDim: headDim)
    }
    if tiles.lowerBound == task.tiles.lowerBound { partials.reset() }
    let seen =
      Int(area.visible[0].first)
      / AttentionTile.positionCount..<(task.position
      + tokens.upperBound - 1) / AttentionTile.positionCount + 1
    let pageGroups = Self.pageGroups(
      VisibleRange(first: area.visible[0].first, last: Int32(task.position + tokens.lowerBound)))
    let tilesHere = tiles.clamped(to: seen)
    for tile in tilesHere {
      cache.expandedBlocks(
        layer: task.layer, head: head, tile: tile, pageGroups: pageGroups,
        expansion: area.expansion,
        into: area.blocks)
      let nextBlocks = nextBlocks(
        layer: task.layer, head: head, tile: min(tile + 1, tilesHere.upperBound - 1), area)
      AttentionKernel.accumulate(
        blocks: area.blocks, nextBlocks: nextBlocks,
        tileFirstPosition: tile * AttentionTile.positionCount, headDim: headDim,
        queries: area.queries, queryStride: headDim, visible: area.visible,
        queryCount: queryCount, into: partials, scratch: area.scratch)
    }
    guard tiles.upperBound == task.tiles.upperBound else { return }
    AttentionKernel.finish(partials, into: area.queries, outputStride: headDim)
    for (row, token) in tokens.enumerated() {
      (task.queries + token * rowLength + head * groupSize * headDim).update(
        from: area.queries + row * groupSize * headDim, count: groupSize * headDim)
    }
  }

  /// A single token: every tile of every KV head is a task, of tiles as they are there; partials are
  /// merged in order.
  private func runToken(
    layer: Int, queries: UnsafeMutablePointer<Float>, position: Int, window: Int?
  ) throws(KeyValueError) {
    let headDim = shape.headDim
    let heads = shape.keyValueHeadCount
    let range = Self.visible(position, window)
    let firstTile = Int(range.first) / AttentionTile.positionCount
    let tileCount = position / AttentionTile.positionCount - firstTile + 1
    try cache.planBlocks(layer: layer, queries: queries)
    tokenTask = TokenTask(layer: layer, queries: queries, visible: range, firstTile: firstTile)
    var leftCount = 0
    for tile in 0..<tileCount {
      isLeft[tile] = cache.isAttended(
        layer: layer, tile: firstTile + tile, positions: Int(range.first)...position)
      leftCount += isLeft[tile] ? 1 : 0
      if !isLeft[tile] { for head in 0..<heads { tilePartials(tile * heads + head).reset() } }
    }
    while leftCount > 0 {
      var count = 0
      for tile in 0..<tileCount
      where isLeft[tile]
        && cache.isReady(
          layer: layer, tile: firstTile + tile, positions: Int(range.first)...position)
      {
        regionTiles[count] = Int32(tile)
        isLeft[tile] = false
        count += 1
      }
      guard count > 0 else {
        try cache.waitForRead()
        continue
      }
      leftCount -= count
      tokenTask?.taskCount = count * heads
      pool.run(count: count * heads, self)
      for index in 0..<count {
        cache.release(layer: layer, tile: firstTile + Int(regionTiles[index]))
      }
      try cache.readAhead()
    }
    for head in 0..<heads {
      let merged = tilePartials(head)
      for tile in 1..<max(1, tileCount) {
        AttentionKernel.merge(into: merged, from: tilePartials(tile * heads + head))
      }
      AttentionKernel.finish(
        merged, into: queries + head * groupSize * headDim, outputStride: headDim)
    }
  }

  /// One tile of one KV head of a single token.
  package func perform(index: Int, worker: Int) {
    guard let task = tokenTask else { return }
    let (headDim, heads) = (shape.headDim, shape.keyValueHeadCount)
    let (tile, head) = (Int(regionTiles[index / heads]), index % heads)
    let area = AttentionWorkerArea(
      memory.address + worker * workerByteCount, shape, queryCount: groupSize)
    for member in 0..<groupSize { area.visible[member] = task.visible }
    let partials = tilePartials(tile * heads + head)
    partials.reset()
    cache.expandedBlocks(
      layer: task.layer, head: head, tile: task.firstTile + tile,
      pageGroups: Self.pageGroups(task.visible),
      expansion: area.expansion, into: area.blocks)
    // A worker's next task is the next index unless another takes it.
    let next = min(index + 1, task.taskCount - 1)
    let nextBlocks = nextBlocks(
      layer: task.layer, head: next % heads, tile: task.firstTile + Int(regionTiles[next / heads]),
      area)
    AttentionKernel.accumulate(
      blocks: area.blocks, nextBlocks: nextBlocks,
      tileFirstPosition: (task.firstTile + tile) * AttentionTile.positionCount,
      headDim: headDim,
      queries: task.queries + head * groupSize * headDim, queryStride: headDim,
      visible: area.visible, queryCount: groupSize, into: partials, scratch: area.scratch)
  }

  /// The blocks to fetch into the cache ahead; nil if they must be expanded first, which fetches as it
  /// reads.
  private func nextBlocks(
    layer: Int, head: Int, tile: Int, _ area: AttentionWorkerArea
  ) -> UnsafePointer<UnsafeRawPointer?>? {
    guard !cache.shape.quantises else { return nil }
    cache.blockAddresses(layer: layer, head: head, tile: tile, into: area.nextBlocks)
    return UnsafePointer(area.nextBlocks)
  }

  private static func pageGroups(_ visible: VisibleRange) -> ClosedRange<Int> {
    Int(visible.first)
      / KeyValueBlock.positionCount...Int(visible.last) / KeyValueBlock.positionCount
  }

  private static func tileCount(_ contextLength: Int) -> Int {
    (contextLength + AttentionTile.positionCount - 1) / AttentionTile.positionCount
  }

  private static func blockPartialByteCount(_ shape: AttentionShape) -> Int {
    tokenBlock(shape) * tilePartialByteCount(shape)
  }

  private func tilePartials(_ index: Int) -> AttentionPartials {
    AttentionPartials(
      memory: tilePartials + index * tilePartialByteCount, queryCount: groupSize,
      headDim: shape.headDim)
  }

  static func visible(_ position: Int, _ window: Int?) -> VisibleRange {
    VisibleRange(
      first: Int32(max(0, position - (window ?? position + 1) + 1)), last: Int32(position))
  }

  private static func tilePartialByteCount(_ shape: AttentionShape) -> Int {
    AttentionPartials.byteCount(queryCount: shape.groupSize, headDim: shape.headDim)
  }

  private static func workerByteCount(_ shape: AttentionShape, _ cache: KeyValueShape) -> Int {
    AttentionWorkerArea.byteCount(
      shape, cache, queryCount: tokenBlock(shape) * shape.groupSize)
  }
}
