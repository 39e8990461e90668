import Kernels

/// Going back to earlier positions, and going on from the same ones in several ways.
extension KeyValueStore {
  /// The last position up to `position` from which the sequence can go on as if nothing had followed it.
  ///
  /// Keys and values of f16 can be cut anywhere. Of quantised ones the originals are gone once a page group is complete:
  /// they are cut there. Where a layer has let go of positions that a query at the cut would see, and where a
  /// policy saw more than it would have seen by then, only the beginning is left. Where layers have states, it is the end of what
  /// these have taken in, or where a copy of them was made.
  public func restorePoint(atOrBefore position: Int) -> Int {
    var point = min(position, positionCount)
    let states = statesEnd(atOrBefore: point)
    if shape.hasStates { point = states }
    let pageGroup = point / KeyValueBlock.positionCount
    if !(0..<shape.layerCount).allSatisfy({ canOpen(pageGroup, layer: $0) }) {
      point = pageGroup * KeyValueBlock.positionCount
    }
    if point < observedEnd {
      point =
        observationCount > 1
        ? 0
        : min(point, max(0, observedEnd - observedTokenCount))
          / KeyValueBlock.positionCount * KeyValueBlock.positionCount
    }
    let isWhole = (0..<shape.layerCount).allSatisfy {
      shape.firstVisiblePageGroup(layer: $0, position: point) >= expiredPageGroupCounts[$0]
    }
    return isWhole && (!shape.hasStates || point == states) ? point : 0
  }

  /// The last position up to `position` of which there are states.
  private func statesEnd(atOrBefore position: Int) -> Int {
    if let statesEnd, statesEnd <= position { return statesEnd }
    return savedStates(atOrBefore: position)?.position ?? 0
  }

  /// Whether a page group can be filled on, of one layer.
  private func canOpen(_ pageGroup: Int, layer: Int) -> Bool {
    if openPageGroups[layer] == pageGroup { return true }
    guard !shape.quantises, pageGroup < shape.pageGroupCount,
      pageNumbers[page(layer, pageGroup)] >= 0
    else { return false }
    let known = pool.pages[pageNumber(layer, pageGroup)]
    return known.address != nil || known.flags.contains(.isOnFile)
  }

  /// Forgets the positions after the restore point at or before `position`, also those of a chunk that was broken off.
  ///
  /// - Parameter newLimit: positions that it may come to have from here on, `position` at least; nil = as many as before.
  /// - Returns: the restore point, up to which the sequence is as if nothing else had entered it.
  /// - Throws: ``KeyValueError``; the context is aborted then.
  public func truncate(
    to position: Int, limit newLimit: Int? = nil
  ) throws(KeyValueError) -> Int {
    let point = restorePoint(atOrBefore: position)
    precondition(newLimit.map { $0 >= point } ?? true, "there is no room after \(point)")
    let (pageGroup, rest) = point.quotientAndRemainder(dividingBy: KeyValueBlock.positionCount)
    abandonChunk()
    finishedLayerCount = 0
    try pool.restartReading()
    releasePages(from: rest > 0 ? pageGroup + 1 : pageGroup)
    unreserveOpenPages()
    if let newLimit { limit = min(newLimit, shape.contextLength) }
    if rest > 0 { try open(pageGroup, positionCount: rest) }
    releasePages(from: pageGroup)
    for layer in 0..<shape.layerCount { openPageGroups[layer] = pageGroup }
    try reserveOpenPages()
    (chunk, tentativeCount) = (point..<point, 0)
    (finishedLayerCount, isAbandoned) = (shape.layerCount, false)
    returnStates(to: point)
    exactPositionCount = min(exactPositionCount, point)
    prefixPageGroupCount = min(prefixPageGroupCount, pageGroup)
    // Of what forks share nothing may be written over.
    if isForked { dropOwnFile() }
    selection.isSelective = false
    policy?.forget(fromPageGroup: pageGroup)
    if point < observedEnd || point == 0 {
      policy?.reset()
      (observedEnd, observationCount) = (0, 0)
    }
    if point == 0 {
      for layer in 0..<shape.layerCount { expiredPageGroupCounts[layer] = 0 }
    }
    return point
  }

  /// Makes open pages of the complete ones of a page group, which go.
  ///
  /// Each goes as soon as it was copied: where memory is full, there is room for one more page than there was, which is one of those
  /// that chunks enter by.
  private func open(_ pageGroup: Int, positionCount: Int) throws(KeyValueError) {
    let byteCount = shape.openByteCount(pageGroup: pageGroup, limit: limit)
    var reservedCount = 0
    do throws(KeyValueError) {
      // Those in memory make room for those that are not.
      for isInMemory in [true, false] {
        for layer in 0..<shape.layerCount where openPageGroups[layer] != pageGroup {
          let index = page(layer, pageGroup)
          guard pageNumbers[index] >= 0, (address(layer, pageGroup) != nil) == isInMemory else {
            continue
          }
          let number = Int(pageNumbers[index])
          if !isInMemory {
            try pool.reserve(byteCount)
            reservedCount += 1
            try pool.load(number, for: self)
          }
          if let content = address(layer, pageGroup) {
            copyOpenPage(layer: layer, from: content, positionCount: positionCount)
          }
          if !isInMemory { pool.evict(number) }
          pool.release(number)
          pageNumbers[index] = -1
          if isInMemory {
            try pool.reserve(byteCount)
            reservedCount += 1
          }
        }
      }
      while reservedCount < shape.layerCount {
        try pool.reserve(byteCount)
        reservedCount += 1
      }
    } catch {
      pool.unreserve(reservedCount * byteCount)
      throw error
    }
    isReserved = true
    for layer in 0..<shape.layerCount { clearOpenPage(layer: layer, from: positionCount) }
  }

  /// A sequence with the same positions, which goes on by itself: complete pages are shared, open ones copied.
  ///
  /// It writes no file for others; nor does this one any more after a cut.
  ///
  /// - Parameter limit: positions that it may come to have; nil = the whole context.
  /// - Throws: as ``KeyValuePool/openSequence(limit:files:)``; ``KeyValueError/contextAborted``.
  /// - Precondition: the pool has room for another sequence.
  public func fork(limit: Int? = nil) throws(KeyValueError) -> KeyValueStore {
    guard isCommitted else { throw .contextAborted }
    // Of pages that pass through memory only some blocks may be there.
    try pool.restartReading()
    let other = try pool.openSequence(limit: limit, files: Files())
    precondition(other.limit >= chunk.upperBound, "a fork has room for what it begins with")
    other.unreserveOpenPages()
    isForked = true
    for index in 0..<shape.pageCount where pageNumbers[index] >= 0 {
      pool.retain(Int(pageNumbers[index]))
      other.pageNumbers[index] = pageNumbers[index]
      other.isSummarised[index] = isSummarised[index]
    }
    other.chunk = chunk.upperBound..<chunk.upperBound
    other.copyStates(of: self)
    other.exactPositionCount = exactPositionCount
    other.expiredPageGroupCounts = expiredPageGroupCounts
    other.openPageGroups = openPageGroups
    (other.observedEnd, other.observationCount) = (observedEnd, observationCount)
    if let policy { other.policy?.adopt(policy) }
    if let blocks { other.blocks?.adopt(blocks) }
    try other.reserveOpenPages()
    let rest = chunk.upperBound % KeyValueBlock.positionCount
    for layer in 0..<shape.layerCount where rest > 0 {
      other.copyOpenPage(
        layer: layer, from: pool.openPage(place: place, layer: layer), positionCount: rest)
    }
    return other
  }
}
