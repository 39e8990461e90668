public import BlockIO
import Glibc
import Kernels
import TensorBasics

/// Keys and values of every position so far: pages in memory as far as the plan has room, the others in
/// files.
///
/// A chunk of tokens passes as ``begin(_:_:)``, then in each layer ``prepare(layer:)``,
/// ``store(layer:position:keys:values:)`` for every position, ``quantiseCompleted(layer:on:)``, attention over tiles
/// as they become ready (`KeyValueStore+Reading.swift`), and ``finish(layer:)``. Where every page stays in
/// memory and no file is asked for, there is none.
///
/// One thread uses a store; between ``prepare(layer:)`` and attention others may call `store` for
/// positions of their own, and during attention ask for addresses.
public final class KeyValueStore {
  public let plan: KeyValuePlan
  public let shape: KeyValueShape
  /// Called with one line when the file can no longer be written.
  public var onWarning: ((String) -> Void)?
  /// Called, on the thread that waits, while the drive has not answered for a while.
  public var onStall: ((Stall) -> Void)?
  var stallWatch = StallWatch()
  let cancellation: CancellationFlag
  /// Whether a reset could not wait for I/O in flight, so that the next chunk must.
  private(set) var isResetPending = false

  /// Slots of the pool, then those that reads go through.
  let memory: AlignedBuffer
  /// Pages being filled, where they lie apart (`KeyValueStore+Open.swift`).
  let openMemory: AlignedBuffer
  var poolSlots: SlotStack
  var stagingSlots: SlotStack
  /// Of each page: where it lies in memory, once it can be read there; nil elsewhere.
  let addresses: UnsafeMutableBufferPointer<UnsafeMutableRawPointer?>
  let flags: UnsafeMutableBufferPointer<PageFlags>
  /// XXH3-64 of each page, where it is in a file.
  let checksums: UnsafeMutableBufferPointer<UInt64>
  /// Where a quantised block is expanded for the policy.
  let summaryExpansion: AlignedBuffer
  /// What reading single blocks of a page takes; nil if pages are always read whole.
  let blocks: BlockReads?

  private(set) var files: KeyValueFiles?
  /// Whether every page is written, wherever it stays.
  let writesAll: Bool
  /// Page groups that came from other files.
  private(set) var prefixPageGroupCount: Int
  /// Why the file is no longer written.
  public private(set) var writeFailure: BlockIOError?
  /// Pages of each layer that leave memory once they are written.
  var leavingCounts: [Int]

  /// Positions of the current chunk.
  var chunk: Range<Int>
  /// Positions from the start whose tokens attended over everything before them.
  public internal(set) var exactPositionCount: Int
  /// Layers that the current chunk has passed.
  var finishedLayerCount: Int
  /// Of each layer, page groups from the start that no query sees any more.
  private var expiredPageGroupCounts: [Int]
  var cursor = ReadCursor()
  var moved = Statistics()
  /// What decides which blocks the tokens after a prompt attend over; nil = all.
  let policy: (any KeyValuePolicy)?
  /// What it planned (`KeyValueStore+Policy.swift`).
  let selection: BlockSelection

  /// Memory from which a few MiB more or less committed do not matter.
  private static let hugePagesByteCount = 64 << 20

