public import Kernels
import TensorBasics

/// Open pages, which are being filled, and what happens to them when they are complete.
///
/// A query sees its own page group as f16 and every page group before that as complete pages are stored, however tokens
/// are chunked. The open pages of a chunk lie apart from complete ones: of every layer the page of the page group that
/// the chunk begins in, which is the sequence's own, then of the current layer the pages of the other page groups that
/// it reaches into, which all layers share.
extension KeyValueStore {
  /// Page groups that the chunk fills.
  var firstOpenPageGroup: Int { chunk.lowerBound / KeyValueBlock.positionCount }
  var lastOpenPageGroup: Int { (chunk.upperBound - 1) / KeyValueBlock.positionCount }

  /// Makes complete pages of the open ones that the chunk has filled, of one layer.
  public func seal(layer: Int, on pool: ThreadPool) {
    let pageGroups = completedPageGroups
    guard !pageGroups.isEmpty else { return }
    if chunk.count - tentativeCount == 1 {
      // A region made of a closure allocates.
      for head in 0..<shape.keyValueHeadCount {
        seal(layer: layer, pageGroup: pageGroups.lowerBound, head: head)
      }
      return
    }
    pool.run(count: pageGroups.count * shape.keyValueHeadCount) { index, _ in
      let (pageGroup, head) = index.quotientAndRemainder(dividingBy: shape.keyValueHeadCount)
      seal(layer: layer, pageGroup: pageGroups.lowerBound + pageGroup, head: head)
    }
  }

  private func seal(layer: Int, pageGroup: Int, head: Int) {
    guard let open = openPage(layer: layer, pageGroup: pageGroup),
      let page = address(layer, pageGroup)
    else { preconditionFailure("there is no room for page group \(pageGroup) of layer \(layer)") }
    let (source, place) = (
      open + head * shape.openBlockByteCount, page + head * shape.blockByteCount
    )
    guard shape.quantises else {
      return place.copyMemory(from: source, byteCount: shape.blockByteCount)
    }
    KeyValueBlock.quantise(source, headDim: shape.headDim, to: shape.type, into: place)
  }

  /// Writes the addresses of a tile's f16 groups, as the queries of one page group see them.
  ///
  /// Those of blocks that are not in memory, or that none of the queries sees, are nil.
  ///
  /// - Parameters:
  ///   - pageGroups: what the queries see, their own page group last.
  ///   - expansion: where quantised blocks are expanded, ``expansionByteCount(_:)``.
  ///   - result: [`AttentionTile.groupCount`], written.
  package func expandedGroups(
    layer: Int, head: Int, tile: Int, pageGroups: ClosedRange<Int>,
    expansion: UnsafeMutableRawPointer, into result: UnsafeMutablePointer<UnsafeRawPointer?>
  ) {
    for index in 0..<AttentionTile.blockCount {
      let pageGroup = tile * AttentionTile.blockCount + index
      var found: UnsafeRawPointer?
      if pageGroup == pageGroups.upperBound {
        found = openBlock(layer: layer, head: head, pageGroup: pageGroup)
      } else if pageGroups.contains(pageGroup),
        let block = block(layer: layer, head: head, pageGroup: pageGroup)
      {
        found = expanded(block, into: expansion + index * shape.openBlockByteCount)
      }
      AttentionTile.place(found, at: index, headDim: shape.headDim, in: result)
    }
  }

