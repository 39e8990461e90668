import KVCache
import Kernels
import TensorBasics

/// Attention of several tokens of one sequence: those of a chunk, and of the branches that leave its end.
///
/// A task is a block of tokens × one KV head, over the tiles that are there. A region made of a closure would allocate.
final class ChunkAttention: ParallelRegion {
  /// Of each layer.
  private let shapes: [AttentionShape]
  private let keyValueShape: KeyValueShape
  private let pool: ThreadPool
  /// A worker's area each; other attention uses them in turn.
  private let memory: UnsafeMutableRawPointer
  private let workerByteCount: Int
  /// Partials of a chunk's blocks of tokens [blockCapacity, keyValueHeadCount], kept from tile to tile;
  /// only where tiles may have to be waited for.
  private let partials: UnsafeMutableRawPointer?
  /// For a policy that chooses blocks at a prompt's end.
  private let observation: AttentionObservation?

  /// Consecutive tokens that see the same line of positions.
  struct Line {
    /// [tokenCount, queryHeadCount, headDim], in and out.
    var queries: UnsafeMutablePointer<Float>
    var tokenCount: Int
    var position: Int
    /// The branch that they are; nil = the end of the sequence's chunk.
    var branch: Int?
    /// The first of its blocks of tokens among those of all lines.
    var firstBlock = 0
    var blockCount = 0
  }
  private var lines: [Line] = []
  private var blockCount = 0

  /// Of the layer in work.
  private var shape: AttentionShape
  private var tokenBlock = 1

  /// The attention under way, and the tiles of the current region among all that are seen.
  private var layer = 0
  private var window: Int?
  private var sinks: UnsafePointer<Float>?
  private var allTiles = 0..<0
  private var tiles = 0..<0
  /// Safety: the batch keeps them; references would be counted by all workers at once.
  private var cache: Unmanaged<KeyValueStore>?
  private var branches: Unmanaged<KeyValueBranches>?

  init(
    _ shapes: [AttentionShape], _ keyValueShape: KeyValueShape,
    memory: UnsafeMutableRawPointer, partials: UnsafeMutableRawPointer?,
    observation: AttentionObservation?, pool: ThreadPool
  ) {
    (self.shapes, self.keyValueShape, self.pool) = (shapes, keyValueShape, pool)
    shape = shapes[0]
    (self.memory, self.partials, self.observation) = (memory, partials, observation)
    workerByteCount = Self.workerByteCount(shapes, keyValueShape)
  }

  /// Tokens of one task, which divide a block of keys and values: enough that a tile is read, and expanded, for many
  /// queries, few enough that their scores stay in the cache.
  private static func tokenBlock(_ shape: AttentionShape) -> Int { shape.groupSize > 4 ? 8 : 16 }

  /// Memory of a worker.
  static func workerByteCount(_ shapes: [AttentionShape], _ cache: KeyValueShape) -> Int {
    shapes.reduce(0) {
      max(
        $0,
        AttentionWorkerArea.byteCount($1, cache, queryCount: tokenBlock($1) * $1.groupSize))
    }
  }

  /// Memory of the partials of a chunk whose tiles may have to be waited for.
  static func partialByteCount(_ shapes: [AttentionShape], chunkLength: Int) -> Int {
    shapes.reduce(0) { most, shape in
      // Blocks begin at multiples of their length.
      let blockCount = (chunkLength + tokenBlock(shape) - 2) / tokenBlock(shape) + 1
      return max(
        most,
        AlignedBuffer.roundedUp(
          blockCount * shape.keyValueHeadCount * blockPartialByteCount(shape)))
    }
  }

  private static func blockPartialByteCount(_ shape: AttentionShape) -> Int {
    tokenBlock(shape)
      * AttentionPartials.byteCount(queryCount: shape.groupSize, headDim: shape.headDim)
  }

  // MARK: - What is attended

  /// Forgets all lines; those to come are of `layer`.
  func begin(layer: Int) {
    shape = shapes[layer]
    tokenBlock = Self.tokenBlock(shape)
    self.layer = layer
    lines.removeAll(keepingCapacity: true)
    blockCount = 0
  }

  /// Adds a line: the chunk's, then those of its branches.
  func append(_ line: Line) {
    // Blocks begin at absolute positions, so that the tokens of one lie in one block of keys and values.
    var line = line
    line.firstBlock = blockCount
    line.blockCount =
      (line.position + line.tokenCount - 1) / tokenBlock - line.position / tokenBlock + 1
    blockCount += line.blockCount
    lines.append(line)
  }

