import BlockIO
import Kernels
import TensorBasics

/// Where reading stands: the next page that may have to be read, in the order in which a sweep needs them.
struct ReadOrder {
  /// Whether it is in the sweep after the current one.
  var isNext = true
  var layer = 0
  /// Number of the sequence in ``readers``.
  var reader = 0
  var pageGroup = 0

  /// Sequences of the sweep whose attention comes first, as each waits for its own pages, and the others.
  private(set) var chunkReaders: [Unmanaged<KeyValueStore>] = []
  private(set) var tokenReaders: [Unmanaged<KeyValueStore>] = []
  /// Sequences of the current sweep, in the order of their attention; of the one before until it is settled.
  private(set) var readers: [Unmanaged<KeyValueStore>] = []
  private(set) var isSettled = true
  /// Of each slot, the reads under way.
  var reads: [SlotRead]

  /// The reads that bring a page, or blocks of it, into a slot.
  struct SlotRead {
    /// Whom a failure concerns; nil = nobody any more.
    var reader: Unmanaged<KeyValueStore>?
    /// Whether all of the page is read.
    var isWhole = true
    var pendingCount = 0
    var failure: KeyValueError?
  }

  init(sequenceCapacity: Int, slotCount: Int) {
    chunkReaders.reserveCapacity(sequenceCapacity)
    tokenReaders.reserveCapacity(sequenceCapacity)
    readers.reserveCapacity(sequenceCapacity)
    reads = Array(repeating: SlotRead(), count: slotCount)
  }

  /// Begins a sweep whose sequences are not known yet.
  mutating func beginSweep() {
    chunkReaders.removeAll(keepingCapacity: true)
    tokenReaders.removeAll(keepingCapacity: true)
    isSettled = false
  }

  mutating func enter(_ store: KeyValueStore, isChunk: Bool) {
    let reader = Unmanaged.passUnretained(store)
    if isChunk { chunkReaders.append(reader) } else { tokenReaders.append(reader) }
  }

  /// Takes the sequences of the sweep over; returns whether they are those that were read ahead for.
  mutating func settle() -> Bool {
    isSettled = true
    let count = chunkReaders.count + tokenReaders.count
    func entered(_ index: Int) -> Unmanaged<KeyValueStore> {
      index < chunkReaders.count
        ? chunkReaders[index] : tokenReaders[index - chunkReaders.count]
    }
    let isExpected =
      isNext && readers.count == count
      && (0..<count).allSatisfy { readers[$0].toOpaque() == entered($0).toOpaque() }
    readers.removeAll(keepingCapacity: true)
    for index in 0..<count {
      let reader = entered(index)
      reader._withUnsafeGuaranteedRef { $0.readerNumber = index }
      readers.append(reader)
    }
    isNext = false
    if !isExpected { (layer, reader, pageGroup) = (0, 0, 0) }
    return isExpected
  }

  /// Begins again at the next sweep's first page.
  mutating func restart() { (isNext, layer, reader, pageGroup) = (true, 0, 0, 0) }

  /// Forgets a sequence that is no more.
  mutating func remove(_ store: KeyValueStore) {
    let gone = Unmanaged.passUnretained(store).toOpaque()
    chunkReaders.removeAll { $0.toOpaque() == gone }
    tokenReaders.removeAll { $0.toOpaque() == gone }
    // What was read ahead is for an order that there will not be again.
    if readers.contains(where: { $0.toOpaque() == gone }) {
      readers.removeAll(keepingCapacity: true)
    }
    for slot in reads.indices where reads[slot].reader?.toOpaque() == gone {
      reads[slot].reader = nil
    }
  }
}

/// Pages that are not in memory come through the staging slots, in the order that a sweep needs them:
/// layer by layer, sequence by sequence, ascending page groups. Reads run ahead across layers, and into the next sweep
/// up to the current layer: what happens to a page after that is not known yet. For the same reason they stop at a
/// layer with pages that are still being written.
extension KeyValuePool {
  /// Begins a sweep over the layers, which its sequences then begin one by one.
  public func beginSweep() {
    extraOpenCount = 0
    reading.beginSweep()
  }

  /// Fixes the order of reading, once all sequences have begun.
  func settle() throws(KeyValueError) {
    guard !reading.isSettled else { return }
    let isFresh =
      reading.isNext && (reading.layer, reading.reader, reading.pageGroup) == (0, 0, 0)
    guard !reading.settle(), !isFresh else { return }
    // What was read ahead is for other sequences, or for a sweep that was broken off.
    try discardReads()
    dropStagedPages()
  }

  /// Takes the reads that are done and starts as many as there is room for.
  func readAhead() throws(KeyValueError) {
    guard let files else { return }
    while try takeRead(files, waiting: false) {}
    try submitReads(files)
  }

