import Kernels

/// The parts of a drive's memory that its engine uses, apart from the address maps.
struct EngineBuffers {
  private let layout: PageLayout
  private let groupElementCount: Int
  /// Of each stream, the token group being filled: keys, then values.
  private let groups: UnsafeMutablePointer<UInt16>
  /// Of each stream, the keys of the tile being filled [headDim][512]; sparse engine only.
  private let tiles: UnsafeMutablePointer<UInt16>
  /// Of each stream, sums of values per token group, of as many groups as its window spans; one sum of all
  /// where it has none. Sparse engine only.
  private let valueSums: UnsafeMutablePointer<Float>
  private let valueSumOffsets: [Int]
  private let valueSumCounts: [Int]

  /// Pages of a token group, with room for a spare area after the last.
  let keyPages: UnsafeMutablePointer<UInt8>
  let valuePages: UnsafeMutablePointer<UInt8>
  /// The tile being attended over: its groups of sixteen, one after the other, in the kernel's layout.
  private let tile: UnsafeMutablePointer<UInt16>
  /// One KV head's queries [groupSize, headDim].
  let queries: UnsafeMutablePointer<Float>
  /// [groupSize]
  let visible: UnsafeMutablePointer<VisibleRange>
  let partials: AttentionPartials
  let scratch: UnsafeMutablePointer<UInt8>
  /// Sparse engine: approximate scores, then weights [groupSize, contextLength]; their sum over the group;
  /// chosen positions; one element of a tile's keys; shares of the query; chosen elements.
  let scores: UnsafeMutablePointer<Float>
  let totals: UnsafeMutablePointer<Float>
  let chosen: UnsafeMutablePointer<Int32>
  let row: UnsafeMutablePointer<Float>
  let magnitudes: UnsafeMutablePointer<Float>
  let elements: UnsafeMutablePointer<Int32>
  /// Mean value [headDim].
  let mean: UnsafeMutablePointer<Float>
  let scoreStride: Int

  init(_ contents: DriveContents, _ layout: PageLayout, _ arena: inout Arena) {
    self.layout = layout
    let (length, group) = (layout.headDim, contents.groupSize)
    let isSparse = layout.hasChannelPages
    groupElementCount = layout.groupPositions * length
    groups = arena.take(layout.streamCount * 2 * groupElementCount, of: UInt16.self)
    tiles = arena.take(
      isSparse ? layout.streamCount * length * PageLayout.tilePositionCount : 0, of: UInt16.self)
    var (offsets, counts, next) = ([Int](), [Int](), 0)
    for (layer, heads) in contents.heads.enumerated() {
      for _ in heads where isSparse {
        let count = contents.windows[layer].map { $0 / layout.groupPositions + 2 } ?? 1
        offsets.append(next)
        counts.append(count)
        next += count * length
      }
    }
    valueSumOffsets = offsets
    valueSumCounts = counts
    valueSums = arena.take(next, of: Float.self)
    let pagesByteCount =
      layout.pagesPerGroup * layout.pageByteCount + FlashArray.spareByteCount
    keyPages = arena.take(pagesByteCount, of: UInt8.self)
    valuePages = arena.take(pagesByteCount, of: UInt8.self)
    tile = arena.take(
      AttentionTile.groupCount * KeyValueGroup.byteCount(headDim: length) / 2, of: UInt16.self)
    queries = arena.take(group * length, of: Float.self)
    visible = arena.take(group, of: VisibleRange.self)
    partials = AttentionPartials(
      memory: arena.take(
        AttentionPartials.byteCount(queryCount: group, headDim: length), of: UInt8.self),
      queryCount: group, headDim: length)
    scratch = arena.take(
      AttentionKernel.scratchByteCount(queryCount: group, headDim: length), of: UInt8.self)
    scoreStride = isSparse ? (contents.contextLength + 15) & ~15 : 0
    scores = arena.take(group * scoreStride, of: Float.self)
    totals = arena.take(scoreStride, of: Float.self)
    chosen = arena.take(scoreStride, of: Int32.self)
    row = arena.take(isSparse ? PageLayout.tilePositionCount : 0, of: Float.self)
    magnitudes = arena.take(isSparse ? length : 0, of: Float.self)
    elements = arena.take(isSparse ? length : 0, of: Int32.self)
    mean = arena.take(isSparse ? length : 0, of: Float.self)
  }

  func groupKeys(_ stream: Int) -> UnsafeMutablePointer<UInt16> {
    groups + stream * 2 * groupElementCount
  }

  func groupValues(_ stream: Int) -> UnsafeMutablePointer<UInt16> {
    groupKeys(stream) + groupElementCount
  }

  func channelKeys(_ stream: Int) -> UnsafeMutablePointer<UInt16> {
    tiles + stream * layout.headDim * PageLayout.tilePositionCount
  }

  /// Slots of a stream's sums of values, of which a token group takes one in turn.
  func valueSumCount(_ stream: Int) -> Int { valueSumCounts[stream] }

  /// [headDim]
  func valueSum(_ stream: Int, slot: Int) -> UnsafeMutablePointer<Float> {
    valueSums + valueSumOffsets[stream] + slot * layout.headDim
  }

  /// The address of group `index` of the tile being attended over.
  func group(_ index: Int) -> UnsafeMutablePointer<UInt16> {
    tile + index * KeyValueGroup.byteCount(headDim: layout.headDim) / 2
  }
}
