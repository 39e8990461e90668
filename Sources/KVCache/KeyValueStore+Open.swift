public import Kernels
import TensorBasics

/// Pages that are being filled, and what happens to them if complete pages are quantised.
///
/// A query sees its own page group as f16 and every page group before that quantised, however tokens are chunked. The
/// open pages of a chunk lie apart from the pool: of every layer the page of the page group that the chunk begins in
/// [layerCount], then of the current layer the pages of the other page groups that it reaches into.
extension KeyValueStore {
  /// Quantises the pages of a layer that the chunk completes, where the type says so.
  public func quantiseCompleted(layer: Int, on pool: ThreadPool) {
    let first = chunk.lowerBound / KeyValueBlock.positionCount
    let end = chunk.upperBound / KeyValueBlock.positionCount
    guard shape.quantises, first < end else { return }
    if chunk.count == 1 {
      // A region made of a closure allocates.
      for head in 0..<shape.keyValueHeadCount {
        quantise(layer: layer, pageGroup: first, head: head)
      }
      return
    }
    pool.run(count: (end - first) * shape.keyValueHeadCount) { index, _ in
      let (pageGroup, head) = index.quotientAndRemainder(dividingBy: shape.keyValueHeadCount)
      quantise(layer: layer, pageGroup: first + pageGroup, head: head)
    }
  }

  /// Writes the addresses of a tile's blocks as f16, as the queries of one page group see them.
  ///
  /// Blocks that are not in memory, or that none of the queries sees, are nil.
  ///
  /// - Parameters:
  ///   - pageGroups: what the queries see, their own page group last.
  ///   - expansion: where quantised blocks are expanded, ``expansionByteCount(_:)``.
  ///   - result: [`AttentionTile.blockCount`], written.
  package func expandedBlocks(
    layer: Int, head: Int, tile: Int, pageGroups: ClosedRange<Int>,
    expansion: UnsafeMutableRawPointer, into result: UnsafeMutablePointer<UnsafeRawPointer?>
  ) {
    blockAddresses(layer: layer, head: head, tile: tile, into: result)
    guard shape.quantises else { return }
    for index in 0..<AttentionTile.blockCount {
      let pageGroup = tile * AttentionTile.blockCount + index
      if pageGroup == pageGroups.upperBound {
        result[index] = openPage(layer: layer, pageGroup: pageGroup).map {
          UnsafeRawPointer($0 + head * shape.openBlockByteCount)
        }
      } else if pageGroups.contains(pageGroup), let block = result[index] {
        result[index] = expanded(block, into: expansion + index * shape.openBlockByteCount)
      } else {
        result[index] = nil
      }
    }
  }

  /// A complete block that is in memory, as f16; nil for others.
  ///
  /// - Parameter expansion: where it is expanded if it is quantised, a block of f16.
  package func expandedBlock(
    layer: Int, head: Int, pageGroup: Int, expansion: UnsafeMutableRawPointer
  ) -> UnsafeRawPointer? {
    addresses[page(layer, pageGroup)].map {
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

  /// Memory of the blocks of a tile that `expandedBlocks` expands.
  public static func expansionByteCount(_ shape: KeyValueShape) -> Int {
    shape.quantises ? AttentionTile.blockCount * shape.openBlockByteCount : 0
  }

  /// Whether queries of the current chunk find a page group among the open pages.
  func isOpen(_ pageGroup: Int) -> Bool {
    shape.quantises && pageGroup >= chunk.lowerBound / KeyValueBlock.positionCount
  }

  /// Where a page group that the chunk reaches into is filled, of one layer; nil if there is no place yet.
  func openPage(layer: Int, pageGroup: Int) -> UnsafeMutableRawPointer? {
    guard shape.quantises else { return addresses[page(layer, pageGroup)] }
    let later = pageGroup - chunk.lowerBound / KeyValueBlock.positionCount
    return openMemory.address
      + (later == 0 ? layer : shape.layerCount + later - 1) * shape.openPageStride
  }

  /// Ends the chunk's work on open pages of a layer: the last is where the next chunk goes on.
  func keepOpenPage(layer: Int) {
    let first = chunk.lowerBound / KeyValueBlock.positionCount
    let last = chunk.upperBound / KeyValueBlock.positionCount
    let isPartial = chunk.upperBound % KeyValueBlock.positionCount != 0
    guard shape.quantises, isPartial, last > first,
      let place = openPage(layer: layer, pageGroup: first),
      let page = openPage(layer: layer, pageGroup: last)
    else { return }
    place.copyMemory(from: page, byteCount: shape.keyValueHeadCount * shape.openBlockByteCount)
  }

  private func quantise(layer: Int, pageGroup: Int, head: Int) {
    guard let open = openPage(layer: layer, pageGroup: pageGroup),
      let page = addresses[page(layer, pageGroup)]
    else { preconditionFailure("there is no room for page group \(pageGroup) of layer \(layer)") }
    KeyValueBlock.quantise(
      open + head * shape.openBlockByteCount, headDim: shape.headDim, to: shape.type,
      into: page + head * shape.blockByteCount)
  }
}