  /// Sleeps until a read is done.
  ///
  /// - Parameters: the tile that `store` waits for.
  func waitForRead(
    _ store: KeyValueStore, layer: Int, tile: Int
  ) throws(KeyValueError) {
    guard let files else { preconditionFailure("pages are missing and there is no file") }
    try submitReads(files)
    if files.device.inFlight == 0 {
      // Another sequence that shares these pages has let go of them.
      dropStagedPages()
      (reading.isNext, reading.layer) = (false, layer)
      (reading.reader, reading.pageGroup) = (
        store.readerNumber, tile * AttentionTile.blockCount
      )
      try submitReads(files)
    }
    precondition(files.device.inFlight > 0, "nothing is read that could be waited for")
    let start = monotonicNanoseconds()
    defer { moved.stallNanoseconds += monotonicNanoseconds() - start }
    while try !takeRead(files, waiting: true) {
      if cancellation.isRaised { throw .interrupted }
    }
    // Other work only makes regions longer.
    while try takeRead(files, waiting: false) {}
  }

  /// Moves reading past a layer of a sequence, which needs no more of it.
  func pass(_ store: KeyValueStore, layer: Int) {
    guard !reading.isNext, reading.isSettled,
      (reading.layer, reading.reader) <= (layer, store.readerNumber)
    else { return }
    (reading.layer, reading.reader, reading.pageGroup) = (layer, store.readerNumber + 1, 0)
  }

  /// Forgets what was read ahead: pages, or what is wanted of them, have changed.
  ///
  /// - Throws: as ``discardReads()``.
  func restartReading() throws(KeyValueError) {
    try discardReads()
    dropStagedPages()
    reading.restart()
  }

  /// Brings a page of a sequence into memory, which has room among those that enter until it is evicted.
  ///
  /// - Throws: ``KeyValueError/noRoom(_:)`` where pages that enter found no place in a file.
  func load(_ page: Int, for store: KeyValueStore) throws(KeyValueError) {
    guard let files, pages[page].address == nil else { return }
    let slot = try workingSlot(for: page)
    reading.reads[slot] = ReadOrder.SlotRead(
      reader: Unmanaged.passUnretained(store), pendingCount: 1)
    do throws(BlockIOError) {
      try submit(page, 0..<shape.pageStride, slot, files)
      try files.device.flush()
    } catch {
      give(slot, of: page)
      throw .io(files.named(error), layer: Int(pages[page].layer))
    }
    pages[page].flags.insert(.isBeingRead)
    while pages[page].flags.contains(.isBeingRead) {
      if try !takeRead(files, waiting: true), cancellation.isRaised { throw .interrupted }
    }
    try store.throwFailure()
  }

  private func submit(
    _ page: Int, _ part: Range<Int>, _ slot: Int, _ files: KeyValueFiles
  ) throws(BlockIOError) {
    try files.submitRead(
      page: page, file: Int(pages[page].file), offset: pages[page].offset, part: part, slot: slot,
      address(ofSlot: slot))
  }

  private func submitReads(_ files: KeyValueFiles) throws(KeyValueError) {
    var hasNew = false
    while files.device.inFlight < files.device.capacity, let (store, layer, pageGroup) = nextPage()
    {
      let page = store.pageNumber(layer, pageGroup)
      guard
        let slot = takeReadSlot(
          for: page, mayStay: store.isWanted(layer: layer, pageGroup: pageGroup))
      else { break }
      let isStaged = pages[page].flags.contains(.isStaged)
      let runs =
        isStaged && pages[page].referenceCount == 1
        ? store.blockRuns(layer, pageGroup, most: files.device.capacity) : nil
      if let runs, files.device.inFlight + runs > files.device.capacity {
        give(slot, of: page)
        break
      }
      reading.reads[slot] = ReadOrder.SlotRead(
        reader: Unmanaged.passUnretained(store), isWhole: runs == nil, pendingCount: 0)
      do throws(BlockIOError) {
        if runs == nil {
          try submit(page, 0..<shape.pageStride, slot, files)
          reading.reads[slot].pendingCount = 1
        } else {
          var head = 0
          while let run = store.nextBlockRun(layer, pageGroup, from: head) {
            try submit(page, run.bytes, slot, files)
            reading.reads[slot].pendingCount += 1
            head = run.end
          }
        }
      } catch {
        // A device that takes no reads took none of this page.
        give(slot, of: page)
        throw .io(files.named(error), layer: layer)
      }
      pages[page].flags.insert(.isBeingRead)
      reading.pageGroup = pageGroup + 1
      hasNew = true
    }
    guard hasNew else { return }
    do { try files.device.flush() } catch { throw .io(error, layer: nil) }
  }

