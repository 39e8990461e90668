import Kernels

/// The exact engine: the host's kernel over the host's tiles, merged in the host's order, so that the partials
/// have the host's bits (docs/decisions/0001, 0047).
extension DriveController {
  /// Merges the tiles that hold `visible` into `buffers.partials`.
  func attendDensely(
    layer: Int, stream: Int, _ visible: VisibleRange
  ) throws(DriveError) {
    let size = PageLayout.tilePositionCount
    let positions = Int(visible.first)...Int(visible.last)
    for member in 0..<contents.groupSize { buffers.visible[member] = visible }
    for tile in positions.lowerBound / size...positions.upperBound / size {
      let seen = positions.clamped(to: tile * size...tile * size + size - 1)
      for group in seen.lowerBound / layout.groupPositions...seen.upperBound / layout.groupPositions
      {
        let (keys, values) = try readGroup(layer: layer, stream: stream, group: group)
        place(keys, values, atPosition: group * layout.groupPositions - tile * size)
        operations.bytesPassed += 2 * layout.groupByteCount
      }
      accumulate(tileFirstPosition: tile * size)
      countProducts(positionCount: seen.count)
    }
  }

  /// Copies a token group's halves of sixteen positions to their places in the tile.
  private func place(
    _ keys: UnsafePointer<UInt16>, _ values: UnsafePointer<UInt16>, atPosition first: Int
  ) {
    let size = KeyValueGroup.positionCount * layout.headDim
    let count = layout.groupPositions / KeyValueGroup.positionCount
    let target = buffers.group(first / KeyValueGroup.positionCount)
    for index in 0..<count {
      (target + index * 2 * size).update(from: keys + index * size, count: size)
      (target + index * 2 * size + size).update(from: values + index * size, count: size)
    }
  }

  /// Attends over the tile in the buffers.
  func accumulate(tileFirstPosition: Int) {
    withUnsafeTemporaryAllocation(
      of: UnsafeRawPointer?.self, capacity: AttentionTile.groupCount
    ) { addresses in
      for index in addresses.indices {
        addresses.initializeElement(at: index, to: UnsafeRawPointer(buffers.group(index)))
      }
      guard let groups = addresses.baseAddress else { return }
      AttentionKernel.accumulate(
        groups: groups, tileFirstPosition: tileFirstPosition, headDim: layout.headDim,
        queries: buffers.queries, queryStride: layout.headDim, visible: buffers.visible,
        queryCount: contents.groupSize, into: buffers.partials, scratch: buffers.scratch)
    }
  }

  /// Counts exact attention of the group's queries over so many positions.
  func countProducts(positionCount: Int) {
    operations.multiplyAdds += 2 * positionCount * layout.headDim * contents.groupSize
    operations.exponentials += positionCount * contents.groupSize
  }
}
