import BlockIO
import TensorBasics

/// Pages that leave memory, and those that a file for others gets.
extension KeyValuePool {
  /// Gives a page that enters its memory, for which writes are waited for.
  ///
  /// - Throws: as ``workingSlot(for:)``.
  func enter(_ page: Int) throws(KeyValueError) {
    pages[page].address = address(ofSlot: try workingSlot(for: page))
  }

  /// A slot of memory for a page that enters, for which writes are waited for.
  ///
  /// - Throws: ``KeyValueError/noRoom(_:)`` where pages that do not fit could not be written,
  ///   ``KeyValueError/interrupted``.
  func workingSlot(for page: Int) throws(KeyValueError) -> Int {
    while true {
      if let slot = takeWorkingSlot(for: page) { return slot }
      guard try waitForWrite() else { throw noRoom }
    }
  }

  /// Queues a page for writing.
  ///
  /// - Parameters:
  ///   - own: the file of its sequence that gets it; nil = it goes where all go that memory does not hold.
  ///   - isLeaving: whether it leaves memory then.
  /// - Returns: false where there is no such file, or it cannot be written any more.
  @discardableResult
  func write(
    _ page: Int, to own: KeyValueFiles.Own? = nil, isLeaving: Bool
  ) throws(KeyValueError) -> Bool {
    guard let files, let address = pages[page].address else { return false }
    func isWritten() -> Bool { own.map { files.failure(ofFile: $0.index) == nil } ?? canSpill }
    guard isWritten() else { return false }
    while !files.hasRoomForWrite { _ = try waitForWrite() }
    // The failure of that write may end writing.
    guard isWritten() else { return false }
    let bytes = UnsafeRawBufferPointer(start: address, count: shape.pageStride)
    pages[page].checksum = Checksum.of(
      UnsafeRawBufferPointer(rebasing: bytes[..<shape.pageByteCount]))
    pages[page].flags.insert(.isBeingWritten)
    if isLeaving {
      pages[page].flags.insert(.isLeaving)
      leavingCounts[Int(pages[page].layer)] += 1
    }
    let offset =
      own.map {
        shape.fileOffset(
          layer: Int(pages[page].layer), pageGroup: Int(pages[page].pageGroup),
          dataOffset: $0.dataOffset)
      } ?? files.spillOffset(page: page)
    setPlace(page, file: own?.index ?? 0, offset: offset)
    files.write(page: page, own: own, offset: offset, bytes)
    return true
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
      fail(page, failure)
      return
    }
    moved.bytesWritten += completion.byteCount
    pages[page].flags.insert(.isOnFile)
    if isLeaving { evict(page) }
  }

  /// Keeps a page that could not be written.
  private func fail(_ page: Int, _ failure: BlockIOError) {
    let file = Int(pages[page].file)
    if files?.isSpill(file) == true {
      if writeFailure == nil {
        writeFailure = failure
        onWarning?("\(failure); keys and values stay in memory as long as there is room")
      }
    } else if let files, files.failure(ofFile: file) == nil {
      files.note(failure, ofFile: file)
      onWarning?("\(failure); what follows of this sequence's keys and values is not kept")
    }
    guard pages[page].flags.contains(.isWorking), !keep(page, isForced: true), canSpill else {
      return
    }
    // There is room among the writes: one of them has just been taken.
    do { try write(page, isLeaving: true) } catch {}
  }
}
