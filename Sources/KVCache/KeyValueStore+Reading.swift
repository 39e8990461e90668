import Kernels

/// What attention asks of a store: whether tiles are in memory, and where.
extension KeyValueStore {
  /// Whether every block of a tile that is attended over is in memory.
  ///
  /// - Parameter positions: what the queries see, all together.
  public func isReady(layer: Int, tile: Int, positions: ClosedRange<Int>) -> Bool {
    for pageGroup in pageGroups(ofTile: tile, positions)
    where !isOpen(pageGroup) && address(layer, pageGroup) == nil
      && selection.includes(page(layer, pageGroup))
    {
      return false
    }
    return true
  }

  /// Whether any block of a tile is attended over.
  public func isAttended(layer: Int, tile: Int, positions: ClosedRange<Int>) -> Bool {
    pageGroups(ofTile: tile, positions).contains { selection.includes(page(layer, $0)) }
  }

  /// The address of a complete block of one layer and head, as it is stored; nil if it is
  /// not in memory, or not attended over.
  package func block(layer: Int, head: Int, pageGroup: Int) -> UnsafeRawPointer? {
    guard pageGroup < shape.pageGroupCount,
      selection.includes(page(layer, pageGroup), head: head)
    else { return nil }
    return address(layer, pageGroup).map { UnsafeRawPointer($0 + head * shape.blockByteCount) }
  }

  /// Writes the addresses of the groups of tile `tile` of one layer and head, all f16; nil for those of blocks
  /// that are not in memory, or not attended over.
  ///
  /// - Parameter result: [`AttentionTile.groupCount`], written.
  package func groupAddresses(
    layer: Int, head: Int, tile: Int, into result: UnsafeMutablePointer<UnsafeRawPointer?>
  ) {
    for index in 0..<AttentionTile.blockCount {
      let pageGroup = tile * AttentionTile.blockCount + index
      AttentionTile.place(
        isOpen(pageGroup)
          ? openBlock(layer: layer, head: head, pageGroup: pageGroup)
          : block(layer: layer, head: head, pageGroup: pageGroup),
        at: index, headDim: shape.headDim, in: result)
    }
  }

  /// Gives back the staging slots of a tile that attention has passed.
  public func release(layer: Int, tile: Int) {
    guard plan.hasTier else { return }
    let first = tile * AttentionTile.blockCount
    for pageGroup in first..<min(first + AttentionTile.blockCount, shape.pageGroupCount) {
      let number = pageNumbers[page(layer, pageGroup)]
      guard number >= 0, pool.pages[Int(number)].flags.contains(.isStaged) else { continue }
      // Another sequence may have had it read.
      summarise(layer: layer, pageGroup: pageGroup)
      pool.evict(Int(number))
    }
  }

  /// Takes the reads that are done and starts as many as there is room for.
  public func readAhead() throws(KeyValueError) {
    try pool.readAhead()
    try throwFailure()
  }

  /// Sleeps until a read is done.
  ///
  /// - Parameters: the tile that is waited for.
  /// - Throws: ``KeyValueError/interrupted``, ``KeyValueError/io(_:layer:)``,
  ///   ``KeyValueError/damaged(path:offset:layer:)``.
  public func waitForRead(layer: Int, tile: Int) throws(KeyValueError) {
    try throwFailure()
    try pool.waitForRead(self, layer: layer, tile: tile)
    try throwFailure()
  }

  private func pageGroups(ofTile tile: Int, _ positions: ClosedRange<Int>) -> Range<Int> {
    let first = tile * AttentionTile.blockCount
    let lower = max(first, positions.lowerBound / KeyValueBlock.positionCount)
    let upper = min(
      first + AttentionTile.blockCount, positions.upperBound / KeyValueBlock.positionCount + 1)
    return lower..<max(lower, upper)
  }

  // MARK: What the pool asks

  /// What will be read of a layer.
  enum Demand {
    case none
    case pageGroups(Range<Int>)
    /// It is not known yet.
    case unknown
  }

  /// What the current sweep, or the next, reads of a layer.
  func reads(layer: Int, isNext: Bool) -> Demand {
    guard !hasFailed, !isAbandoned else { return .none }
    if isNext, layer >= finishedLayerCount { return .unknown }
    guard selection.kind != nil else { return .none }
    guard selection.isPlanned(layer: layer, isNext: isNext) else { return .unknown }
    let start = isNext ? certainEnd : chunk.lowerBound
    let end = start / KeyValueBlock.positionCount
    let first = shape.firstVisiblePageGroup(layer: layer, position: start)
    return .pageGroups(min(first, end)..<end)
  }

  /// Whether a page has to be read.
  func lacks(layer: Int, pageGroup: Int) -> Bool {
    let index = page(layer, pageGroup)
    guard pageNumbers[index] >= 0, selection.includes(index) else { return false }
    let number = Int(pageNumbers[index])
    return pool.pages[number].address == nil
      && pool.pages[number].flags.contains(.isOnFile)
      && !pool.pages[number].flags.contains(.isBeingRead)
  }

  /// How many reads bring the planned blocks of a page; nil if it is read whole.
  func blockRuns(_ layer: Int, _ pageGroup: Int, most: Int) -> Int? {
    let index = page(layer, pageGroup)
    return isSummarised[index] ? blocks?.runs(of: index, selection, most: most) : nil
  }

  func nextBlockRun(
    _ layer: Int, _ pageGroup: Int, from head: Int
  ) -> (bytes: Range<Int>, end: Int)? {
    blocks?.nextRun(of: page(layer, pageGroup), selection, from: head)
  }

  func areBlocksIntact(
    _ layer: Int, _ pageGroup: Int, _ address: UnsafeRawPointer
  ) -> Bool {
    blocks?.areIntact(page(layer, pageGroup), selection, address) ?? false
  }
}
