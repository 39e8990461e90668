import BlockIO
import Kernels
import TensorBasics

/// Where the read-ahead stands: the next page that may have to be read.
struct ReadCursor {
  /// Whether it is in the sweep after the current one.
  var isNext = false
  var layer = 0
  var pageGroup = 0
}

/// Pages that are not in memory come through the staging slots, in the order that a sweep needs them:
/// layer by layer, ascending page groups. Reads run ahead across layers, and into the next sweep up to the
/// current layer: what happens to a page after that is not known yet. For the same reason they stop at a
/// layer with pages that are still being written.
extension KeyValueStore {
  /// Whether every block of a tile that is attended over is in memory.
  ///
  /// - Parameter positions: what the queries see, all together.
  public func isReady(layer: Int, tile: Int, positions: ClosedRange<Int>) -> Bool {
    for pageGroup in pageGroups(ofTile: tile, positions)
    where addresses[page(layer, pageGroup)] == nil && !isOpen(pageGroup)
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

  /// The addresses of the blocks of tile `tile` of one layer and head, as they are stored; nil for blocks
  /// that are not in memory, or not attended over.
  ///
  /// - Parameter addresses: [`AttentionTile.blockCount`], written.
  package func blockAddresses(
    layer: Int, head: Int, tile: Int, into result: UnsafeMutablePointer<UnsafeRawPointer?>
  ) {
    let offset = head * shape.blockByteCount
    for index in 0..<AttentionTile.blockCount {
      let pageGroup = tile * AttentionTile.blockCount + index
      result[index] =
        pageGroup < shape.pageGroupCount && selection.includes(page(layer, pageGroup), head: head)
        ? addresses[page(layer, pageGroup)].map { UnsafeRawPointer($0 + offset) } : nil
    }
  }

  /// Gives back the staging slots of a tile that attention has passed.
  public func release(layer: Int, tile: Int) {
    guard plan.hasTier else { return }
    let first = tile * AttentionTile.blockCount
    for pageGroup in first..<min(first + AttentionTile.blockCount, shape.pageGroupCount) {
      let page = page(layer, pageGroup)
      if addresses[page] != nil, !isInPool(page) { drop(page) }
    }
  }

  /// Takes the reads that are done and starts as many as there is room for.
  public func readAhead() throws(KeyValueError) {
    guard let files else { return }
    while try takeRead(files, waiting: false) {}
    try submitReads(files)
  }

  /// Sleeps until a read is done.
  ///
  /// - Throws: ``KeyValueError/interrupted``, ``KeyValueError/io(_:layer:)``,
  ///   ``KeyValueError/damaged(path:offset:layer:)``.
  public func waitForRead() throws(KeyValueError) {
    guard let files else { preconditionFailure("pages are missing and there is no file") }
    try submitReads(files)
    precondition(files.device.inFlight > 0, "nothing is read that could be waited for")
    let start = monotonicNanoseconds()
    defer { moved.stallNanoseconds += monotonicNanoseconds() - start }
    while try !takeRead(files, waiting: true) {
      if cancellation.isRaised { throw .interrupted }
    }
    // Other work only makes regions longer.
    while try takeRead(files, waiting: false) {}
  }

  private func pageGroups(ofTile tile: Int, _ positions: ClosedRange<Int>) -> Range<Int> {
    let first = tile * AttentionTile.blockCount
    let lower = max(first, positions.lowerBound / KeyValueBlock.positionCount)
    let upper = min(
      first + AttentionTile.blockCount, positions.upperBound / KeyValueBlock.positionCount + 1)
    return lower..<max(lower, upper)
  }

  private func submitReads(_ files: KeyValueFiles) throws(KeyValueError) {
    var hasNew = false
    while files.device.inFlight < files.device.capacity, let page = nextPage() {
      let (pageGroup, layer) = page.quotientAndRemainder(dividingBy: shape.layerCount)
      let kept = keeps(layer: layer, pageGroup: pageGroup) ? poolSlots.pop() : nil
      guard let slot = kept ?? stagingSlots.pop() else { break }
      let runs =
        kept == nil && flags[page].contains(.isSummarised)
        ? blocks?.runs(of: page, selection, most: files.device.capacity) : nil
      if let runs, files.device.inFlight + runs > files.device.capacity {
        stagingSlots.push(slot)
        break
      }
      do throws(BlockIOError) {
        if runs == nil {
          try files.submitRead(
            page: page, part: 0..<shape.pageStride, slot: slot, address(ofSlot: slot))
        } else {
          var head = 0
          while let run = blocks?.nextRun(of: page, selection, from: head) {
            try files.submitRead(page: page, part: run.bytes, slot: slot, address(ofSlot: slot))
            head = run.end
          }
        }
      } catch {
        // A device that takes no reads took none of this page.
        if kept == nil { stagingSlots.push(slot) } else { poolSlots.push(slot) }
        throw .io(files.named(error), layer: layer)
      }
      blocks?.pendingRuns[page] = UInt8(runs ?? 0)
      flags[page].insert(.isBeingRead)
      cursor.pageGroup = pageGroup + 1
      hasNew = true
    }
    guard hasNew else { return }
    do { try files.device.flush() } catch { throw .io(error, layer: nil) }
  }

  /// The next page to read, at the cursor; nil if there is none yet.
  private func nextPage() -> Int? {
    while true {
      if cursor.layer == shape.layerCount {
        // After the current sweep comes the next; after that nothing is known.
        guard !cursor.isNext else { return nil }
        cursor = ReadCursor(isNext: true)
      }
      if cursor.isNext, cursor.layer >= finishedLayerCount { return nil }
      guard selection.isPlanned(layer: cursor.layer, isNext: cursor.isNext) else { return nil }
      guard leavingCounts[cursor.layer] == 0 else { return nil }
      let start = cursor.isNext ? chunk.upperBound : chunk.lowerBound
      let end = start / KeyValueBlock.positionCount
      var pageGroup = max(
        cursor.pageGroup, shape.firstVisiblePageGroup(layer: cursor.layer, position: start))
      while pageGroup < end {
        let page = page(cursor.layer, pageGroup)
        if addresses[page] == nil, flags[page].contains(.isOnFile),
          !flags[page].contains(.isBeingRead), selection.includes(page)
        {
          return page
        }
        pageGroup += 1
      }
      cursor.pageGroup = 0
      cursor.layer += 1
    }
  }

  /// Takes a read that is done; false if there is none.
  private func takeRead(_ files: KeyValueFiles, waiting: Bool) throws(KeyValueError) -> Bool {
    let completion: ReadCompletion?
    do throws(BlockIOError) {
      completion =
        waiting
        ? try stallWatch.step(files.device) { report(files, .isBeingRead, $0) }
        : try files.device.reap(waiting: false, timeoutMilliseconds: nil)
    } catch {
      if let tag = error.tag { endRead(files, tag) }
      throw .io(
        files.named(error), layer: error.tag.map { files.page(ofTag: $0) % shape.layerCount })
    }
    guard let completion else { return false }
    let page = files.page(ofTag: completion.tag)
    let address = address(ofSlot: files.slot(ofTag: completion.tag))
    let (pageGroup, layer) = page.quotientAndRemainder(dividingBy: shape.layerCount)
    let place = files.place(ofPage: page)
    if let blocks, blocks.pendingRuns[page] > 0 {
      moved.bytesRead += completion.byteCount
      guard blocks.pendingRuns[page] == 1, !flags[page].contains(.isLost) else {
        endPart(page, address)
        return true
      }
      blocks.pendingRuns[page] = 0
      guard blocks.areIntact(page, selection, address) else {
        abandon(page, address)
        throw .damaged(path: files.path(ofFile: place.file), offset: place.offset, layer: layer)
      }
      flags[page].remove(.isBeingRead)
      addresses[page] = address
      return true
    }
    guard completion.byteCount >= shape.pageByteCount else {
      abandon(page, address)
      throw .io(
        BlockIOError(
          .read, path: files.path(ofFile: place.file), offset: place.offset,
          byteCount: shape.pageByteCount, reason: .truncated), layer: layer)
    }
    let bytes = UnsafeRawBufferPointer(start: address, count: shape.pageByteCount)
    guard Checksum.of(bytes) == checksums[self.page(layer, pageGroup)] else {
      abandon(page, address)
      throw .damaged(path: files.path(ofFile: place.file), offset: place.offset, layer: layer)
    }
    moved.bytesRead += shape.pageStride
    flags[page].remove(.isBeingRead)
    addresses[page] = address
    summarise(layer: layer, pageGroup: pageGroup)
    return true
  }

  /// Notes that a read of a page failed; its slot is free when nothing is read into it any more.
  private func endRead(_ files: KeyValueFiles, _ tag: UInt64) {
    let page = files.page(ofTag: tag)
    let address = address(ofSlot: files.slot(ofTag: tag))
    guard let blocks, blocks.pendingRuns[page] > 0 else { return abandon(page, address) }
    flags[page].insert(.isLost)
    endPart(page, address)
  }

  /// Notes the end of one of the reads that bring parts of a page.
  private func endPart(_ page: Int, _ address: UnsafeMutableRawPointer) {
    guard let blocks else { return }
    blocks.pendingRuns[page] -= 1
    guard blocks.pendingRuns[page] == 0, flags[page].contains(.isLost) else { return }
    flags[page].remove(.isLost)
    abandon(page, address)
  }

  /// Frees the slot of a page that could not be read.
  private func abandon(_ page: Int, _ address: UnsafeMutableRawPointer) {
    flags[page].remove(.isBeingRead)
    addresses[page] = address
    drop(page)
  }

  /// Waits for the reads in flight and gives their room back.
  ///
  /// - Throws: ``KeyValueError/interrupted``; ``KeyValueError/io(_:layer:)`` if the device cannot even
  ///   wait, and reads no more.
  func discardReads() throws(KeyValueError) {
    guard let files else { return }
    while files.device.inFlight > 0 {
      do throws(KeyValueError) {
        if try !takeRead(files, waiting: true), cancellation.isRaised { throw .interrupted }
      } catch {
        switch error {
        case .damaged: continue
        case .io(let cause, _) where cause.operation == .read: continue
        case .io:
          files.device.abandonReads()
          throw error
        default: throw error
        }
      }
    }
  }

  /// Reports the first page that waits for the drive to ``onStall``.
  func report(_ files: KeyValueFiles, _ flag: PageFlags, _ seconds: Int) {
    guard let page = (0..<shape.pageCount).first(where: { flags[$0].contains(flag) }) else {
      return
    }
    let place = files.place(ofPage: page)
    onStall?(
      Stall(
        path: files.path(ofFile: place.file), offset: place.offset, byteCount: shape.pageByteCount,
        tensorName: "keys and values of layer \(page % shape.layerCount)",
        readsInFlight: files.device.inFlight, seconds: seconds))
  }
}
