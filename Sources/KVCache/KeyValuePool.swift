public import BlockIO
import Glibc
import Kernels
import TensorBasics

/// The keys and values of all sequences of one model.
///
/// Complete pages lie in memory as far as the plan has room, the others in files; beside them are the open pages,
/// which are being filled.
///
/// Sequences hold numbers of pages. A complete page never changes, so forked sequences share it; it goes when the last
/// of them lets go of it. There is one file for what memory does not hold, one writer and one queue of reads.
///
/// A sweep over the layers begins with ``beginSweep()``, then each of its sequences with
/// ``KeyValueStore/begin(_:_:promptEnd:tentativeCount:)``. One thread uses a pool; during attention others may ask for addresses.
public final class KeyValuePool {
  public let plan: KeyValuePlan
  public let shape: KeyValueShape
  let options: KeyValueOptions
  let queryHeadCount: Int
  /// Called with one line when the file can no longer be written.
  public var onWarning: ((String) -> Void)?
  /// Called, on the thread that waits, while the drive has not answered for a while.
  public var onStall: ((Stall) -> Void)?
  var stallWatch = StallWatch()
  var cancellation: CancellationFlag { options.cancellation }

  /// Slots of resident and working pages, then those that reads go through.
  let memory: AlignedBuffer
  /// Open pages [sequenceCount, layerCount], then the extra ones.
  let openMemory: AlignedBuffer
  /// States of all sequences, by their places, and where each layer's begins.
  private let stateMemory: AlignedBuffer
  private let stateOffsets: [Int]
  /// States as they were before sequences' ends.
  var savedStates: SavedStates
  /// Free slots that have been written to, and those that take no memory.
  private var warmSlots: SlotStack
  private var coldSlots: SlotStack
  private var stagingSlots: SlotStack
  /// The page that each staging slot holds, or is to hold; −1 = none [stagingCount].
  private(set) var stagedPages: [Int]
  /// Memory that neither open nor resident pages take, and that is not lent.
  private(set) var freeByteCount: Int
  /// Memory that somebody else uses while sequences do not need it.
  public private(set) var lentByteCount = 0
  private(set) var workingCount = 0
  /// Resident pages of layers with a window.
  private var residentWindowPageCount = 0

  /// [sequenceCount * pageCount]
  let pages: UnsafeMutablePointer<KeyValuePage>
  private let pageMemory: AlignedBuffer
  private var freePages: SlotStack
  /// Places among the open pages that no sequence has.
  private var freePlaces: SlotStack
  /// Extra open pages that chunks of the sweep have.
  var extraOpenCount = 0

  private(set) var files: KeyValueFiles?
  /// Why the file for what memory does not hold is no longer written.
  public internal(set) var writeFailure: BlockIOError?
  /// Pages of each layer that leave memory once they are written.
  var leavingCounts: [Int]
  var reading: ReadOrder
  var moved = KeyValueStore.Statistics()

  /// Memory from which a few MiB more or less committed do not matter.
  private static let hugePagesByteCount = 64 << 20

