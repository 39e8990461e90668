package import KVCache
package import Kernels
import ModelFormat
import TensorBasics

/// The heads of attention.
package struct AttentionShape: Sendable {
  package var queryHeadCount: Int
  package var keyValueHeadCount: Int
  package var headDim: Int
  /// As `DecoderConfiguration.attentionSoftCap`; 0 = none.
  package var softCap: Float = 0

  package init(queryHeadCount: Int, keyValueHeadCount: Int, headDim: Int) {
    self.queryHeadCount = queryHeadCount
    self.keyValueHeadCount = keyValueHeadCount
    self.headDim = headDim
  }

  /// Those of each attention of a decoder.
  static func all(_ configuration: DecoderConfiguration) -> [AttentionShape] {
    configuration.headShapes.map { heads in
      var shape = AttentionShape(
        queryHeadCount: heads.queryHeadCount, keyValueHeadCount: heads.keyValueHeadCount,
        headDim: configuration.storedHeadDim)
      shape.softCap = configuration.attentionSoftCap ?? 0
      return shape
    }
  }

  /// Query heads that share a KV head.
  var groupSize: Int { queryHeadCount / keyValueHeadCount }

  /// Those of the query heads that share a KV head.
  func sinks(
    _ sinks: UnsafePointer<Float>?, ofHead head: Int
  ) -> UnsafeBufferPointer<Float>? {
    sinks.map { UnsafeBufferPointer(start: $0 + head * groupSize, count: groupSize) }
  }
}

