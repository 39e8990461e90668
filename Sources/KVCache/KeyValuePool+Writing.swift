import BlockIO
import TensorBasics

/// Pages that leave memory, and those that a file for others gets.
extension KeyValuePool {
  /// A slot of memory for a page that enters, for which writes are waited for.
  ///
  /// - Throws: ``KeyValueError/noRoom(_:)`` where pages that do not fit could not be written,
  ///   ``KeyValueError/interrupted``.
  func enter(_ page: Int) throws(KeyValueError) {
    while true {
      if let slot = takeWorkingSlot(for: page) {
        pages[page].address = address(ofSlot: slot)
        return
      }
      guard try waitForWrite() else { throw noRoom }
    }
  }

  /// Queues a page for writing.
  ///
  /// - Parameter isLeaving: whether it leaves memory then.
  func write(_ page: Int, isLeaving: Bool) throws(KeyValueError) {
    guard let files, let address = pages[page].address else { return }
    while !files.hasRoomForWrite { _ = try waitForWrite() }
    // The failure of that write ends writing.
    guard writeFailure == nil else { return }
    let bytes = UnsafeRawBufferPointer(start: address, count: shape.pageStride)
    pages[page].checksum = Checksum.of(
      UnsafeRawBufferPointer(rebasing: bytes[..<shape.pageByteCount]))
    pages[page].flags.insert(.isBeingWritten)
    if isLeaving {
      pages[page].flags.insert(.isLeaving)
      leavingCounts[Int(pages[page].layer)] += 1
    }
    let place = files.ownPlace(
      page: page, layer: Int(pages[page].layer), pageGroup: Int(pages[page].pageGroup))
    pages[page].file = Int32(place.file)
    pages[page].offset = place.offset
    files.write(page: page, offset: place.offset, bytes)
  }

  /// Takes the completions of writes that are there.
  func completeWrites() {
    while let completion = files?.takeWrite(waiting: false) { complete(completion) }
  }

  /// Sleeps until a write is done; false if none is under way.
  ///
  /// - Throws: ``KeyValueError/interrupted``.
  func waitForWrite() throws(KeyValueError) -> Bool {
    guard let files, files.pendingWriteCount > 0 else { return false }
    let start = monotonicNanoseconds()
    defer { moved.stallNanoseconds += monotonicNanoseconds() - start }
    while true {
      let completion = files.takeWrite(waiting: true)
      stallWatch.note(isDone: completion != nil) { report(files, .isBeingWritten, $0) }
      if let completion {
        complete(completion)
        return true
      }
      if cancellation.isRaised { throw .interrupted }
    }
  }

  private func complete(_ completion: WriteCompletion) {
    let page = completion.tag
    let isLeaving = pages[page].flags.contains(.isLeaving)
    pages[page].flags.subtract([.isBeingWritten, .isLeaving])
    if isLeaving { leavingCounts[Int(pages[page].layer)] -= 1 }
    defer { collect(page) }
    if let failure = completion.failure {
      if writeFailure == nil {
        writeFailure = failure
        onWarning?("\(failure); keys and values stay in memory as long as there is room")
      }
      if pages[page].flags.contains(.isWorking) { _ = keep(page, isForced: true) }
      return
    }
    moved.bytesWritten += completion.byteCount
    pages[page].flags.insert(.isOnFile)
    if isLeaving { evict(page) }
  }
}
