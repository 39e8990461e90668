public import BlockIO
import Kernels
import TensorBasics

/// Keys and values of every position of one sequence.
///
/// It holds numbers of complete pages of a ``KeyValuePool``, and open pages of its own.
///
/// Four things are said of a position. Its **visible form** is f16 for queries of its own page group, and as complete
/// pages are stored for all later ones; that follows from positions alone. It is **sealed** when its page group is
/// complete in memory, **committed** when its chunk has passed all layers, and **stored** when a file holds it. Until
/// a chunk is committed it can be undone; after that ``truncate(to:limit:)`` goes back to a restore point.
///
/// A chunk of tokens passes as ``begin(_:_:promptEnd:tentativeCount:)``, then in each layer ``prepare(layer:)``,
/// ``store(layer:position:keys:values:)`` for every position, ``seal(layer:on:)``, attention over tiles
/// as they become ready (`KeyValueStore+Reading.swift`), and ``finish(layer:)``.
///
/// One thread uses a store; between ``prepare(layer:)`` and attention others may call `store` for
/// positions of their own, and during attention ask for addresses. Its memory goes back to the pool with it.
public final class KeyValueStore {
  public let pool: KeyValuePool
  public let shape: KeyValueShape
  /// Positions that it may come to have.
  public internal(set) var limit: Int
  /// Whose open pages are its own.
  let place: Int

  /// Numbers of its pages [pageCount]; −1 = none, or none any more.
  let pageNumbers: UnsafeMutablePointer<Int32>
  /// Whether the policy was told of a page, and its blocks have checksums [pageCount].
  let isSummarised: UnsafeMutablePointer<Bool>
  /// The page group whose positions each layer's open page holds, and whether the pool has set memory aside for it.
  var openPageGroups: [Int]
  var isReserved = false
  /// First of the extra open pages that the chunk has.
  var firstExtra = 0

  /// Where a quantised block is expanded for the policy.
  let summaryExpansion: AlignedBuffer
  /// What reading single blocks of a page takes; nil if pages are always read whole.
  let blocks: BlockReads?
  /// What decides which blocks the tokens after a prompt attend over; nil = all.
  let policy: (any KeyValuePolicy)?
  /// What it planned (`KeyValueStore+Policy.swift`).
  let selection: BlockSelection
  /// The end of the last prompt that it observed, and of how many.
  var observedEnd = 0
  var observationCount = 0

  /// The file that gets every complete page, wherever that stays; nil = none, or none any more.
  private(set) var own: KeyValueFiles.Own?
  /// Files of the prefix.
  private var prefixFiles: [Int] = []
  /// Whether other sequences may share its pages.
  var isForked = false
  /// Page groups that came from other files.
  var prefixPageGroupCount: Int

  /// Positions of the current chunk.
  var chunk: Range<Int>
  /// Positions at its end that may be rejected.
  var tentativeCount = 0
  /// Positions from the start whose tokens attended over everything before them.
  public internal(set) var exactPositionCount: Int
  /// Positions that the layers' states, where there are some, have taken in; nil while a chunk changes them.
  var statesEnd: Int? = 0
  /// Copies of states in the order of positions, and the one that the current chunk makes.
  var savedStates: [SavedStates.Copy] = []
  var savingStates: SavedStates.Copy?
  /// Positions whose states somebody keeps, as long as the sequence is not cut before them.
  package internal(set) var keptStates: [Int] = []
  /// Layers with keys and values that the current chunk has passed.
  var finishedLayerCount: Int
  /// Of each layer, page groups from the start that no query sees any more.
  var expiredPageGroupCounts: [Int]
  /// Its number among the sequences of the sweep.
  var readerNumber = 0
  private var isClosed = false
  /// Whether nothing more of the current chunk is wanted.
  var isAbandoned = false
  /// What went wrong with a page that was read for it.
  private var failure: KeyValueError?
  var counted = Statistics()

  public var plan: KeyValuePlan { pool.plan }

  /// Positions that the prefix holds: the first token's position.
  public var prefixPositionCount: Int { prefixPageGroupCount * KeyValueBlock.positionCount }