  /// Room for pages that stay in memory, as they lie; to measure what reading them takes at least.
  package var residentMemory: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: memory.address, count: plan.slotCount * shape.pageStride)
  }

  /// - Parameters:
  ///   - queryHeadCount: a multiple of the KV heads, for policies that see queries.
  ///   - savedStateCount: restore points of sequences whose layers have states, of all together.
  /// - Throws: ``KeyValueError``.
  public init(
    _ plan: KeyValuePlan, _ options: KeyValueOptions = KeyValueOptions(), queryHeadCount: Int,
    savedStateCount: Int = 0
  ) throws(KeyValueError) {
    let shape = plan.shape
    files = plan.hasTier ? try KeyValueFiles(plan, options) : nil
    let slotByteCount = (plan.slotCount + plan.stagingCount) * shape.pageStride
    let pageCapacity = plan.sequenceCount * shape.pageCount
    do {
      memory = try AlignedBuffer(
        byteCount: slotByteCount,
        // What one sequence has, it keeps; what several have comes and goes.
        prefersHugePages: plan.sequenceCount == 1 && slotByteCount >= Self.hugePagesByteCount)
      openMemory = try AlignedBuffer(
        byteCount: (plan.sequenceCount * shape.layerCount + plan.extraOpenCount)
          * shape.openPageStride)
      stateMemory = try AlignedBuffer(byteCount: plan.sequenceCount * shape.stateByteCount)
      savedStates = try SavedStates(
        capacity: savedStateCount, byteCount: shape.stateByteCount)
      pageMemory = try AlignedBuffer(
        byteCount: pageCapacity * MemoryLayout<KeyValuePage>.stride)
    } catch { throw .allocation(error) }
    var offset = 0
    stateOffsets = shape.stateByteCounts.map { byteCount in
      defer { offset += byteCount }
      return offset
    }
    pages = pageMemory.address.bindMemory(to: KeyValuePage.self, capacity: pageCapacity)
    pages.initialize(repeating: KeyValuePage(), count: pageCapacity)
    freePages = SlotStack(0..<pageCapacity)
    freePlaces = SlotStack(0..<plan.sequenceCount)
    coldSlots = SlotStack(0..<plan.slotCount)
    warmSlots = SlotStack(capacity: plan.slotCount)
    stagingSlots = SlotStack(plan.slotCount..<(plan.slotCount + plan.stagingCount))
    stagedPages = Array(repeating: -1, count: plan.stagingCount)
    freeByteCount = plan.retainedByteCount
    leavingCounts = Array(repeating: 0, count: shape.layerCount)
    reading = ReadOrder(
      sequenceCapacity: plan.sequenceCount, slotCount: plan.slotCount + plan.stagingCount)
    self.plan = plan
    self.shape = shape
    self.options = options
    self.queryHeadCount = queryHeadCount
  }

  deinit {
    // Reads and writes in flight end before the memory is freed, or it is never freed.
    files?.device.drain(unless: cancellation)
    while let files, files.pendingWriteCount > 0 {
      if files.takeWrite(waiting: true) == nil, cancellation.isRaised { files.abandonWrites() }
    }
    files = nil
  }

  // MARK: - Sequences

  /// Sequences that may still be opened.
  public var freeSequenceCount: Int { freePlaces.count }

  /// Opens a sequence without any positions, or with those of a prefix.
  ///
  /// - Parameters:
  ///   - limit: positions that it may come to have; nil = the whole context.
  ///   - files: what pages come from and go to; nil = those of the options.
  /// - Throws: ``KeyValueError/badPrefix(_:)``; ``KeyValueError/io(_:layer:)`` if one of the files cannot be opened or
  ///   made; ``KeyValueError/noRoom(_:)`` where other sequences' pages found no place in a file;
  ///   ``KeyValueError/interrupted``.
  /// - Precondition: ``freeSequenceCount`` is not 0.
  public func openSequence(
    limit: Int? = nil, files: KeyValueStore.Files? = nil
  ) throws(KeyValueError) -> KeyValueStore {
    try KeyValueStore(
      self, limit: min(limit ?? shape.contextLength, shape.contextLength),
      files ?? options.files)
  }

  /// The files, which there are from the first sequence on that has some.
  func makeFiles() throws(KeyValueError) -> KeyValueFiles {
    if let files { return files }
    let made = try KeyValueFiles(plan, options)
    files = made
    return made
  }

  /// Waits for everything that is under way.
  ///
  /// - Throws: ``KeyValueError/interrupted``; ``KeyValueError/io(_:layer:)`` if the device fails.
  package func drain() throws(KeyValueError) {
    try restartReading()
    while try waitForWrite() {}
  }

  /// Whether all memory and all pages are free.
  package var isEmpty: Bool {
    freePlaces.count == plan.sequenceCount
      && freeByteCount + lentByteCount == plan.retainedByteCount
      && workingCount == 0 && stagingSlots.count == plan.stagingCount
      && freePages.count == plan.sequenceCount * shape.pageCount
  }

  func takePlace() -> Int {
    guard let place = freePlaces.pop() else {
      preconditionFailure("all sequences that were planned for are open")
    }
    return place
  }

  func givePlace(_ place: Int) {
    forgetOpenPages(
      openMemory.address + place * shape.layerCount * shape.openPageStride,
      byteCount: shape.layerCount * shape.openPageStride)
    freePlaces.push(place)
  }

  /// Where the open page of a layer lies, of the sequence at `place`.
  func openPage(place: Int, layer: Int) -> UnsafeMutableRawPointer {
    openMemory.address + (place * shape.layerCount + layer) * shape.openPageStride
  }

  /// Where the states of the sequence at `place` lie.
  func states(place: Int) -> UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(
      start: stateMemory.address + place * shape.stateByteCount, count: shape.stateByteCount)
  }

  /// Where a layer's state lies among those of a sequence.
  func stateOffset(_ number: Int) -> Int { stateOffsets[number] }

  func extraOpenPage(_ index: Int) -> UnsafeMutableRawPointer {
    openMemory.address
      + (plan.sequenceCount * shape.layerCount + index) * shape.openPageStride
  }

  /// Gives the memory of open pages back to the system; they read as zeros.
  func forgetOpenPages(_ address: UnsafeMutableRawPointer, byteCount: Int) {
    madvise(address, byteCount, MADV_DONTNEED)
  }

  // MARK: - Pages

  /// Waits until so many pages can be made: those that were let go of are there as long as a drive is at them.
  ///
  /// - Throws: ``KeyValueError/interrupted``; ``KeyValueError/io(_:layer:)`` if a device fails.
  func reservePages(_ count: Int) throws(KeyValueError) {
    while freePages.count < count, try waitForDrive() {}
  }

  /// A new page, held by one sequence.
  func makePage(layer: Int, pageGroup: Int) -> Int {
    guard let page = freePages.pop() else {
      preconditionFailure("sequences have more pages than were planned for")
    }
    pages[page] = KeyValuePage(
      layer: Int32(layer), pageGroup: Int32(pageGroup), referenceCount: 1)
    return page
  }

  func retain(_ page: Int) { pages[page].referenceCount += 1 }

  /// Lets go of a page, which goes with the last sequence that held it, as soon as no drive is at it.
  func release(_ page: Int) {
    pages[page].referenceCount -= 1
    if pages[page].referenceCount == 0 { collect(page) }
  }

  /// Makes a page free that nobody holds and no drive is at.
  func collect(_ page: Int) {
    guard pages[page].referenceCount == 0,
      pages[page].flags.isDisjoint(with: [.isBeingWritten, .isBeingRead])
    else { return }
    evict(page)
    pages[page].flags = []
    setPlace(page, file: -1, offset: 0)
    freePages.push(page)
  }

  /// Notes which file holds a page, or is to.
  func setPlace(_ page: Int, file: Int, offset: Int) {
    if file >= 0 { files?.retain(file) }
    if pages[page].file >= 0 { files?.release(Int(pages[page].file)) }
    pages[page].file = Int32(file)
    pages[page].offset = offset
  }

  /// Takes a page out of memory.
  func evict(_ page: Int) {
    guard let address = pages[page].address else { return }
    pages[page].address = nil
    give(slot(at: address), of: page)
  }

  /// Takes the slot back that `page` has.
  func give(_ slot: Int, of page: Int) {
    let flags = pages[page].flags
    pages[page].flags.subtract([.isResident, .isWorking, .isStaged])
    if flags.contains(.isStaged) {
      stagedPages[slot - plan.slotCount] = -1
      return stagingSlots.push(slot)
    }
    if flags.contains(.isWorking) {
      workingCount -= 1
      return warmSlots.push(slot)
    }
    precondition(flags.contains(.isResident), "a page in memory takes somebody's room")
    uncountResident(page)
    // Its memory may be an open page's next.
    madvise(address(ofSlot: slot), shape.pageStride, MADV_DONTNEED)
    coldSlots.push(slot)
  }

  /// A slot for a page that enters; nil while as many are working as may be.
  func takeWorkingSlot(for page: Int) -> Int? {
    guard workingCount < plan.workingCount, let slot = warmSlots.pop() ?? coldSlots.pop() else {
      return nil
    }
    workingCount += 1
    pages[page].flags.insert(.isWorking)
    return slot
  }

  /// A slot for a page that is to be read: one of those that stay where that is wanted and there is room.
  func takeReadSlot(for page: Int, mayStay: Bool) -> Int? {
    if mayStay, hasRoom(for: page), let slot = warmSlots.pop() ?? coldSlots.pop() {
      countResident(page)
      return slot
    }
    guard let slot = stagingSlots.pop() else { return nil }
    pages[page].flags.insert(.isStaged)
    stagedPages[slot - plan.slotCount] = page
    return slot
  }

  /// Whether a page may stay in memory.
  func hasRoom(for page: Int) -> Bool {
    let setAside =
      isWindowed(page) ? 0 : max(0, plan.windowReserveCount - residentWindowPageCount)
    return freeByteCount >= (1 + setAside) * shape.pageStride
  }

  /// Makes a working page stay, which may take the room that is set aside where it cannot go anywhere else.
  ///
  /// - Returns: whether there was room.
  func keep(_ page: Int, isForced: Bool = false) -> Bool {
    guard isForced ? freeByteCount >= shape.pageStride : hasRoom(for: page) else { return false }
    pages[page].flags.remove(.isWorking)
    workingCount -= 1
    countResident(page)
    return true
  }

  private func countResident(_ page: Int) {
    pages[page].flags.insert(.isResident)
    freeByteCount -= shape.pageStride
    if isWindowed(page) { residentWindowPageCount += 1 }
  }

  private func uncountResident(_ page: Int) {
    freeByteCount += shape.pageStride
    if isWindowed(page) { residentWindowPageCount -= 1 }
  }

  private func isWindowed(_ page: Int) -> Bool { shape.windows[Int(pages[page].layer)] != nil }

  func address(ofSlot slot: Int) -> UnsafeMutableRawPointer {
    memory.address + slot * shape.pageStride
  }

  func slot(at address: UnsafeMutableRawPointer) -> Int {
    (address - memory.address) / shape.pageStride
  }

  // MARK: - The room of open pages

  /// Sets memory aside for open pages, for which complete ones leave memory if need be.
  ///
  /// - Throws: ``KeyValueError/noRoom(_:)``, ``KeyValueError/interrupted``.
  func reserve(_ byteCount: Int) throws(KeyValueError) {
    if freeByteCount < byteCount { try makeRoom(byteCount) }
    freeByteCount -= byteCount
  }

  func unreserve(_ byteCount: Int) { freeByteCount += byteCount }

  // MARK: - Lending

  /// Memory that no sequence has, and that is not set aside for layers with a window; what is lent is not part of it.
  public var unusedByteCount: Int {
    max(
      0,
      freeByteCount - max(0, plan.windowReserveCount - residentWindowPageCount) * shape.pageStride)
  }

  /// Most memory that a new sequence takes when it begins.
  public var openingByteCount: Int { shape.layerCount * shape.openPageStride }

  /// Lends so much memory from here on, instead of ``lentByteCount``.
  ///
  /// The pool behaves as if it were not there: pages that would have stayed leave memory.
  ///
  /// - Precondition: what is lent in addition is unused.
  public func lend(_ byteCount: Int) {
    precondition(byteCount - lentByteCount <= freeByteCount, "pages have what is to be lent")
    freeByteCount -= byteCount - lentByteCount
    lentByteCount = byteCount
  }

  private func makeRoom(_ byteCount: Int) throws(KeyValueError) {
    try restartReading()
    var page = plan.sequenceCount * shape.pageCount - 1
    while freeByteCount < byteCount {
      completeWrites()
      guard page >= 0 else {
        // What is being written leaves room when it is done.
        guard try waitForWrite() || freeByteCount >= byteCount else { throw noRoom }
        continue
      }
      defer { page -= 1 }
      guard pages[page].flags.contains(.isResident), pages[page].address != nil,
        !pages[page].flags.contains(.isBeingWritten)
      else { continue }
      if pages[page].flags.contains(.isOnFile) {
        evict(page)
      } else if canSpill {
        try write(page, isLeaving: true)
      }
    }
  }

  /// Whether pages can go to the file for what memory does not hold.
  var canSpill: Bool { files?.canSpill == true && writeFailure == nil }

  var noRoom: KeyValueError {
    .noRoom(
      writeFailure
        ?? BlockIOError(.allocate, byteCount: shape.pageStride, reason: .system(errno: ENOMEM)))
  }

  // MARK: - Statistics

  /// What the drive did for reads.
  public var readStatistics: IOStatistics { files?.device.statistics ?? IOStatistics() }

  /// One-line warnings of the device, e.g. that a slower way of reading is in use.
  public var notes: [String] { files?.notes ?? [] }

  /// Bytes read from files, and written to them.
  public var readByteCount: Int { moved.bytesRead }
  public var writtenByteCount: Int { moved.bytesWritten }

  /// Time spent waiting for reads and writes.
  public var stallNanoseconds: Int { moved.stallNanoseconds }

  /// Reports the first page that waits for the drive to ``onStall``.
  func report(_ files: KeyValueFiles, _ flag: KeyValuePage.Flags, _ seconds: Int) {
    let count = plan.sequenceCount * shape.pageCount
    guard let page = (0..<count).first(where: { pages[$0].flags.contains(flag) }) else { return }
    onStall?(
      Stall(
        path: files.path(ofFile: Int(pages[page].file)), offset: pages[page].offset,
        byteCount: shape.pageByteCount,
        tensorName: "keys and values of layer \(pages[page].layer)",
        readsInFlight: files.device.inFlight, seconds: seconds))
  }
}
