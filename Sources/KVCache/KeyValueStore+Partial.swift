/// The slab that is still being filled, which no file of the tier holds: it can be taken out, and put back
/// into another store, unless its rows are of another type than complete ones.
extension KeyValueStore {
  /// Positions of the slab being filled; 0 if the last slab is complete, a chunk was broken off, or slabs
  /// are quantised.
  public var partialPositionCount: Int {
    finishedLayerCount == shape.layerCount && !shape.quantises
      ? chunk.upperBound % KeyValueOrigin.slabPositionCount : 0
  }

  /// A layer's row of the slab being filled; the bytes after its positions are undefined.
  ///
  /// - Precondition: ``partialPositionCount`` is not 0.
  public func partialRow(layer: Int) -> UnsafeRawBufferPointer {
    let slab = chunk.upperBound / KeyValueOrigin.slabPositionCount
    guard partialPositionCount > 0, let address = addresses[row(layer, slab)] else {
      preconditionFailure("no slab is being filled")
    }
    return UnsafeRawBufferPointer(start: address, count: shape.rowStride)
  }

  /// Continues in the middle of the slab after the prefix.
  ///
  /// - Parameters:
  ///   - positionCount: positions of that slab that count, of which a context has room for more.
  ///   - fill: brings a layer's row; false if it could not.
  /// - Returns: whether all rows came; otherwise the store is as it was.
  /// - Precondition: nothing entered the store yet, and slabs are not quantised.
  public func resume(
    positionCount: Int, _ fill: (_ layer: Int, UnsafeMutableRawBufferPointer) -> Bool
  ) -> Bool {
    let start = prefixPositionCount
    precondition(
      !shape.quantises && chunk == start..<start
        && (1..<KeyValueOrigin.slabPositionCount).contains(positionCount)
        && start + positionCount < shape.contextLength, "nowhere to go on at \(positionCount)")
    // A store that still waits for its drive has nowhere to put them.
    guard !isResetPending else { return false }
    let rows = (0..<shape.layerCount).map { row($0, prefixSlabCount) }
    for (layer, row) in rows.enumerated() {
      guard let slot = poolSlots.pop() else {
        preconditionFailure("a plan has room for a row of each layer that is being filled")
      }
      let address = address(ofSlot: slot)
      addresses[row] = address
      guard fill(layer, UnsafeMutableRawBufferPointer(start: address, count: shape.rowStride))
      else {
        rows[...layer].forEach(drop)
        return false
      }
    }
    chunk = (start + positionCount)..<(start + positionCount)
    exactPositionCount = chunk.upperBound
    return true
  }
}