  /// Positions that it holds: those of an unfinished chunk are none.
  public var positionCount: Int { isCommitted ? chunk.upperBound : chunk.lowerBound }

  /// Whether the last chunk passed all layers.
  var isCommitted: Bool { finishedLayerCount == shape.layerCount && hasWholeStates }

  init(_ pool: KeyValuePool, limit: Int, _ files: Files) throws(KeyValueError) {
    let (shape, options) = (pool.shape, pool.options)
    try files.prefix.check(shape, limit: limit)
    let opened = files.isEmpty ? pool.files : try pool.makeFiles()
    do {
      summaryExpansion = try AlignedBuffer(
        byteCount: shape.quantises && options.policy != .full ? shape.openBlockByteCount : 0)
    } catch { throw .allocation(error) }
    policy = try options.policy.makePolicy(shape, queryHeadCount: pool.queryHeadCount)
    selection = BlockSelection(shape, usesQueries: policy?.usesQueries ?? false)
    blocks = policy != nil && opened != nil ? BlockReads(shape) : nil
    self.pool = pool
    self.shape = shape
    self.limit = limit
    pageNumbers = .allocate(capacity: shape.pageCount)
    pageNumbers.initialize(repeating: -1, count: shape.pageCount)
    isSummarised = .allocate(capacity: shape.pageCount)
    isSummarised.initialize(repeating: false, count: shape.pageCount)
    prefixPageGroupCount = files.prefix.pageGroupCount
    let start = prefixPageGroupCount * KeyValueBlock.positionCount
    openPageGroups = Array(repeating: prefixPageGroupCount, count: shape.layerCount)
    expiredPageGroupCounts = Array(repeating: 0, count: shape.layerCount)
    chunk = start..<start
    exactPositionCount = start
    finishedLayerCount = shape.layerCount
    place = pool.takePlace()
    clearStates()
    // What throws from here on finds a sequence, which gives everything back when it is freed.
    if let opened { try open(files, in: opened) }
    try reserveOpenPages()
  }

  /// Opens the sequence's files and takes over the pages of its prefix.
  private func open(_ files: Files, in opened: KeyValueFiles) throws(KeyValueError) {
    try pool.reservePages(files.prefix.pageGroupCount * shape.layerCount)
    do throws(BlockIOError) {
      for part in files.prefix.parts { prefixFiles.append(try opened.open(path: part.path)) }
      if let own = files.own { self.own = try opened.makeOwn(own) }
    } catch { throw .io(error, layer: nil) }
    files.prefix.forEachPage(shape) { index, part, offset, checksum in
      let page = pool.makePage(
        layer: index % shape.layerCount, pageGroup: index / shape.layerCount)
      pool.setPlace(page, file: prefixFiles[part], offset: offset)
      pool.pages[page].checksum = checksum
      pool.pages[page].flags = .isOnFile
      pageNumbers[index] = Int32(page)
    }
  }

  /// Has complete pages written to another file from here on, or to none.
  ///
  /// - Parameter pageGroupCount: complete page groups that other files hold, for as long as it is not cut before.
  /// - Throws: ``KeyValueError/io(_:layer:)`` if it cannot be made; pages go to none then.
  public func setOwnFile(_ file: OwnFile?, after pageGroupCount: Int) throws(KeyValueError) {
    dropOwnFile()
    prefixPageGroupCount = pageGroupCount
    guard let file else { return }
    let files = try pool.makeFiles()
    do { own = try files.makeOwn(file) } catch { throw .io(error, layer: nil) }
  }

  func dropOwnFile() {
    guard let own else { return }
    self.own = nil
    pool.files?.release(own.index)
  }

  deinit {
    close()
    pageNumbers.deallocate()
    isSummarised.deallocate()
  }

  /// Gives everything back to the pool, as the last reference to the sequence does; it takes no chunks any more.
  public func close() {
    guard !isClosed else { return }
    isClosed = true
    finishedLayerCount = 0
    pool.reading.remove(self)
    releasePages(from: 0)
    unreserveOpenPages()
    pool.givePlace(place)
    dropOwnFile()
    for file in prefixFiles { pool.files?.release(file) }
    prefixFiles = []
  }