  /// Room for pages in memory, as they lie; to measure what reading them takes at least.
  package var residentMemory: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: memory.address, count: plan.slotCount * shape.pageStride)
  }

  /// Positions that the prefix holds: the first token's position.
  public var prefixPositionCount: Int { prefixPageGroupCount * KeyValueBlock.positionCount }

  /// - Throws: ``KeyValueError``.
  ///
  /// - Parameter queryHeadCount: a multiple of the KV heads, for policies that see queries.
  public init(
    _ plan: KeyValuePlan, _ options: KeyValueOptions = KeyValueOptions(), queryHeadCount: Int
  ) throws(KeyValueError) {
    let shape = plan.shape
    try options.prefix.check(shape)
    if plan.hasTier || options.ownFile != nil || !options.prefix.parts.isEmpty {
      files = try KeyValueFiles(plan, options)
    } else {
      files = nil
    }
    do {
      memory = try AlignedBuffer(
        byteCount: plan.slotByteCount,
        prefersHugePages: plan.slotByteCount >= Self.hugePagesByteCount)
      openMemory = try AlignedBuffer(byteCount: plan.openByteCount)
      summaryExpansion = try AlignedBuffer(
        byteCount: shape.quantises && options.policy != .full ? shape.openBlockByteCount : 0)
    } catch { throw .allocation(error) }
    policy = try options.policy.makePolicy(shape, queryHeadCount: queryHeadCount)
    selection = BlockSelection(shape, usesQueries: policy?.usesQueries ?? false)
    self.plan = plan
    self.shape = shape
    cancellation = options.cancellation
    blocks = policy != nil && files != nil ? BlockReads(shape) : nil
    writesAll = options.ownFile != nil
    prefixPageGroupCount = options.prefix.pageGroupCount
    poolSlots = SlotStack(0..<plan.slotCount)
    stagingSlots = SlotStack(plan.slotCount..<(plan.slotCount + plan.stagingCount))
    addresses = .allocate(capacity: shape.pageCount)
    addresses.initialize(repeating: nil)
    flags = .allocate(capacity: shape.pageCount)
    flags.initialize(repeating: [])
    checksums = .allocate(capacity: shape.pageCount)
    checksums.initialize(repeating: 0)
    leavingCounts = Array(repeating: 0, count: shape.layerCount)
    expiredPageGroupCounts = Array(repeating: 0, count: shape.layerCount)
    let start = prefixPageGroupCount * KeyValueBlock.positionCount
    chunk = start..<start
    exactPositionCount = start
    finishedLayerCount = shape.layerCount
    for (page, checksum) in options.prefix.parts.lazy.flatMap(\.checksums).enumerated() {
      checksums[page] = checksum
      flags[page] = .isOnFile
    }
    cursor.isNext = true
  }

  deinit {
    // Reads and writes in flight end before the memory is freed, or it is never freed.
    files?.device.drain(unless: cancellation)
    while let files, files.pendingWriteCount > 0 {
      if files.takeWrite(waiting: true) == nil, cancellation.isRaised { files.abandonWrites() }
    }
    files = nil
    addresses.deallocate()
    flags.deallocate()
    checksums.deallocate()
  }

  // MARK: A chunk's way

  /// Begins the chunk of tokens at `positions`, which follow those there are.
  ///
  /// - Throws: ``KeyValueError/contextAborted`` if the chunk before did not pass all layers,
  ///   ``KeyValueError/interrupted``, ``KeyValueError/io(_:layer:)``.
  public func begin(_ positions: Range<Int>, _ phase: Phase = .prefill(end: nil))
    throws(KeyValueError)
  {
    if isResetPending { try clear() }
    guard finishedLayerCount == shape.layerCount else { throw .contextAborted }
    precondition(
      positions.lowerBound == chunk.upperBound && positions.upperBound <= shape.contextLength,
      "\(positions) do not follow \(chunk) in the context")
    chunk = positions
    finishedLayerCount = 0
    cursor =
      cursor.isNext ? ReadCursor(layer: cursor.layer, pageGroup: cursor.pageGroup) : ReadCursor()
    try select(phase)
    if !selection.isSelective, exactPositionCount == chunk.lowerBound {
      exactPositionCount = chunk.upperBound
    }
  }

  /// Makes room for the chunk's keys and values of a layer.
  ///
  /// - Throws: ``KeyValueError/noRoom(_:)`` where pages that do not fit could not be written.
  public func prepare(layer: Int) throws(KeyValueError) {
    completeWrites()
    while leavingCounts[layer] > 0 { try waitForWrite() }
    for pageGroup in enteringPageGroups {
      let page = page(layer, pageGroup)
      guard addresses[page] == nil else { continue }
      addresses[page] = address(ofSlot: try takePoolSlot())
    }
    try readAhead()
  }

  /// Writes one position of every head of a layer, rounded to f16.
  ///
  /// - Parameters:
  ///   - position: one of the chunk.
  ///   - keys: [keyValueHeadCount, headDim], after RoPE.
  ///   - values: [keyValueHeadCount, headDim].
  package func store(
    layer: Int, position: Int, keys: UnsafePointer<Float>, values: UnsafePointer<Float>
  ) {
    let (pageGroup, index) = position.quotientAndRemainder(dividingBy: KeyValueBlock.positionCount)
    guard chunk.contains(position), let page = openPage(layer: layer, pageGroup: pageGroup) else {
      preconditionFailure("position \(position) is outside the chunk")
    }
    for head in 0..<shape.keyValueHeadCount {
      KeyValueBlock.store(
        key: keys + head * shape.headDim, value: values + head * shape.headDim,
        headDim: shape.headDim, position: index, into: page + head * shape.openBlockByteCount)
    }
  }

  /// Ends the chunk's work on a layer: pages that it completed are written or stay, pages that no later
  /// query sees make room.
  public func finish(layer: Int) throws(KeyValueError) {
    finishedLayerCount = layer + 1
    do { try close(layer) } catch {
      // Pages that found no place are missing from here on.
      finishedLayerCount = min(finishedLayerCount, shape.layerCount - 1)
      throw error
    }
  }

  private func close(_ layer: Int) throws(KeyValueError) {
    if !cursor.isNext, cursor.layer <= layer { cursor = ReadCursor(layer: layer + 1) }
    let complete = chunk.upperBound / KeyValueBlock.positionCount
    for pageGroup in chunk.lowerBound / KeyValueBlock.positionCount..<complete {
      summarise(layer: layer, pageGroup: pageGroup)
      try completePage(layer: layer, pageGroup: pageGroup)
    }
    countBlocks(layer: layer)
    keepOpenPage(layer: layer)
    let visible = min(
      complete, shape.firstVisiblePageGroup(layer: layer, position: chunk.upperBound))
    for pageGroup in expiredPageGroupCounts[layer]..<max(visible, expiredPageGroupCounts[layer]) {
      let page = page(layer, pageGroup)
      if !flags[page].contains(.isBeingWritten) { drop(page) }
    }
    expiredPageGroupCounts[layer] = max(visible, expiredPageGroupCounts[layer])
    completeWrites()
    try readAhead()
  }

  /// Forgets everything, prefix included; memory and files are used again.
  ///
  /// Where the drive has not ended what is under way and the caller asked to stop, the next ``begin(_:_:)``
  /// waits for it.
  public func reset() {
    isResetPending = true
    chunk = 0..<0
    prefixPageGroupCount = 0
    do { try clear() } catch {}
  }

  private func clear() throws(KeyValueError) {
    while let files, files.pendingWriteCount > 0 { try waitForWrite() }
    try discardReads()
    isResetPending = false
    addresses.update(repeating: nil)
    flags.update(repeating: [])
    poolSlots = SlotStack(0..<plan.slotCount)
    stagingSlots = SlotStack(plan.slotCount..<(plan.slotCount + plan.stagingCount))
    for layer in 0..<shape.layerCount { expiredPageGroupCounts[layer] = 0 }
    files?.removePrefix()
    exactPositionCount = 0
    finishedLayerCount = shape.layerCount
    cursor = ReadCursor()
    cursor.isNext = true
    policy?.reset()
    selection.isSelective = false
    blocks?.reset()
  }

  // MARK: The file

  /// Waits until every complete page group is written, where the store has a file of its own, or the caller asks
  /// to stop.
  ///
  /// - Returns: page groups from the start of the context that files hold completely.
  public func finish() -> Int {
    do throws(KeyValueError) {
      while let files, files.pendingWriteCount > 0 { try waitForWrite() }
    } catch {}
    return completedPageGroupCount
  }

  /// Page groups from the start of the context that files hold completely, the prefix included.
  public var completedPageGroupCount: Int {
    let first = (0..<shape.pageCount).first { !flags[$0].contains(.isOnFile) }
    return (first ?? shape.pageCount) / shape.layerCount
  }

  /// XXH3-64 of every page of page groups that files hold: [pageGroups.count, layerCount].
  public func pageChecksums(ofPageGroups pageGroups: Range<Int>) -> [UInt64] {
    Array(
      checksums[pageGroups.lowerBound * shape.layerCount..<pageGroups.upperBound * shape.layerCount]
    )
  }

  /// What was moved so far, and what is where.
  public var statistics: Statistics {
    var result = moved
    let complete = chunk.upperBound / KeyValueBlock.positionCount
    for layer in 0..<shape.layerCount {
      let first = shape.firstVisiblePageGroup(layer: layer, position: chunk.upperBound)
      for pageGroup in min(first, complete)..<complete {
        result.pageCount += 1
        if isInPool(page(layer, pageGroup)) { result.residentPageCount += 1 }
      }
    }
    return result
  }

  /// What the drive did for reads.
  public var readStatistics: IOStatistics { files?.device.statistics ?? IOStatistics() }

  /// One-line warnings of the device, e.g. that a slower way of reading is in use.
  public var notes: [String] { files?.notes ?? [] }

  /// Bytes read from files.
  public var readByteCount: Int { moved.bytesRead }

  /// Time spent waiting for reads and writes.
  public var stallNanoseconds: Int { moved.stallNanoseconds }

  /// Queues a complete page for writing where it leaves memory or all pages are written.
  private func completePage(layer: Int, pageGroup: Int) throws(KeyValueError) {
    let page = page(layer, pageGroup)
    let stays = stays(layer: layer, pageGroup: pageGroup)
    guard let files, files.writes, writeFailure == nil, writesAll || !stays else { return }
    guard writesAll || isVisible(layer: layer, pageGroup: pageGroup) else { return }
    guard let address = addresses[page] else { return }
    try write(page, at: address, files, layer: layer, isLeaving: !stays)
  }

  /// Queues a page for writing.
  ///
  /// - Parameter isLeaving: whether it leaves memory then.
  func write(
    _ page: Int, at address: UnsafeMutableRawPointer, _ files: KeyValueFiles, layer: Int,
    isLeaving: Bool
  ) throws(KeyValueError) {
    while !files.hasRoomForWrite { try waitForWrite() }
    // The failure of that write ends writing.
    guard writeFailure == nil else { return }
    let bytes = UnsafeRawBufferPointer(start: address, count: shape.pageStride)
    checksums[page] = Checksum.of(
      UnsafeRawBufferPointer(rebasing: bytes[..<shape.pageByteCount]))
    flags[page].insert(.isBeingWritten)
    if isLeaving {
      flags[page].insert(.isLeaving)
      leavingCounts[layer] += 1
    }
    files.write(page: page, bytes)
  }

  /// Takes the completions of writes that are there.
  private func completeWrites() {
    while let completion = files?.takeWrite(waiting: false) { complete(completion) }
  }

  /// Sleeps until a write is done.
  ///
  /// - Throws: ``KeyValueError/interrupted``.
  private func waitForWrite() throws(KeyValueError) {
    guard let files, files.pendingWriteCount > 0 else { return }
    let start = monotonicNanoseconds()
    defer { moved.stallNanoseconds += monotonicNanoseconds() - start }
    while true {
      let completion = files.takeWrite(waiting: true)
      stallWatch.note(isDone: completion != nil) { report(files, .isBeingWritten, $0) }
      if let completion { return complete(completion) }
      if cancellation.isRaised { throw .interrupted }
    }
  }

  private func complete(_ completion: WriteCompletion) {
    let page = completion.tag
    let (pageGroup, layer) = page.quotientAndRemainder(dividingBy: shape.layerCount)
    flags[page].remove(.isBeingWritten)
    let isLeaving = flags[page].contains(.isLeaving)
    if isLeaving {
      flags[page].remove(.isLeaving)
      leavingCounts[layer] -= 1
    }
    if let failure = completion.failure {
      if writeFailure == nil {
        writeFailure = failure
        onWarning?("\(failure); keys and values stay in memory as long as there is room")
      }
      if !isVisible(layer: layer, pageGroup: pageGroup) { drop(page) }
      return
    }
    moved.bytesWritten += completion.byteCount
    flags[page].insert(.isOnFile)
    if isLeaving || !isVisible(layer: layer, pageGroup: pageGroup) { drop(page) }
  }

  /// A slot of the pool, for which writes are waited for.
  private func takePoolSlot() throws(KeyValueError) -> Int {
    while true {
      if let slot = poolSlots.pop() { return slot }
      guard let files, files.pendingWriteCount > 0 else {
        throw .noRoom(
          writeFailure
            ?? BlockIOError(.allocate, byteCount: shape.pageStride, reason: .system(errno: ENOMEM)))
      }
      try waitForWrite()
    }
  }

  // MARK: Pages

  /// Evicts a page.
  func drop(_ page: Int) {
    guard let address = addresses[page] else { return }
    addresses[page] = nil
    let slot = (address - memory.address) / shape.pageStride
    if slot < plan.slotCount { poolSlots.push(slot) } else { stagingSlots.push(slot) }
  }

  func page(_ layer: Int, _ pageGroup: Int) -> Int { pageGroup * shape.layerCount + layer }

  func address(ofSlot slot: Int) -> UnsafeMutableRawPointer {
    memory.address + slot * shape.pageStride
  }

  func isInPool(_ page: Int) -> Bool {
    addresses[page].map { $0 - memory.address < plan.slotCount * shape.pageStride } ?? false
  }

  /// Page groups of which the current chunk needs pages of the pool.
  private var enteringPageGroups: Range<Int> {
    let end =
      shape.quantises
      ? chunk.upperBound / KeyValueBlock.positionCount
      : KeyValueShape.pageGroupCount(positionCount: chunk.upperBound)
    return chunk.lowerBound / KeyValueBlock.positionCount..<end
  }

  /// Whether the layer's next query sees a page group.
  func isVisible(layer: Int, pageGroup: Int) -> Bool {
    let next = layer < finishedLayerCount ? chunk.upperBound : chunk.lowerBound
    return pageGroup >= shape.firstVisiblePageGroup(layer: layer, position: next)
  }

  private func stays(layer: Int, pageGroup: Int) -> Bool {
    keeps(layer: layer, pageGroup: pageGroup) && isVisible(layer: layer, pageGroup: pageGroup)
  }
}

/// What is known of a page.
struct PageFlags: OptionSet {
  let rawValue: UInt8
  /// A file holds it.
  static let isOnFile = PageFlags(rawValue: 1)
  static let isBeingWritten = PageFlags(rawValue: 2)
  /// It leaves memory once it is written.
  static let isLeaving = PageFlags(rawValue: 4)
  static let isBeingRead = PageFlags(rawValue: 8)
  /// Its blocks have checksums, and the policy was told of them.
  static let isSummarised = PageFlags(rawValue: 16)
  /// A read of a part of it failed, and others are under way.
  static let isLost = PageFlags(rawValue: 32)
}

/// Free slots; never allocates after initialisation.
struct SlotStack {
  private var slots: [Int]

  /// The lowest slot comes first.
  init(_ slots: Range<Int>) { self.slots = slots.reversed() }

  var count: Int { slots.count }

  mutating func pop() -> Int? { slots.popLast() }

  mutating func push(_ slot: Int) { slots.append(slot) }
}