  /// The next page to read, at the cursor; nil if there is none yet.
  private func nextPage() -> (KeyValueStore, layer: Int, pageGroup: Int)? {
    guard reading.isSettled || reading.isNext else { return nil }
    while true {
      if reading.layer == shape.layerCount {
        // After the current sweep comes the next; after that nothing is known.
        guard !reading.isNext else { return nil }
        reading.restart()
      }
      guard leavingCounts[reading.layer] == 0 else { return nil }
      while reading.reader < reading.readers.count {
        let store = reading.readers[reading.reader].takeUnretainedValue()
        switch store.reads(layer: reading.layer, isNext: reading.isNext) {
        case .unknown: return nil
        case .none: break
        case .pageGroups(let pageGroups):
          var pageGroup = max(reading.pageGroup, pageGroups.lowerBound)
          while pageGroup < pageGroups.upperBound {
            if store.lacks(layer: reading.layer, pageGroup: pageGroup) {
              reading.pageGroup = pageGroup
              return (store, reading.layer, pageGroup)
            }
            pageGroup += 1
          }
        }
        reading.reader += 1
        reading.pageGroup = 0
      }
      reading.layer += 1
      reading.reader = 0
    }
  }

  /// Takes a read that is done; false if there is none. A failure is its reader's.
  ///
  /// - Throws: ``KeyValueError/io(_:layer:)`` if the device fails.
  private func takeRead(_ files: KeyValueFiles, waiting: Bool) throws(KeyValueError) -> Bool {
    let completion: ReadCompletion?
    do throws(BlockIOError) {
      completion =
        waiting
        ? try stallWatch.step(files.device) { report(files, .isBeingRead, $0) }
        : try files.device.reap(waiting: false, timeoutMilliseconds: nil)
    } catch {
      guard let tag = error.tag else { throw .io(files.named(error), layer: nil) }
      let layer = Int(pages[files.page(ofTag: tag)].layer)
      end(
        page: files.page(ofTag: tag), slot: files.slot(ofTag: tag), byteCount: 0,
        .io(files.named(error), layer: layer), files)
      return true
    }
    guard let completion else { return false }
    end(
      page: files.page(ofTag: completion.tag), slot: files.slot(ofTag: completion.tag),
      byteCount: completion.byteCount, nil, files)
    return true
  }

  /// Ends one read of a page; the last of them brings it into memory, or gives its slot back.
  private func end(
    page: Int, slot: Int, byteCount: Int, _ failure: KeyValueError?, _ files: KeyValueFiles
  ) {
    reading.reads[slot].pendingCount -= 1
    reading.reads[slot].failure = reading.reads[slot].failure ?? failure
    moved.bytesRead += byteCount
    guard reading.reads[slot].pendingCount == 0 else { return }
    let read = reading.reads[slot]
    reading.reads[slot] = ReadOrder.SlotRead()
    let isWanted =
      pages[page].referenceCount > 0 && !pages[page].flags.contains(.isUnwanted)
    pages[page].flags.subtract([.isBeingRead, .isUnwanted])
    guard isWanted else {
      give(slot, of: page)
      return collect(page)
    }
    let address = address(ofSlot: slot)
    let reader = read.reader?.takeUnretainedValue()
    if let failure = read.failure ?? fault(page, address, read, reader, byteCount, files) {
      give(slot, of: page)
      reader?.note(failure)
      return
    }
    pages[page].address = address
    reader?.summarise(
      layer: Int(pages[page].layer), pageGroup: Int(pages[page].pageGroup))
  }

  /// What is wrong with a page that was read; nil = nothing.
  private func fault(
    _ page: Int, _ address: UnsafeMutableRawPointer, _ read: ReadOrder.SlotRead,
    _ reader: KeyValueStore?, _ byteCount: Int, _ files: KeyValueFiles
  ) -> KeyValueError? {
    let (layer, path) = (Int(pages[page].layer), files.path(ofFile: Int(pages[page].file)))
    let isIntact: Bool
    if read.isWhole {
      guard byteCount >= shape.pageByteCount else {
        return .io(
          BlockIOError(
            .read, path: path, offset: pages[page].offset, byteCount: shape.pageByteCount,
            reason: .truncated), layer: layer)
      }
      isIntact =
        Checksum.of(UnsafeRawBufferPointer(start: address, count: shape.pageByteCount))
        == pages[page].checksum
    } else {
      // Whoever asked for these blocks alone is no more.
      isIntact = reader?.areBlocksIntact(layer, Int(pages[page].pageGroup), address) ?? false
    }
    return isIntact ? nil : .damaged(path: path, offset: pages[page].offset, layer: layer)
  }

  /// Sleeps until a read or a write is done, whatever it is of; false if there is none.
  func waitForDrive() throws(KeyValueError) -> Bool {
    guard let files, files.device.inFlight > 0 else { return try waitForWrite() }
    while try !takeRead(files, waiting: true) {
      if cancellation.isRaised { throw .interrupted }
    }
    return true
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
        if case .io = error { files.device.abandonReads() }
        throw error
      }
    }
  }

  /// Takes all pages out of memory that only pass through it.
  func dropStagedPages() {
    for index in 0..<plan.stagingCount {
      let page = stagedPages[index]
      if page >= 0, pages[page].address != nil { evict(page) }
    }
  }
}
