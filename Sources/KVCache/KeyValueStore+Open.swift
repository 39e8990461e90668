public import Kernels
import TensorBasics

/// Rows that are being filled, and what happens to them if complete rows are quantised.
///
/// A query sees its own slab as f16 and every slab before that quantised, however tokens are chunked. The
/// open rows of a chunk lie apart from the pool: of every layer the row of the slab that the chunk begins in
/// [layerCount], then of the current layer the rows of the other slabs that it reaches into.
extension KeyValueStore {
  /// Quantises the rows of a layer that the chunk completes, where the type says so.
  public func quantiseCompleted(layer: Int, on pool: ThreadPool) {
    let first = chunk.lowerBound / KeyValueBlock.positionCount
    let end = chunk.upperBound / KeyValueBlock.positionCount
    guard shape.quantises, first < end else { return }
    if chunk.count == 1 {
      // A region made of a closure allocates.
      for head in 0..<shape.keyValueHeadCount { quantise(layer: layer, slab: first, head: head) }
      return
    }
    pool.run(count: (end - first) * shape.keyValueHeadCount) { index, _ in
      let (slab, head) = index.quotientAndRemainder(dividingBy: shape.keyValueHeadCount)
      quantise(layer: layer, slab: first + slab, head: head)
    }
  }

  /// Writes the addresses of a tile's blocks as f16, as the queries of one slab see them; nil for blocks that
  /// are not in memory or that none of them sees.
  ///
  /// - Parameters:
  ///   - slabs: what the queries see, their own slab last.
  ///   - expansion: where quantised blocks are expanded, ``expansionByteCount(_:)``.
  ///   - result: [`AttentionTile.blockCount`], written.
  public func expandedBlocks(
    layer: Int, head: Int, tile: Int, slabs: ClosedRange<Int>,
    expansion: UnsafeMutableRawPointer, into result: UnsafeMutablePointer<UnsafeRawPointer?>
  ) {
    blockAddresses(layer: layer, head: head, tile: tile, into: result)
    guard shape.quantises else { return }
    for index in 0..<AttentionTile.blockCount {
      let slab = tile * AttentionTile.blockCount + index
      if slab == slabs.upperBound {
        result[index] = openRow(layer: layer, slab: slab).map {
          UnsafeRawPointer($0 + head * shape.openBlockByteCount)
        }
      } else if slabs.contains(slab), let block = result[index] {
        result[index] = expanded(block, into: expansion + index * shape.openBlockByteCount)
      } else {
        result[index] = nil
      }
    }
  }

  /// A complete block that is in memory, as f16; nil for others.
  ///
  /// - Parameter expansion: where it is expanded if it is quantised, a block of f16.
  public func expandedBlock(
    layer: Int, head: Int, slab: Int, expansion: UnsafeMutableRawPointer
  ) -> UnsafeRawPointer? {
    addresses[row(layer, slab)].map {
      expanded(UnsafeRawPointer($0 + head * shape.blockByteCount), into: expansion)
    }
  }

  /// A complete block as f16, which is in `expansion` if it is quantised.
  private func expanded(
    _ block: UnsafeRawPointer, into expansion: UnsafeMutableRawPointer
  ) -> UnsafeRawPointer {
    guard shape.quantises else { return block }
    KeyValueBlock.expand(block, headDim: shape.headDim, from: shape.type, into: expansion)
    return UnsafeRawPointer(expansion)
  }

  /// Memory of the blocks of a tile that ``expandedBlocks(layer:head:tile:slabs:expansion:into:)`` expands.
  public static func expansionByteCount(_ shape: KeyValueShape) -> Int {
    shape.quantises ? AttentionTile.blockCount * shape.openBlockByteCount : 0
  }

  /// Whether queries of the current chunk find a slab among the open rows.
  func isOpen(_ slab: Int) -> Bool {
    shape.quantises && slab >= chunk.lowerBound / KeyValueBlock.positionCount
  }

  /// Where a slab that the chunk reaches into is filled, of one layer; nil if there is no place yet.
  func openRow(layer: Int, slab: Int) -> UnsafeMutableRawPointer? {
    guard shape.quantises else { return addresses[row(layer, slab)] }
    let later = slab - chunk.lowerBound / KeyValueBlock.positionCount
    return openMemory.address
      + (later == 0 ? layer : shape.layerCount + later - 1) * shape.openRowStride
  }

  /// Ends the chunk's work on open rows of a layer: the last is where the next chunk goes on.
  func keepOpenRow(layer: Int) {
    let first = chunk.lowerBound / KeyValueBlock.positionCount
    let last = chunk.upperBound / KeyValueBlock.positionCount
    let isPartial = chunk.upperBound % KeyValueBlock.positionCount != 0
    guard shape.quantises, isPartial, last > first,
      let place = openRow(layer: layer, slab: first), let row = openRow(layer: layer, slab: last)
    else { return }
    place.copyMemory(from: row, byteCount: shape.keyValueHeadCount * shape.openBlockByteCount)
  }

  private func quantise(layer: Int, slab: Int, head: Int) {
    guard let open = openRow(layer: layer, slab: slab), let row = addresses[row(layer, slab)]
    else { preconditionFailure("there is no room for slab \(slab) of layer \(layer)") }
    KeyValueBlock.quantise(
      open + head * shape.openBlockByteCount, headDim: shape.headDim, to: shape.type,
      into: row + head * shape.blockByteCount)
  }
}