  /// A complete block that is in memory, as f16; nil for others.
  ///
  /// - Parameter expansion: where it is expanded if it is quantised, a block of f16.
  package func expandedBlock(
    layer: Int, head: Int, pageGroup: Int, expansion: UnsafeMutableRawPointer
  ) -> UnsafeRawPointer? {
    address(layer, pageGroup).map {
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

  /// Memory of the blocks of a tile that `expandedGroups` expands.
  public static func expansionByteCount(_ shape: KeyValueShape) -> Int {
    shape.quantises ? AttentionTile.blockCount * shape.openBlockByteCount : 0
  }

  /// Whether queries of the current chunk find a page group among the open pages.
  func isOpen(_ pageGroup: Int) -> Bool { pageGroup >= firstOpenPageGroup }

  /// Where a page group that the chunk reaches into is filled, of one layer; nil for others.
  func openPage(layer: Int, pageGroup: Int) -> UnsafeMutableRawPointer? {
    let later = pageGroup - firstOpenPageGroup
    guard later > 0 else { return later == 0 ? pool.openPage(place: place, layer: layer) : nil }
    return pageGroup <= lastOpenPageGroup ? pool.extraOpenPage(firstExtra + later - 1) : nil
  }

  /// A block of a page that is being filled; nil for others.
  func openBlock(layer: Int, head: Int, pageGroup: Int) -> UnsafeRawPointer? {
    openPage(layer: layer, pageGroup: pageGroup).map {
      UnsafeRawPointer($0 + head * shape.openBlockByteCount)
    }
  }

  /// Zeroes the groups of sixteen positions that the chunk opens: attention weighs what a group holds after its last
  /// position with 0, and 0 × NaN is NaN.
  func clearOpenedGroups(layer: Int) {
    let length = KeyValueGroup.positionCount
    let groups =
      (chunk.lowerBound + length - 1) / length..<(chunk.upperBound + length - 1) / length
    let byteCount = KeyValueGroup.byteCount(headDim: shape.headDim)
    for pageGroup in firstOpenPageGroup...max(firstOpenPageGroup, lastOpenPageGroup) {
      let first = pageGroup * KeyValueBlock.groupCount
      let opened = groups.clamped(to: first..<first + KeyValueBlock.groupCount)
      guard !opened.isEmpty, let page = openPage(layer: layer, pageGroup: pageGroup) else {
        continue
      }
      for head in 0..<shape.keyValueHeadCount {
        let start =
          page + head * shape.openBlockByteCount + (opened.lowerBound - first) * byteCount
        start.initializeMemory(as: UInt8.self, repeating: 0, count: opened.count * byteCount)
      }
    }
  }

  /// Ends the chunk's work on open pages of a layer: the last is where the next chunk goes on.
  func keepOpenPage(layer: Int) {
    let (first, next) = (firstOpenPageGroup, chunk.upperBound / KeyValueBlock.positionCount)
    guard next > first else { return }
    moveOpenPage(layer: layer, to: next)
    guard let page = openPage(layer: layer, pageGroup: next) else { return }
    copyOpenPage(
      layer: layer, from: page, positionCount: chunk.upperBound % KeyValueBlock.positionCount)
  }

  /// Takes the first positions of a page over into the layer's own open page.
  func copyOpenPage(layer: Int, from page: UnsafeRawPointer, positionCount: Int) {
    let groups =
      (positionCount + KeyValueGroup.positionCount - 1) / KeyValueGroup.positionCount
    let byteCount = groups * KeyValueGroup.byteCount(headDim: shape.headDim)
    for head in 0..<shape.keyValueHeadCount {
      let offset = head * shape.openBlockByteCount
      (pool.openPage(place: place, layer: layer) + offset).copyMemory(
        from: page + offset, byteCount: byteCount)
    }
  }

  // MARK: Their memory

  private func openByteCount(_ layer: Int) -> Int {
    shape.openByteCount(pageGroup: openPageGroups[layer], limit: limit)
  }

  /// Sets memory aside for all open pages, as far as they can still grow.
  ///
  /// - Throws: ``KeyValueError/noRoom(_:)``, ``KeyValueError/interrupted``.
  func reserveOpenPages() throws(KeyValueError) {
    guard !isReserved else { return }
    try pool.reserve((0..<shape.layerCount).reduce(0) { $0 + openByteCount($1) })
    isReserved = true
  }

  func unreserveOpenPages() {
    guard isReserved else { return }
    pool.unreserve((0..<shape.layerCount).reduce(0) { $0 + openByteCount($1) })
    isReserved = false
  }

  /// Uses a layer's open page for another page group after the present one, which may need less memory.
  private func moveOpenPage(layer: Int, to pageGroup: Int) {
    let before = openByteCount(layer)
    openPageGroups[layer] = pageGroup
    let after = openByteCount(layer)
    guard after < before else { return }
    pool.forgetOpenPages(
      pool.openPage(place: place, layer: layer), byteCount: shape.openPageStride)
    pool.unreserve(before - after)
  }
}
