import KVCache
import Kernels

/// What one worker needs for one task of attention.
struct AttentionWorkerArea {
  /// [queryCount, headDim]
  let queries: UnsafeMutablePointer<Float>
  /// [queryCount]
  let visible: UnsafeMutablePointer<VisibleRange>
  /// Addresses of the current tile's groups, and of those of the one after it [AttentionTile.groupCount].
  let groups: UnsafeMutablePointer<UnsafeRawPointer?>
  private let next: UnsafeMutablePointer<UnsafeRawPointer?>
  let partials: AttentionPartials
  let scratch: UnsafeMutableRawPointer
  /// After everything else: what quantised blocks of a tile are expanded into.
  let expansion: UnsafeMutableRawPointer

  init(_ memory: UnsafeMutableRawPointer, _ shape: AttentionShape, queryCount: Int) {
    let headDim = shape.headDim
    var address = memory
    queries = address.bindMemory(to: Float.self, capacity: queryCount * headDim)
    address += Self.rounded(queryCount * headDim * 4)
    visible = address.bindMemory(to: VisibleRange.self, capacity: queryCount)
    address += Self.rounded(queryCount * MemoryLayout<VisibleRange>.stride)
    groups = address.bindMemory(to: UnsafeRawPointer?.self, capacity: 2 * AttentionTile.groupCount)
    next = groups + AttentionTile.groupCount
    address += Self.groupsByteCount
    partials = AttentionPartials(memory: address, queryCount: queryCount, headDim: headDim)
    address += Self.rounded(
      AttentionPartials.byteCount(queryCount: queryCount, headDim: headDim))
    scratch = address
    expansion =
      address
      + Self.rounded(
        AttentionKernel.scratchByteCount(queryCount: queryCount, headDim: headDim))
  }

  /// Addresses of the groups to fetch into the cache ahead; nil if they must be expanded first, which fetches as it
  /// reads.
  func nextGroups(
    layer: Int, head: Int, tile: Int, _ cache: KeyValueStore
  ) -> UnsafePointer<UnsafeRawPointer?>? {
    guard !cache.shape.quantises else { return nil }
    cache.groupAddresses(layer: layer, head: head, tile: tile, into: next)
    return UnsafePointer(next)
  }

  static func byteCount(
    _ shape: AttentionShape, _ keyValues: KeyValueShape, queryCount: Int
  ) -> Int {
    let headDim = shape.headDim
    return rounded(queryCount * headDim * 4)
      + rounded(queryCount * MemoryLayout<VisibleRange>.stride)
      + groupsByteCount
      + rounded(AttentionPartials.byteCount(queryCount: queryCount, headDim: headDim))
      + rounded(
        AttentionKernel.scratchByteCount(queryCount: queryCount, headDim: headDim))
      + KeyValueStore.expansionByteCount(keyValues)
  }

  private static var groupsByteCount: Int {
    rounded(2 * AttentionTile.groupCount * MemoryLayout<UnsafeRawPointer?>.stride)
  }

  private static func rounded(_ count: Int) -> Int { (count + 63) & ~63 }
}
