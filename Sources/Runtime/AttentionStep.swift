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

/// Attention of one layer, of each sequence's tokens over its own keys and values: those in memory and those
/// that a drive brings.
///
/// The unit is a tile of 512 positions × one KV head, folded inside a kernel and merged in ascending
/// order, so how tokens are chunked, work is divided and tiles arrive changes no bit. A prompt's tasks
/// are blocks of tokens × KV heads, over the tiles that are there. Single tokens of all sequences are computed together:
/// their tasks are tiles × KV heads, in any order.
package final class AttentionStep: ParallelRegion {
  private let shape: AttentionShape
  private let keyValueShape: KeyValueShape
  private let pool: ThreadPool
  private let groupSize: Int
  private let memory: AlignedBuffer
  private let chunkMemory: AlignedBuffer
  private let workerByteCount: Int
  /// Partials of each tile of single tokens [tokenCapacity * tileCapacity, queryHeadCount].
  private let tilePartials: UnsafeMutableRawPointer
  private let tilePartialByteCount: Int
  /// Of the region in work, each tile's place among those of all tokens and the number of its token
  /// [tokenCapacity * tileCapacity].
  private let regionPlaces: UnsafeMutablePointer<Int32>
  private let regionTokens: UnsafeMutablePointer<Int32>
  /// Which tiles no region had yet [tokenCapacity * tileCapacity].
  private let isLeft: UnsafeMutablePointer<Bool>
  /// Partials of a chunk's blocks of tokens [blockCapacity, keyValueHeadCount], kept from tile to tile;
  /// only where tiles may have to be waited for.
  private let chunkPartials: UnsafeMutableRawPointer?
  /// For a policy that chooses blocks at a prompt's end.
  private let observation: AttentionObservation?

  /// A single token's attention under way.
  private struct TokenTask {
    /// Number of its span.
    var span: Int
    /// Safety: the batch keeps it; a reference would be counted for every tile, by all workers at once.
    var cache: Unmanaged<KeyValueStore>
    var queries: UnsafeMutablePointer<Float>
    var position: Int
    var visible: VisibleRange
    var firstTile: Int
    var tileCount: Int
    /// The place of its first tile among those of all tokens.
    var firstPlace: Int
    /// Tiles that no region had yet.
    var leftCount = 0

    var positions: ClosedRange<Int> { Int(visible.first)...position }

    func withCache<Result>(_ work: (KeyValueStore) -> Result) -> Result {
      cache._withUnsafeGuaranteedRef(work)
    }
  }
  /// Those of the run: the first `tokenCount`.
  private let tokenTasks: UnsafeMutableBufferPointer<TokenTask>
  private var tokenCount = 0
  private var layer = 0
  /// Tasks of the current region, and whether they are tokens × KV heads, whose tiles are all there.
  private var taskCount = 0
  private var isMerging = false

  /// A chunk's attention under way.
  private struct ChunkTask {
    var cache: KeyValueStore
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

  /// - Parameters:
  ///   - cache: how each sequence's keys and values are kept.
  ///   - chunkLength: most tokens of one sequence.
  ///   - tokenCapacity: most sequences that have a single token each.
  ///   - observedTokenCount: as `KeyValueStore.observedTokenCount`.
  /// - Throws: ``RuntimeError/allocation(_:)``.
  package init(
    _ shape: AttentionShape, cache plan: KeyValuePlan, chunkLength: Int, tokenCapacity: Int = 1,
    observedTokenCount: Int, pool: ThreadPool
  ) throws(RuntimeError) {
    self.shape = shape
    keyValueShape = plan.shape
    self.pool = pool
    groupSize = shape.groupSize
    tokenBlock = Self.tokenBlock(shape)
    workerByteCount = Self.workerByteCount(shape, plan.shape)
    tilePartialByteCount = Self.tilePartialByteCount(shape)
    let tileCount = tokenCapacity * Self.tileCount(plan.shape.contextLength)
    do {
      memory = try AlignedBuffer(
        byteCount: Self.byteCount(
          shape, cache: plan.shape, tokenCapacity: tokenCapacity, threadCount: pool.threadCount))
      chunkMemory = try AlignedBuffer(
        byteCount: plan.hasTier ? Self.chunkByteCount(shape, chunkLength: chunkLength) : 0)
    } catch { throw .allocation(error) }
    observation = try AttentionObservation(
      shape, plan.shape, tokenCount: observedTokenCount, pool: pool)
    chunkPartials = plan.hasTier ? chunkMemory.address : nil
    tilePartials = memory.address + workerByteCount * pool.threadCount
    let lists = tilePartials + tileCount * shape.keyValueHeadCount * tilePartialByteCount
    regionPlaces = lists.bindMemory(to: Int32.self, capacity: 2 * tileCount)
    regionTokens = regionPlaces + tileCount
    isLeft = (lists + 8 * tileCount).bindMemory(to: Bool.self, capacity: tileCount)
    tokenTasks = .allocate(capacity: tokenCapacity)
  }

  deinit { tokenTasks.deallocate() }

  /// Memory of a step for `threadCount` workers over caches of that shape.
  static func byteCount(
    _ shape: AttentionShape, cache: KeyValueShape, tokenCapacity: Int, threadCount: Int
  ) -> Int {
    let tiles = tokenCapacity * tileCount(cache.contextLength)
    return AlignedBuffer.roundedUp(
      workerByteCount(shape, cache) * threadCount
        + tiles * shape.keyValueHeadCount * tilePartialByteCount(shape)
        + 9 * tiles)
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

  /// Replaces `queries` [batch.rowCount, queryHeadCount, headDim] (scaled, rotated) by attention's
  /// output of the same shape, where spans are alive.
  ///
  /// A span whose keys and values cannot be read fails; its rows are left as they are then.
  ///
  /// - Parameters:
  ///   - batch: whose caches hold all positions of their spans.
  ///   - window: positions a token sees, its own included; nil = all before it.
  ///   - foldedEnd: where ``runningPartials`` hold the tiles before this position, from which the batch's only row
  ///     goes on: a tile's first position, or the one after the row's; 0 = nowhere.
  package func run(
    layer: Int, queries: UnsafeMutablePointer<Float>, _ batch: Batch, window: Int?,
    foldedEnd: Int = 0
  ) {
    let rowLength = shape.queryHeadCount * shape.headDim
    self.layer = layer
    tokenCount = 0
    var placeCount = 0
    for number in batch.spans.indices where batch.spans[number].isAlive {
      let (rows, position) = (batch.spans[number].rows, batch.spans[number].position)
      let (cache, queries) = (
        batch.spans[number].cache, queries + rows.lowerBound * rowLength
      )
      if rows.count == 1, cache.observedPositions == nil {
        placeCount += prepareToken(
          number, cache, queries: queries, position: position, window: window,
          foldedEnd: foldedEnd, firstPlace: placeCount, batch)
      } else {
        do throws(KeyValueError) {
          try runChunk(
            layer: layer, queries: queries, tokenCount: rows.count, position: position,
            window: window, cache: cache)
        } catch { batch.fail(number, error) }
      }
    }
    if tokenCount > 0 { runTokens(batch) }
  }

  /// A chunk of one sequence's tokens, over tiles as they are there.
  private func runChunk(
    layer: Int, queries: UnsafeMutablePointer<Float>, tokenCount: Int, position: Int, window: Int?,
    cache: KeyValueStore
  ) throws(KeyValueError) {
    let first = Int(Self.visible(position, window).first)
    let last = position + tokenCount - 1
    let task = ChunkTask(
      cache: cache, layer: layer, queries: queries, tokenCount: tokenCount, position: position,
      window: window,
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
        try cache.waitForRead(layer: layer, tile: end)
        continue
      }
      // Its queries make room for what they get.
      observation?.weigh(
        layer: layer, queries: queries, tokenCount: tokenCount, position: position, window: window,
        tiles: next..<end, cache)
      run(task, tiles: next..<end)
      for tile in next..<end { cache.release(layer: layer, tile: tile) }
      try cache.readAhead()
      next = end
    }
    observation?.end(
      layer: layer, position: position, tokenCount: tokenCount, window: window, cache)
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
      task.cache.expandedGroups(
        layer: task.layer, head: head, tile: tile, pageGroups: pageGroups,
        expansion: area.expansion, into: area.groups)
      let nextGroups = nextGroups(
        layer: task.layer, head: head, tile: min(tile + 1, tilesHere.upperBound - 1), task.cache,
        area)
      AttentionKernel.accumulate(
        groups: area.groups, nextGroups: nextGroups,
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

  /// Where the attention of the next run's only row may have begun: the running partials of tiles that something
  /// else has merged. They take the place of the tile before those that are left.
  package var runningPartials: TokenPartials {
    TokenPartials(memory: tilePartials, groupSize: groupSize, headDim: shape.headDim)
  }

  /// Plans a single token's attention.
  ///
  /// - Returns: how many tiles it sees, those merged before being one; 0 where its span failed.
  private func prepareToken(
    _ span: Int, _ cache: KeyValueStore, queries: UnsafeMutablePointer<Float>, position: Int,
    window: Int?, foldedEnd: Int, firstPlace: Int, _ batch: Batch
  ) -> Int {
    let range = Self.visible(position, window)
    let foldedTileCount = foldedEnd > 0 ? 1 : 0
    let firstTile =
      foldedEnd > 0
      ? Self.tileCount(foldedEnd) - 1 : Int(range.first) / AttentionTile.positionCount
    var task = TokenTask(
      span: span, cache: .passUnretained(cache), queries: queries, position: position,
      visible: range, firstTile: firstTile,
      tileCount: position / AttentionTile.positionCount - firstTile + 1, firstPlace: firstPlace)
    do throws(KeyValueError) { try cache.planBlocks(layer: layer, queries: queries) } catch {
      batch.fail(span, error)
      return 0
    }
    if foldedEnd > 0 { isLeft[firstPlace] = false }
    for tile in foldedTileCount..<task.tileCount {
      let isAttended = cache.isAttended(
        layer: layer, tile: firstTile + tile, positions: task.positions)
      isLeft[firstPlace + tile] = isAttended
      task.leftCount += isAttended ? 1 : 0
      guard !isAttended else { continue }
      for head in 0..<shape.keyValueHeadCount { partials(firstPlace + tile, head).reset() }
    }
    tokenTasks[tokenCount] = task
    tokenCount += 1
    return task.tileCount
  }

  /// Single tokens: every tile of every KV head is a task, of tiles as they are there; partials are merged
  /// in order.
  private func runTokens(_ batch: Batch) {
    let heads = shape.keyValueHeadCount
    while true {
      let count = takeReadyTiles()
      guard count > 0 else {
        guard let waiting = (0..<tokenCount).first(where: { tokenTasks[$0].leftCount > 0 })
        else { break }
        do throws(KeyValueError) {
          let task = tokenTasks[waiting]
          let tile = (0..<task.tileCount).first { isLeft[task.firstPlace + $0] } ?? 0
          try task.cache.takeUnretainedValue().waitForRead(
            layer: layer, tile: task.firstTile + tile)
        } catch { fail(waiting, error, batch) }
        continue
      }
      taskCount = count * heads
      pool.run(count: taskCount, self)
      for index in 0..<count {
        let task = tokenTasks[Int(regionTokens[index])]
        let tile = task.firstTile + Int(regionPlaces[index]) - task.firstPlace
        task.withCache { $0.release(layer: layer, tile: tile) }
      }
      for number in 0..<tokenCount {
        do throws(KeyValueError) {
          try tokenTasks[number].cache.takeUnretainedValue().readAhead()
        } catch { fail(number, error, batch) }
      }
    }
    isMerging = true
    defer { isMerging = false }
    taskCount = tokenCount * heads
    // One token's heads are not worth a region.
    if tokenCount == 1 {
      for head in 0..<heads { merge(tokenTasks[0], head) }
    } else {
      pool.run(count: taskCount, self)
    }
  }

  /// Takes the tiles that are there and that no region had yet into the next one, and returns how many.
  private func takeReadyTiles() -> Int {
    var count = 0
    for number in 0..<tokenCount where tokenTasks[number].leftCount > 0 {
      let task = tokenTasks[number]
      let before = count
      for tile in 0..<task.tileCount
      where isLeft[task.firstPlace + tile]
        && task.withCache({
          $0.isReady(layer: layer, tile: task.firstTile + tile, positions: task.positions)
        })
      {
        regionPlaces[count] = Int32(task.firstPlace + tile)
        regionTokens[count] = Int32(number)
        isLeft[task.firstPlace + tile] = false
        count += 1
      }
      tokenTasks[number].leftCount -= count - before
    }
    return count
  }

  /// Ends a token's attention, whose keys and values could not be read.
  private func fail(_ number: Int, _ error: KeyValueError, _ batch: Batch) {
    tokenTasks[number].leftCount = 0
    batch.fail(tokenTasks[number].span, error)
  }

  /// One tile of one KV head of a single token, or the end of one KV head.
  package func perform(index: Int, worker: Int) {
    let (headDim, heads) = (shape.headDim, shape.keyValueHeadCount)
    guard !isMerging else { return merge(tokenTasks[index / heads], index % heads) }
    let head = index % heads
    let place = Int(regionPlaces[index / heads])
    let task = tokenTasks[Int(regionTokens[index / heads])]
    let tile = task.firstTile + place - task.firstPlace
    let area = AttentionWorkerArea(
      memory.address + worker * workerByteCount, shape, queryCount: groupSize)
    for member in 0..<groupSize { area.visible[member] = task.visible }
    let partials = partials(place, head)
    partials.reset()
    task.withCache {
      $0.expandedGroups(
        layer: layer, head: head, tile: tile, pageGroups: Self.pageGroups(task.visible),
        expansion: area.expansion, into: area.groups)
    }
    // A worker's next task is the next index unless another takes it.
    let next = min(index + 1, taskCount - 1)
    let nextTask = tokenTasks[Int(regionTokens[next / heads])]
    let nextTile = nextTask.firstTile + Int(regionPlaces[next / heads]) - nextTask.firstPlace
    let nextGroups = nextTask.withCache {
      self.nextGroups(layer: layer, head: next % heads, tile: nextTile, $0, area)
    }
    AttentionKernel.accumulate(
      groups: area.groups, nextGroups: nextGroups,
      tileFirstPosition: tile * AttentionTile.positionCount, headDim: headDim,
      queries: task.queries + head * groupSize * headDim, queryStride: headDim,
      visible: area.visible, queryCount: groupSize, into: partials, scratch: area.scratch)
  }

  /// Merges a token's tiles of one KV head into the output.
  private func merge(_ task: TokenTask, _ head: Int) {
    let merged = partials(task.firstPlace, head)
    for tile in 1..<max(1, task.tileCount) {
      AttentionKernel.merge(into: merged, from: partials(task.firstPlace + tile, head))
    }
    AttentionKernel.finish(
      merged, into: task.queries + head * groupSize * shape.headDim, outputStride: shape.headDim)
  }

  /// The groups to fetch into the cache ahead; nil if they must be expanded first, which fetches as it
  /// reads.
  private func nextGroups(
    layer: Int, head: Int, tile: Int, _ cache: KeyValueStore, _ area: AttentionWorkerArea
  ) -> UnsafePointer<UnsafeRawPointer?>? {
    guard !keyValueShape.quantises else { return nil }
    cache.groupAddresses(layer: layer, head: head, tile: tile, into: area.nextGroups)
    return UnsafePointer(area.nextGroups)
  }

  private static func pageGroups(_ visible: VisibleRange) -> ClosedRange<Int> {
    Int(visible.first)
      / KeyValueBlock.positionCount...Int(visible.last) / KeyValueBlock.positionCount
  }

  /// Tiles of positions from the context's start.
  private static func tileCount(_ positionCount: Int) -> Int {
    (positionCount + AttentionTile.positionCount - 1) / AttentionTile.positionCount
  }

  private static func blockPartialByteCount(_ shape: AttentionShape) -> Int {
    tokenBlock(shape) * tilePartialByteCount(shape)
  }

  /// Partials of a single token's tile, by its place among those of all tokens, of one KV head.
  private func partials(_ place: Int, _ head: Int) -> AttentionPartials {
    AttentionPartials(
      memory: tilePartials + (place * shape.keyValueHeadCount + head) * tilePartialByteCount,
      queryCount: groupSize,
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
