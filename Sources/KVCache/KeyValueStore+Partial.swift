/// The page group that is still being filled, which no file of the tier holds: it can be taken out, and put back
/// into another store, unless its pages are of another type than complete ones.
extension KeyValueStore {
  /// Positions of the page group being filled; 0 if the last page group is complete, a chunk was broken off, or page groups
  /// are quantised.
  public var partialPositionCount: Int {
    finishedLayerCount == shape.layerCount && !shape.quantises
      ? chunk.upperBound % KeyValueOrigin.pageGroupPositionCount : 0
  }

  /// A layer's page of the page group being filled; the bytes after its positions are undefined.
  ///
  /// - Precondition: ``partialPositionCount`` is not 0.
  package func partialPage(layer: Int) -> UnsafeRawBufferPointer {
    let pageGroup = chunk.upperBound / KeyValueOrigin.pageGroupPositionCount
    guard partialPositionCount > 0, let address = addresses[page(layer, pageGroup)] else {
      preconditionFailure("no page group is being filled")
    }
    return UnsafeRawBufferPointer(start: address, count: shape.pageStride)
  }

  /// Continues in the middle of the page group after the prefix.
  ///
  /// - Parameters:
  ///   - positionCount: positions of that page group that count, of which a context has room for more.
  ///   - fill: brings a layer's page; false if it could not.
  /// - Returns: whether all pages came; otherwise the store is as it was.
  /// - Precondition: nothing entered the store yet, and page groups are not quantised.
  package func resume(
    positionCount: Int, _ fill: (_ layer: Int, UnsafeMutableRawBufferPointer) -> Bool
  ) -> Bool {
    let start = prefixPositionCount
    precondition(
      !shape.quantises && chunk == start..<start
        && (1..<KeyValueOrigin.pageGroupPositionCount).contains(positionCount)
        && start + positionCount < shape.contextLength, "nowhere to go on at \(positionCount)")
    // A store that still waits for its drive has nowhere to put them.
    guard !isResetPending else { return false }
    let pages = (0..<shape.layerCount).map { page($0, prefixPageGroupCount) }
    for (layer, page) in pages.enumerated() {
      guard let slot = poolSlots.pop() else {
        preconditionFailure("a plan has room for a page of each layer that is being filled")
      }
      let address = address(ofSlot: slot)
      addresses[page] = address
      guard fill(layer, UnsafeMutableRawBufferPointer(start: address, count: shape.pageStride))
      else {
        pages[...layer].forEach(drop)
        return false
      }
    }
    chunk = (start + positionCount)..<(start + positionCount)
    exactPositionCount = chunk.upperBound
    return true
  }
}