  /// Attention of all lines over the keys and values of their sequence, tile by tile as they are there.
  ///
  /// - Parameters:
  ///   - window: positions a token sees, its own included; nil = all before it.
  ///   - sinks: [queryHeadCount], as `AttentionSpec.hasSinks`.
  func run(
    window: Int?, sinks: UnsafePointer<Float>?, _ cache: KeyValueStore,
    _ branches: KeyValueBranches?
  ) throws(KeyValueError) {
    guard let chunk = lines.first else { return }
    (self.window, self.sinks) = (window, sinks)
    self.cache = .passUnretained(cache)
    self.branches = branches.map { .passUnretained($0) }
    let first = Int(AttentionStep.visible(chunk.position, window).first)
    let last = lines.reduce(0) { max($0, $1.position + $1.tokenCount - 1) }
    allTiles =
      first / AttentionTile.positionCount..<last / AttentionTile.positionCount + 1
    var next = allTiles.lowerBound
    while next < allTiles.upperBound {
      var end = next
      while end < allTiles.upperBound,
        cache.isReady(layer: layer, tile: end, positions: first...last)
      {
        end += 1
      }
      // Without a place for partials every tile is waited for.
      guard end > next, end == allTiles.upperBound || partials != nil else {
        try cache.waitForRead(layer: layer, tile: end)
        continue
      }
      // Its queries make room for what they get.
      observation?.weigh(
        layer: layer, queries: chunk.queries, tokenCount: chunk.tokenCount,
        position: chunk.position, window: window, tiles: next..<end, cache)
      tiles = next..<end
      pool.run(count: blockCount * shape.keyValueHeadCount, self)
      for tile in next..<end { cache.release(layer: layer, tile: tile) }
      try cache.readAhead()
      next = end
    }
    observation?.end(
      layer: layer, position: chunk.position, tokenCount: chunk.tokenCount, window: window, cache)
  }

  // MARK: - One task

  func perform(index: Int, worker: Int) {
    let (block, head) = index.quotientAndRemainder(dividingBy: shape.keyValueHeadCount)
    var number = 0
    while block >= lines[number].firstBlock + lines[number].blockCount { number += 1 }
    let line = lines[number]
    // Late blocks see the most positions: they go first, so that no worker ends on a long one.
    attend(
      line, block: line.blockCount - 1 - (block - line.firstBlock), head: head, worker: worker)
  }

  /// One KV head's queries of a block of tokens, over those of the region's tiles that they see.
  private func attend(_ line: Line, block: Int, head: Int, worker: Int) {
    guard let cache else { return }
    let (headDim, groupSize) = (shape.headDim, shape.groupSize)
    let rowLength = shape.queryHeadCount * headDim
    let firstToken = (line.position / tokenBlock + block) * tokenBlock - line.position
    let tokens = max(0, firstToken)..<min(firstToken + tokenBlock, line.tokenCount)
    let queryCount = tokens.count * groupSize
    let area = AttentionWorkerArea(
      memory + worker * workerByteCount, shape, queryCount: queryCount)
    for (row, token) in tokens.enumerated() {
      (area.queries + row * groupSize * headDim).update(
        from: line.queries + token * rowLength + head * groupSize * headDim,
        count: groupSize * headDim)
      for member in 0..<groupSize {
        area.visible[row * groupSize + member] = AttentionStep.visible(
          line.position + token, window)
      }
    }
    var partials = area.partials
    if tiles != allTiles, let kept = self.partials {
      partials = AttentionPartials(
        memory: kept
          + ((line.firstBlock + block) * shape.keyValueHeadCount + head)
            * Self.blockPartialByteCount(shape),
        queryCount: queryCount, headDim: headDim)
    }
    if tiles.lowerBound == allTiles.lowerBound { partials.reset() }
    let seen =
      Int(area.visible[0].first)
      / AttentionTile.positionCount..<(line.position
      + tokens.upperBound - 1) / AttentionTile.positionCount + 1
    let pageGroups = AttentionStep.pageGroups(
      VisibleRange(first: area.visible[0].first, last: Int32(line.position + tokens.lowerBound)))
    let tilesHere = tiles.clamped(to: seen)
    for tile in tilesHere {
      cache._withUnsafeGuaranteedRef { cache in
        cache.expandedGroups(
          layer: layer, head: head, tile: tile, pageGroups: pageGroups,
          expansion: area.expansion, into: area.groups)
        if let branch = line.branch {
          branches?._withUnsafeGuaranteedRef {
            $0.place(branch, layer: layer, head: head, tile: tile, into: area.groups)
          }
        }
        AttentionKernel.accumulate(
          groups: area.groups,
          nextGroups: area.nextGroups(
            layer: layer, head: head, tile: min(tile + 1, tilesHere.upperBound - 1), cache),
          tileFirstPosition: tile * AttentionTile.positionCount, headDim: headDim,
          queries: area.queries, queryStride: headDim, visible: area.visible,
          queryCount: queryCount, into: partials, scratch: area.scratch, softCap: shape.softCap)
      }
    }
    guard tiles.upperBound == allTiles.upperBound else { return }
    AttentionKernel.finish(
      partials, sinks: shape.sinks(sinks, ofHead: head), into: area.queries, outputStride: headDim)
    for (row, token) in tokens.enumerated() {
      (line.queries + token * rowLength + head * groupSize * headDim).update(
        from: area.queries + row * groupSize * headDim, count: groupSize * headDim)
    }
  }
}
