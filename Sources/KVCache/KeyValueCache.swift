import Kernels
public import TensorBasics

/// Keys and values of every position so far, as f16 groups of sixteen positions.
///
/// Shape [layerCount, keyValueHeadCount, groupCount] groups of ``KeyValueGroup``; the groups of one
/// layer and head are contiguous, so a tile is one address. Memory is reserved for the whole context
/// and committed as positions are written.
public final class KeyValueCache {
  public let layerCount: Int
  public let keyValueHeadCount: Int
  public let headLength: Int
  /// Positions that fit.
  public let contextLength: Int

  private let buffer: AlignedBuffer
  private let groupByteCount: Int
  private let groupCount: Int

  /// - Throws: ``AllocationError``.
  public init(
    layerCount: Int, keyValueHeadCount: Int, headLength: Int, contextLength: Int
  ) throws(AllocationError) {
    self.layerCount = layerCount
    self.keyValueHeadCount = keyValueHeadCount
    self.headLength = headLength
    self.contextLength = contextLength
    groupByteCount = KeyValueGroup.byteCount(headLength: headLength)
    groupCount = Self.groupCount(contextLength: contextLength)
    buffer = try AlignedBuffer(
      byteCount: layerCount * keyValueHeadCount * groupCount * groupByteCount)
  }

  /// Memory of a cache of that shape, fully used.
  public static func byteCount(
    layerCount: Int, keyValueHeadCount: Int, headLength: Int, contextLength: Int
  ) -> Int {
    layerCount * keyValueHeadCount * groupCount(contextLength: contextLength)
      * KeyValueGroup.byteCount(headLength: headLength)
  }

  /// The first group of tile `tile` of one layer and head.
  public func tile(layer: Int, head: Int, tile: Int) -> UnsafeMutableRawPointer {
    let groupsPerTile = AttentionTile.positionCount / KeyValueGroup.positionCount
    return group(layer: layer, head: head, group: tile * groupsPerTile)
  }

  /// Writes one position of every head of a layer, rounded to f16.
  ///
  /// - Parameters:
  ///   - keys: [keyValueHeadCount, headLength], after RoPE.
  ///   - values: [keyValueHeadCount, headLength].
  public func store(
    layer: Int, position: Int, keys: UnsafePointer<Float>, values: UnsafePointer<Float>
  ) {
    precondition(position < contextLength, "position \(position) is outside the context")
    for head in 0..<keyValueHeadCount {
      KeyValueGroup.store(
        key: keys + head * headLength, value: values + head * headLength, headLength: headLength,
        slot: position % KeyValueGroup.positionCount,
        into: group(layer: layer, head: head, group: position / KeyValueGroup.positionCount))
    }
  }

  private func group(layer: Int, head: Int, group: Int) -> UnsafeMutableRawPointer {
    buffer.address
      + ((layer * keyValueHeadCount + head) * groupCount + group) * groupByteCount
  }

  private static func groupCount(contextLength: Int) -> Int {
    (contextLength + KeyValueGroup.positionCount - 1) / KeyValueGroup.positionCount
  }
}