  // MARK: A chunk's way

  /// Begins the chunk of tokens at `positions`, which follow those there are.
  ///
  /// - Parameters:
  ///   - kind: what all of the tokens are.
  ///   - promptEnd: of tokens that are read, the position after their prompt's last one; nil if it is not known, so
  ///     that no policy observes the prompt's end.
  ///   - tentativeCount: positions at the end that ``reject(from:)`` may take back, up to ``tentativeRoom(after:)``.
  /// - Throws: ``KeyValueError/contextAborted`` if the chunk before did not pass all layers,
  ///   ``KeyValueError/interrupted``, ``KeyValueError/io(_:layer:)``, ``KeyValueError/noRoom(_:)``.
  public func begin(
    _ positions: Range<Int>, _ kind: RowKind, promptEnd: Int? = nil, tentativeCount: Int = 0
  ) throws(KeyValueError) {
    precondition(
      tentativeCount == 0
        || tentativeCount <= tentativeRoom(after: positions.upperBound - tentativeCount),
      "what may be rejected fills no page group")
    try begin(positions, kind: kind, promptEnd: promptEnd, tentativeCount: tentativeCount)
  }

  /// As ``begin(_:_:promptEnd:tentativeCount:)`` for a chunk that is only stored: there is no attention, and nothing is read.
  public func beginStoring(_ positions: Range<Int>) throws(KeyValueError) {
    try begin(positions, kind: nil, promptEnd: nil, tentativeCount: 0)
  }

  private func begin(
    _ positions: Range<Int>, kind: RowKind?, promptEnd: Int?, tentativeCount: Int
  ) throws(KeyValueError) {
    guard isCommitted else { throw .contextAborted }
    precondition(
      positions.lowerBound == chunk.upperBound && positions.upperBound <= limit,
      "\(positions) do not follow \(chunk) in the context")
    try reserveOpenPages()
    (chunk, self.tentativeCount) = (positions, tentativeCount)
    finishedLayerCount = 0
    if tentativeCount == 0 { statesEnd = nil }
    beginSavingStates(promptEnd: kind == .read ? promptEnd : nil)
    firstExtra = pool.extraOpenCount
    // Of a model that does not attend there are no pages.
    if shape.layerCount > 0 { pool.extraOpenCount += lastOpenPageGroup - firstOpenPageGroup }
    precondition(
      pool.extraOpenCount <= plan.extraOpenCount, "chunks are longer than was planned for")
    try select(kind, promptEnd: promptEnd)
    pool.reading.enter(self, isChunk: positions.count > 1 || observedPositions != nil)
    if !selection.isSelective, exactPositionCount == chunk.lowerBound {
      exactPositionCount = chunk.upperBound
    }
  }

  /// Makes room for the chunk's keys and values of a layer.
  ///
  /// - Throws: ``KeyValueError/noRoom(_:)`` where pages that do not fit could not be written.
  public func prepare(layer: Int) throws(KeyValueError) {
    try pool.settle()
    pool.completeWrites()
    while pool.leavingCounts[layer] > 0 { _ = try pool.waitForWrite() }
    try pool.reservePages(completedPageGroups.count)
    for pageGroup in completedPageGroups {
      let index = page(layer, pageGroup)
      precondition(pageNumbers[index] < 0, "a page that is complete already")
      let number = pool.makePage(layer: layer, pageGroup: pageGroup)
      pageNumbers[index] = Int32(number)
      try pool.enter(number)
    }
    clearOpenedGroups(layer: layer)
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
    pool.pass(self, layer: layer)
    for pageGroup in completedPageGroups { summarise(layer: layer, pageGroup: pageGroup) }
    keepOpenPage(layer: layer)
    expirePages(layer: layer)
    for pageGroup in completedPageGroups {
      try completePage(layer: layer, pageGroup: pageGroup)
    }
    countBlocks(layer: layer)
    pool.completeWrites()
    try readAhead()
  }

