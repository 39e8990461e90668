import Kernels
public import TensorBasics

/// Keys and values of every position so far, as f16 blocks of 128 positions.
///
/// Shape [layerCount, blockCount, keyValueHeadCount] blocks of ``KeyValueBlock``: all heads of 128
/// positions of a layer are contiguous. Memory is reserved for the whole context and committed as
/// positions are written, by huge pages where a layer takes several of them.
public final class KeyValueCache {
  public let layerCount: Int
  public let keyValueHeadCount: Int
  public let headLength: Int
  /// Positions that fit.
  public let contextLength: Int

  private let buffer: AlignedBuffer
  private let blockByteCount: Int
  private let blockCount: Int

  /// - Throws: ``AllocationError``.
  public init(
    layerCount: Int, keyValueHeadCount: Int, headLength: Int, contextLength: Int
  ) throws(AllocationError) {
    self.layerCount = layerCount
    self.keyValueHeadCount = keyValueHeadCount
    self.headLength = headLength
    self.contextLength = contextLength
    blockByteCount = KeyValueBlock.byteCount(headLength: headLength)
    blockCount = Self.blockCount(contextLength: contextLength)
    let layerByteCount = blockCount * keyValueHeadCount * blockByteCount
    buffer = try AlignedBuffer(
      byteCount: layerCount * layerByteCount, prefersHugePages: layerByteCount >= 8 << 20)
  }

  /// Memory of a cache of that shape, fully used.
  public static func byteCount(
    layerCount: Int, keyValueHeadCount: Int, headLength: Int, contextLength: Int
  ) -> Int {
    layerCount * blockCount(contextLength: contextLength) * keyValueHeadCount
      * KeyValueBlock.byteCount(headLength: headLength)
  }

  /// The addresses of the blocks of tile `tile` of one layer and head; nil behind the context's end.
  ///
  /// - Parameter addresses: [``AttentionTile/blockCount``], written.
  public func blockAddresses(
    layer: Int, head: Int, tile: Int, into addresses: UnsafeMutablePointer<UnsafeRawPointer?>
  ) {
    for index in 0..<AttentionTile.blockCount {
      let block = tile * AttentionTile.blockCount + index
      addresses[index] =
        block < blockCount
        ? UnsafeRawPointer(address(layer: layer, block: block, head: head)) : nil
    }
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
    let block = position / KeyValueBlock.positionCount
    for head in 0..<keyValueHeadCount {
      KeyValueBlock.store(
        key: keys + head * headLength, value: values + head * headLength, headLength: headLength,
        position: position % KeyValueBlock.positionCount,
        into: address(layer: layer, block: block, head: head))
    }
  }

  private func address(layer: Int, block: Int, head: Int) -> UnsafeMutableRawPointer {
    buffer.address
      + ((layer * blockCount + block) * keyValueHeadCount + head) * blockByteCount
  }

  private static func blockCount(contextLength: Int) -> Int {
    (contextLength + KeyValueBlock.positionCount - 1) / KeyValueBlock.positionCount
  }
}
