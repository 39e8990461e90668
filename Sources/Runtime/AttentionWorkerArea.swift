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
  let nextGroups: UnsafeMutablePointer<UnsafeRawPointer?>
  let partials: AttentionPartials
  let scratch: UnsafeMutableRawPointer
  /// After everything else: what quantised blocks of a tile are expanded into.
  let expansion: UnsafeMutableRawPointer

  init(_ memory: UnsafeMutableRawPointer, _ shape: AttentionShape, queryCount: Int) {
    let headDim = shape.headDim
    var next = memory
    queries = next.bindMemory(to: Float.self, capacity: queryCount * headDim)
    next += Self.rounded(queryCount * headDim * 4)
    visible = next.bindMemory(to: VisibleRange.self, capacity: queryCount)
    next += Self.rounded(queryCount * MemoryLayout<VisibleRange>.stride)
    groups = next.bindMemory(to: UnsafeRawPointer?.self, capacity: 2 * AttentionTile.groupCount)
    nextGroups = groups + AttentionTile.groupCount
    next += Self.groupsByteCount
    partials = AttentionPartials(memory: next, queryCount: queryCount, headDim: headDim)
    next += Self.rounded(
      AttentionPartials.byteCount(queryCount: queryCount, headDim: headDim))
    scratch = next
    expansion =
      next
      + Self.rounded(
        AttentionKernel.scratchByteCount(queryCount: queryCount, headDim: headDim))
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