  /// Gives up the chunk, which is not to be finished; until the sequence is truncated or reset it takes no other.
  public func abandonChunk() {
    failure = nil
    guard !isCommitted else { return }
    isAbandoned = true
    for index in 0..<plan.stagingCount {
      let number = pool.stagedPages[index]
      guard number >= 0, holds(number) else { continue }
      if pool.pages[number].address == nil {
        pool.pages[number].flags.insert(.isUnwanted)
      } else {
        pool.evict(number)
      }
    }
  }

  /// Forgets everything, prefix included; memory and files are used again.
  public func reset() {
    (failure, isAbandoned) = (nil, false)
    releasePages(from: 0)
    unreserveOpenPages()
    prefixPageGroupCount = 0
    (chunk, tentativeCount) = (0..<0, 0)
    exactPositionCount = 0
    finishedLayerCount = shape.layerCount
    returnStates(to: 0)
    for layer in 0..<shape.layerCount {
      (expiredPageGroupCounts[layer], openPageGroups[layer]) = (0, 0)
    }
    policy?.reset()
    (observedEnd, observationCount) = (0, 0)
    selection.isSelective = false
  }

  // MARK: Pages

  /// The index of a page in ``pageNumbers``.
  func page(_ layer: Int, _ pageGroup: Int) -> Int { pageGroup * shape.layerCount + layer }

  /// The pool's number of a page; it must have one.
  func pageNumber(_ layer: Int, _ pageGroup: Int) -> Int {
    Int(pageNumbers[page(layer, pageGroup)])
  }

  /// Whether a page of the pool is one of its own.
  private func holds(_ number: Int) -> Bool {
    let known = pool.pages[number]
    return pageNumbers[page(Int(known.layer), Int(known.pageGroup))] == number
  }

  /// Where a complete page lies in memory; nil if it does not.
  func address(_ layer: Int, _ pageGroup: Int) -> UnsafeMutableRawPointer? {
    let number = pageNumbers[page(layer, pageGroup)]
    return number < 0 ? nil : pool.pages[Int(number)].address
  }

  /// Page groups that the chunk completes.
  var completedPageGroups: Range<Int> {
    chunk.lowerBound / KeyValueBlock.positionCount..<chunk.upperBound / KeyValueBlock.positionCount
  }

  /// Lets go of all pages from a page group on.
  func releasePages(from pageGroup: Int) {
    for index in pageGroup * shape.layerCount..<shape.pageCount {
      isSummarised[index] = false
      guard pageNumbers[index] >= 0 else { continue }
      pool.release(Int(pageNumbers[index]))
      pageNumbers[index] = -1
    }
  }

  /// Ends what queries do not see any more.
  private func expirePages(layer: Int) {
    let visible = min(
      certainEnd / KeyValueBlock.positionCount,
      shape.firstVisiblePageGroup(layer: layer, position: certainEnd))
    guard visible > expiredPageGroupCounts[layer] else { return }
    for pageGroup in expiredPageGroupCounts[layer]..<visible {
      let index = page(layer, pageGroup)
      guard pageNumbers[index] >= 0 else { continue }
      let number = Int(pageNumbers[index])
      if own != nil {
        leave(number)
      } else {
        pool.release(number)
        pageNumbers[index] = -1
      }
    }
    expiredPageGroupCounts[layer] = visible
  }

  /// Takes a page out of memory that a file holds or is to hold.
  private func leave(_ number: Int) {
    let flags = pool.pages[number].flags
    // What has just been completed is written first.
    guard flags.contains(.isOnFile) || flags.contains(.isBeingWritten) else { return }
    guard flags.contains(.isBeingWritten) else { return pool.evict(number) }
    guard !flags.contains(.isLeaving) else { return }
    pool.pages[number].flags.insert(.isLeaving)
    pool.leavingCounts[Int(pool.pages[number].layer)] += 1
  }

