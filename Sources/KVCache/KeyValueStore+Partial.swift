import Kernels

/// The page group that is still being filled, which no file of the tier holds: it can be taken out, and put back
/// into another store. Its pages are f16, whatever complete ones are.
extension KeyValueStore {
  /// Positions of the page group being filled; 0 if the last page group is complete, or a chunk was broken off.
  public var partialPositionCount: Int {
    isCommitted ? chunk.upperBound % KeyValueOrigin.pageGroupPositionCount : 0
  }

  /// A layer's page of the page group being filled; zeros follow its positions.
  ///
  /// - Precondition: ``partialPositionCount`` is not 0.
  package func partialPage(layer: Int) -> UnsafeRawBufferPointer {
    precondition(partialPositionCount > 0, "no page group is being filled")
    clearOpenPage(layer: layer, from: partialPositionCount)
    return UnsafeRawBufferPointer(
      start: pool.openPage(place: place, layer: layer), count: shape.openPageStride)
  }

  /// Continues in the middle of the page group after the prefix.
  ///
  /// - Parameters:
  ///   - positionCount: positions of that page group that count, of which a context has room for more.
  ///   - fill: brings a layer's page; false if it could not.
  /// - Returns: whether all pages came; otherwise the store is as it was.
  /// - Precondition: nothing entered the store yet.
  package func resume(
    positionCount: Int, _ fill: (_ layer: Int, UnsafeMutableRawBufferPointer) -> Bool
  ) -> Bool {
    let start = prefixPositionCount
    precondition(
      chunk == start..<start
        && (1..<KeyValueOrigin.pageGroupPositionCount).contains(positionCount)
        && start + positionCount < limit, "nowhere to go on at \(positionCount)")
    // Without memory set aside there is nowhere to put them.
    do { try reserveOpenPages() } catch { return false }
    for layer in 0..<shape.layerCount {
      guard
        fill(
          layer,
          UnsafeMutableRawBufferPointer(
            start: pool.openPage(place: place, layer: layer), count: shape.openPageStride))
      else { return false }
      clearOpenPage(layer: layer, from: positionCount)
    }
    chunk = (start + positionCount)..<(start + positionCount)
    exactPositionCount = chunk.upperBound
    return true
  }

  /// Zeroes the positions of a layer's open page from `position` on, of its 128.
  func clearOpenPage(layer: Int, from position: Int) {
    for head in 0..<shape.keyValueHeadCount {
      KeyValueBlock.clear(
        from: position, headDim: shape.headDim,
        in: pool.openPage(place: place, layer: layer) + head * shape.openBlockByteCount)
    }
  }
}