/// Attention of one layer, of each sequence's tokens over its own keys and values: those in memory and those
/// that a drive brings.
///
/// The unit is a tile of 512 positions × one KV head, folded inside a kernel and merged in ascending
/// order, so how tokens are chunked, work is divided and tiles arrive changes no bit. A prompt's tasks
/// are blocks of tokens × KV heads, over the tiles that are there. Single tokens of all sequences are computed together:
/// their tasks are tiles × KV heads, in any order.
package final class AttentionStep: ParallelRegion {
  /// Of each layer.
  private let shapes: [AttentionShape]
  private let keyValueShape: KeyValueShape
  private let pool: ThreadPool
  private let memory: AlignedBuffer
  private let chunkMemory: AlignedBuffer
  private let workerByteCount: Int
  /// Partials of each tile of single tokens [tokenCapacity * tileCapacity, queryHeadCount].
  private let tilePartials: UnsafeMutableRawPointer
  /// Of the region in work, each tile's place among those of all tokens and the number of its token
  /// [tokenCapacity * tileCapacity].
  private let regionPlaces: UnsafeMutablePointer<Int32>
  private let regionTokens: UnsafeMutablePointer<Int32>
  /// Which tiles no region had yet [tokenCapacity * tileCapacity].
  private let isLeft: UnsafeMutablePointer<Bool>
  private let chunk: ChunkAttention

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
  /// Of the layer in work.
  private var shape: AttentionShape
  private var groupSize = 0
  private var tilePartialByteCount = 0
  private var sinks: UnsafePointer<Float>?
  /// Tasks of the current region, and whether they are tokens × KV heads, whose tiles are all there.
  private var taskCount = 0
  private var isMerging = false

  /// - Parameters:
  ///   - shapes: of each layer, which are as long in a head.
  ///   - cache: how each sequence's keys and values are kept.
  ///   - chunkLength: most tokens of one sequence.
  ///   - tokenCapacity: most sequences that have a single token each.
  ///   - observedTokenCount: as `KeyValueStore.observedTokenCount`.
  /// - Throws: ``RuntimeError/allocation(_:)``.
  package init(
    _ shapes: [AttentionShape], cache plan: KeyValuePlan, chunkLength: Int, tokenCapacity: Int = 1,
    observedTokenCount: Int, pool: ThreadPool
  ) throws(RuntimeError) {
    self.shapes = shapes
    shape = shapes[0]
    keyValueShape = plan.shape
    self.pool = pool
    workerByteCount = ChunkAttention.workerByteCount(shapes, plan.shape)
    let tileCount = tokenCapacity * Self.tileCount(plan.shape.contextLength)
    do {
      memory = try AlignedBuffer(
        byteCount: Self.byteCount(
          shapes, cache: plan.shape, tokenCapacity: tokenCapacity, threadCount: pool.threadCount))
      chunkMemory = try AlignedBuffer(
        byteCount: plan.hasTier
          ? ChunkAttention.partialByteCount(shapes, chunkLength: chunkLength) : 0)
    } catch { throw .allocation(error) }
    let observation = try AttentionObservation(
      shapes[0], plan.shape, tokenCount: observedTokenCount, pool: pool)
    chunk = ChunkAttention(
      shapes, plan.shape, memory: memory.address,
      partials: plan.hasTier ? chunkMemory.address : nil, observation: observation, pool: pool)
    tilePartials = memory.address + workerByteCount * pool.threadCount
    let lists = tilePartials + Self.tilePartialByteCount(shapes, tileCount: tileCount)
    regionPlaces = lists.bindMemory(to: Int32.self, capacity: 2 * tileCount)
    regionTokens = regionPlaces + tileCount
    isLeft = (lists + 8 * tileCount).bindMemory(to: Bool.self, capacity: tileCount)
    tokenTasks = .allocate(capacity: tokenCapacity)
  }

  deinit { tokenTasks.deallocate() }

  /// Memory of a step for `threadCount` workers over caches of that shape.
  static func byteCount(
    _ shapes: [AttentionShape], cache: KeyValueShape, tokenCapacity: Int, threadCount: Int
  ) -> Int {
    guard !shapes.isEmpty else { return 0 }
    let tiles = tokenCapacity * tileCount(cache.contextLength)
    return AlignedBuffer.roundedUp(
      ChunkAttention.workerByteCount(shapes, cache) * threadCount
        + tilePartialByteCount(shapes, tileCount: tiles) + 9 * tiles)
  }

  /// Memory of the partials of so many tiles of any layer.
  private static func tilePartialByteCount(_ shapes: [AttentionShape], tileCount: Int) -> Int {
    shapes.reduce(0) {
      max($0, tileCount * $1.keyValueHeadCount * tilePartialByteCount($1))
    }
  }

  /// Replaces `queries` [batch.rowCount, queryHeadCount, headDim] (scaled, rotated) by attention's
  /// output of the same shape, where spans are alive.
  ///
  /// A span whose keys and values cannot be read fails; its rows are left as they are then.
  ///
  /// - Parameters:
  ///   - batch: whose caches hold all positions of their spans.
  ///   - window: positions a token sees, its own included; nil = all before it.
  ///   - sinks: [queryHeadCount], as `AttentionSpec.hasSinks`.
  ///   - foldedEnd: where ``runningPartials`` hold the tiles before this position, from which the batch's only row
  ///     goes on: a tile's first position, or the one after the row's; 0 = nowhere.
  package func run(
    layer: Int, queries: UnsafeMutablePointer<Float>, _ batch: Batch, window: Int?,
    sinks: UnsafePointer<Float>? = nil, foldedEnd: Int = 0
  ) {
    shape = shapes[layer]
    groupSize = shape.groupSize
    tilePartialByteCount = Self.tilePartialByteCount(shape)
    let rowLength = shape.queryHeadCount * shape.headDim
    self.layer = layer
    self.sinks = sinks
    tokenCount = 0
    var placeCount = 0
    for number in batch.spans.indices where batch.spans[number].isAlive {
      let (rows, position) = (batch.spans[number].rows, batch.spans[number].position)
      let cache = batch.spans[number].cache
      let (allQueries, queries) = (queries, queries + rows.lowerBound * rowLength)
      if rows.count == 1, cache.observedPositions == nil {
        placeCount += prepareToken(
          number, cache, queries: queries, position: position, window: window,
          foldedEnd: foldedEnd, firstPlace: placeCount, batch)
      } else {
        chunk.begin(layer: layer)
        chunk.append(
          ChunkAttention.Line(queries: queries, tokenCount: rows.count, position: position))
        for branch in batch.branches where branch.span == number {
          chunk.append(
            ChunkAttention.Line(
              queries: allQueries + branch.rows.lowerBound * rowLength,
              tokenCount: branch.rows.count, position: branch.position, branch: branch.number))
        }
        do throws(KeyValueError) {
          try chunk.run(
            window: window, sinks: sinks, cache, batch.keyValueBranches)
        } catch { batch.fail(number, error) }
      }
    }
    if tokenCount > 0 { runTokens(batch) }
  }

  /// Where the attention of the next run's only row may have begun: the running partials of tiles that something
  /// else has merged. They take the place of the tile before those that are left.
  package var runningPartials: TokenPartials {
    TokenPartials(memory: tilePartials, groupSize: shape.groupSize, headDim: shape.headDim)
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
      area.nextGroups(layer: layer, head: next % heads, tile: nextTile, $0)
    }
    AttentionKernel.accumulate(
      groups: area.groups, nextGroups: nextGroups,
      tileFirstPosition: tile * AttentionTile.positionCount, headDim: headDim,
      queries: task.queries + head * groupSize * headDim, queryStride: headDim,
      visible: area.visible, queryCount: groupSize, into: partials, scratch: area.scratch,
      softCap: shape.softCap)
  }

  /// Merges a token's tiles of one KV head into the output.
  private func merge(_ task: TokenTask, _ head: Int) {
    let merged = partials(task.firstPlace, head)
    for tile in 1..<max(1, task.tileCount) {
      AttentionKernel.merge(into: merged, from: partials(task.firstPlace + tile, head))
    }
    AttentionKernel.finish(
      merged, sinks: shape.sinks(sinks, ofHead: head),
      into: task.queries + head * groupSize * shape.headDim, outputStride: shape.headDim)
  }

  static func pageGroups(_ visible: VisibleRange) -> ClosedRange<Int> {
    Int(visible.first)
      / KeyValueBlock.positionCount...Int(visible.last) / KeyValueBlock.positionCount
  }

  /// Tiles of positions from the context's start.
  private static func tileCount(_ positionCount: Int) -> Int {
    (positionCount + AttentionTile.positionCount - 1) / AttentionTile.positionCount
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
}