  /// Keeps a complete page in memory, or queues it for writing where it leaves or all pages are written.
  private func completePage(layer: Int, pageGroup: Int) throws(KeyValueError) {
    guard pageNumbers[page(layer, pageGroup)] >= 0 else { return }
    let number = pageNumber(layer, pageGroup)
    let stays =
      isVisible(layer: layer, pageGroup: pageGroup)
      && isWanted(layer: layer, pageGroup: pageGroup) && pool.keep(number)
    if let own, try pool.write(number, to: own, isLeaving: !stays) { return }
    guard !stays else { return }
    if try pool.write(number, isLeaving: true) { return }
    _ = pool.keep(number, isForced: true)
  }

  /// Whether the layer's next query sees a page group.
  func isVisible(layer: Int, pageGroup: Int) -> Bool {
    let next = layer < finishedLayerCount ? certainEnd : chunk.lowerBound
    return pageGroup >= shape.firstVisiblePageGroup(layer: layer, position: next)
  }

  /// Most memory that the sequence takes beyond what it has, for the chunk of tokens at `positions`.
  public func growth(_ positions: Range<Int>) -> Int {
    let length = KeyValueBlock.positionCount
    var count = (positions.upperBound / length - positions.lowerBound / length) * shape.layerCount
    // What is read from files stays where there is room.
    if pool.files != nil {
      for index in 0..<positions.lowerBound / length * shape.layerCount
      where pageNumbers[index] >= 0 && pool.pages[Int(pageNumbers[index])].address == nil {
        let (pageGroup, layer) = index.quotientAndRemainder(dividingBy: shape.layerCount)
        if isVisible(layer: layer, pageGroup: pageGroup) { count += 1 }
      }
    }
    return count * shape.pageStride + (isReserved ? 0 : pool.openingByteCount)
  }

  // MARK: Failures

  var hasFailed: Bool { failure != nil }

  /// Notes what went wrong with a page that was read for it.
  func note(_ failure: KeyValueError) { self.failure = self.failure ?? failure }

  /// Throws what went wrong since the last call.
  func throwFailure() throws(KeyValueError) {
    guard let failure else { return }
    self.failure = nil
    throw failure
  }

  // MARK: Files

  /// Waits until every complete page group is written that its own file gets, or the caller asks to stop.
  ///
  /// - Parameter first: page groups that other files hold.
  /// - Returns: page groups from the start of the context that these and its own file hold.
  public func finish(after first: Int) -> Int {
    do throws(KeyValueError) { while try pool.waitForWrite() {} } catch {}
    guard let own else { return first }
    let start = first * shape.layerCount
    let end = (start..<max(start, shape.pageCount)).first { index in
      guard pageNumbers[index] >= 0 else { return true }
      let page = pool.pages[Int(pageNumbers[index])]
      return !page.flags.contains(.isOnFile) || Int(page.file) != own.index
    }
    return (end ?? shape.pageCount) / shape.layerCount
  }

  /// XXH3-64 of every page of page groups that files hold: [pageGroups.count, layerCount].
  public func pageChecksums(ofPageGroups pageGroups: Range<Int>) -> [UInt64] {
    (pageGroups.lowerBound * shape.layerCount..<pageGroups.upperBound * shape.layerCount).map {
      pool.pages[Int(pageNumbers[$0])].checksum
    }
  }

  /// Why its own file is no longer written.
  public var writeFailure: BlockIOError? {
    own.flatMap { pool.files?.failure(ofFile: $0.index) }
  }

  // MARK: Statistics

  /// What was moved so far for all sequences of the pool, and what is where of this one.
  public var statistics: Statistics {
    var result = pool.moved
    result.attendedBlockCount = counted.attendedBlockCount
    result.skippedBlockCount = counted.skippedBlockCount
    let complete = chunk.upperBound / KeyValueBlock.positionCount
    for layer in 0..<shape.layerCount {
      let first = shape.firstVisiblePageGroup(layer: layer, position: chunk.upperBound)
      for pageGroup in min(first, complete)..<complete
      where pageNumbers[page(layer, pageGroup)] >= 0 {
        result.pageCount += 1
        let page = pool.pages[pageNumber(layer, pageGroup)]
        if page.address != nil, !page.flags.contains(.isStaged) { result.residentPageCount += 1 }
      }
    }
    return result
  }
}
