import TensorBasics

/// The flash translation layer: where each logical page lies, which block is written next, and what is
/// erased when.
///
/// - **Maps.** Logical → physical for every page of keys and values, of both layouts (the paper's two
///   tables, token- and channel-indexed, one after the other), and back, for garbage collection.
/// - **Open blocks.** Each channel has one, in the drive's memory; pages of all heads and layers are added
///   to it as they come, and it is programmed when it is full. Its pages have their addresses from the
///   start and are read from memory until then.
/// - **Garbage.** A block whose pages are all reclaimed is erased at once. Where a channel has only its
///   last free block left, the pages in use of the block with the fewest are moved there.
/// - **Wear levelling.** The least worn free block is opened first. Where blocks that nothing is reclaimed
///   of fall ``wearGap`` erases behind, their pages move to a worn one.
package struct FlashTranslation: ~Copyable {
  /// Erases that a block in use may be behind the most worn one of its channel.
  package static let wearGap = 8

  package private(set) var flash: FlashArray
  private let geometry: FlashGeometry
  private let eraseLimit: Int
  private let tables: Tables
  package private(set) var usedPageCount = 0

  package init(_ flash: consuming FlashArray, _ tables: Tables, eraseLimit: Int) {
    geometry = flash.geometry
    self.tables = tables
    self.eraseLimit = eraseLimit
    self.flash = flash
  }

  /// What the translation layer keeps in the drive's memory.
  package struct Tables {
    /// Physical page of each logical page, plus 1; 0 = none.
    fileprivate let physical: UnsafeMutablePointer<Int32>
    /// Logical page of each physical page, plus 1; 0 = none in use.
    fileprivate let owners: UnsafeMutablePointer<Int32>
    fileprivate let eraseCounts: UnsafeMutablePointer<Int32>
    /// Pages in use of each block.
    fileprivate let usedCounts: UnsafeMutablePointer<Int32>
    fileprivate let states: UnsafeMutablePointer<BlockState>
    /// Of each channel: the open block, plus 1 (0 = none), and its next page.
    fileprivate let openBlocks: UnsafeMutablePointer<Int32>
    fileprivate let nextPages: UnsafeMutablePointer<Int32>
    /// Contents of the open blocks [channelCount][pagesPerBlock] pages with spare areas.
    fileprivate let openPages: UnsafeMutablePointer<UInt8>
    /// A page on its way from one block to another, with its spare area.
    fileprivate let moving: UnsafeMutablePointer<UInt8>

    package init(_ geometry: FlashGeometry, logicalPageCount: Int, _ arena: inout Arena) {
      let stride = FlashArray.pageStride(geometry)
      physical = arena.take(logicalPageCount, of: Int32.self)
      owners = arena.take(geometry.pageCount, of: Int32.self)
      eraseCounts = arena.take(geometry.blockCount, of: Int32.self)
      usedCounts = arena.take(geometry.blockCount, of: Int32.self)
      states = arena.take(geometry.blockCount, of: BlockState.self)
      openBlocks = arena.take(geometry.channelCount, of: Int32.self)
      nextPages = arena.take(geometry.channelCount, of: Int32.self)
      openPages = arena.take(
        geometry.channelCount * geometry.pagesPerBlock * stride, of: UInt8.self)
      moving = arena.take(stride, of: UInt8.self)
    }
  }

  fileprivate enum BlockState: UInt8, BitwiseCopyable { case free, open, programmed, retired }

  // MARK: Pages

  /// Whether a page was written and not reclaimed.
  package func holds(_ logicalPage: Int) -> Bool { tables.physical[logicalPage] != 0 }

  /// Writes a page for the first time, on `channel` or, where that has no room, another.
  ///
  /// - Parameter bytes: as many as `byteCount`, at most a page's; the rest of the page is zero.
  package mutating func write(
    _ logicalPage: Int, _ bytes: UnsafeRawPointer, byteCount: Int, channel: Int
  ) throws(DriveError) {
    precondition(!holds(logicalPage), "pages are written once")
    for turn in 0..<geometry.channelCount {
      let channel = (channel + turn) % geometry.channelCount
      guard try open(channel) else { continue }
      let place = addPage(logicalPage, channel: channel)
      place.copyMemory(from: bytes, byteCount: byteCount)
      (place + byteCount).initializeMemory(
        as: UInt8.self, repeating: 0, count: geometry.pageByteCount - byteCount)
      flash.seal(place, logicalPage: logicalPage)
      try programIfFull(channel)
      return
    }
    let retired = retiredBlockCount
    throw retired > 0
      ? .wornOut(retiredBlockCount: retired, eraseLimit: eraseLimit)
      : .full(capacity: ByteCount(geometry.pageCount * geometry.pageByteCount))
  }

  /// Reads a page that is held; `bytes` has room for its spare area.
  ///
  /// - Returns: whether it came from flash, not from an open block.
  package mutating func read(
    _ logicalPage: Int, into bytes: UnsafeMutableRawPointer
  ) throws(DriveError) -> Bool {
    let page = Int(tables.physical[logicalPage]) - 1
    precondition(page >= 0, "a page that is read is held")
    if let place = openPlace(ofPage: page) {
      bytes.copyMemory(from: place, byteCount: geometry.pageByteCount)
      return false
    }
    try flash.read(page: page, logicalPage: logicalPage, into: bytes)
    return true
  }

  /// Gives up a page, if it is held.
  package mutating func reclaim(_ logicalPage: Int) {
    let page = Int(tables.physical[logicalPage]) - 1
    guard page >= 0 else { return }
    tables.physical[logicalPage] = 0
    tables.owners[page] = 0
    usedPageCount -= 1
    let block = page / geometry.pagesPerBlock
    tables.usedCounts[block] -= 1
    if tables.usedCounts[block] == 0, tables.states[block] == .programmed { erase(block) }
  }

  // MARK: Blocks

  /// Gives `channel` an open block with room, collecting garbage where it must; false if it cannot.
  private mutating func open(_ channel: Int) throws(DriveError) -> Bool {
    if tables.openBlocks[channel] != 0 { return true }
    if try levelWear(channel), tables.openBlocks[channel] != 0 { return true }
    var freeCount = 0
    for block in blocks(channel) where tables.states[block] == .free { freeCount += 1 }
    guard let free = freeBlock(channel, mostWorn: false) else { return false }
    if freeCount > 1 {
      setOpen(free, channel)
      return true
    }
    var victim: Int?
    for block in blocks(channel) where tables.states[block] == .programmed {
      if tables.usedCounts[block]
        < (victim.map { tables.usedCounts[$0] } ?? Int32(geometry.pagesPerBlock))
      {
        victim = block
      }
    }
    guard let victim else { return false }
    setOpen(free, channel)
    try move(victim, to: channel)
    return true
  }

  /// Moves a block's pages that hardly ever change to a worn one, where the wear of the channel's blocks
  /// has come apart.
  ///
  /// - Returns: whether it did; the channel may have an open block now.
  private mutating func levelWear(_ channel: Int) throws(DriveError) -> Bool {
    var (coldest, most): (Int?, Int32) = (nil, 0)
    for block in blocks(channel) where tables.states[block] != .retired {
      most = max(most, tables.eraseCounts[block])
      guard tables.states[block] == .programmed else { continue }
      if tables.eraseCounts[block] < (coldest.map { tables.eraseCounts[$0] } ?? .max) {
        coldest = block
      }
    }
    guard let coldest, most - tables.eraseCounts[coldest] > Self.wearGap,
      let worn = freeBlock(channel, mostWorn: true),
      tables.eraseCounts[worn] > tables.eraseCounts[coldest]
    else { return false }
    setOpen(worn, channel)
    try move(coldest, to: channel)
    return true
  }

  /// Moves a programmed block's pages in use into the open block of the channel, and erases it.
  private mutating func move(_ victim: Int, to channel: Int) throws(DriveError) {
    let first = victim * geometry.pagesPerBlock
    for page in first..<first + geometry.pagesPerBlock where tables.owners[page] != 0 {
      let logicalPage = Int(tables.owners[page]) - 1
      let bytes = UnsafeMutableRawPointer(tables.moving)
      try flash.read(page: page, logicalPage: logicalPage, into: bytes)
      flash.noteMove()
      tables.owners[page] = 0
      tables.usedCounts[victim] -= 1
      usedPageCount -= 1
      addPage(logicalPage, channel: channel)
        .copyMemory(from: bytes, byteCount: FlashArray.pageStride(geometry))
    }
    erase(victim)
    try programIfFull(channel)
  }

  /// Takes the next page of the channel's open block for a logical page.
  private mutating func addPage(_ logicalPage: Int, channel: Int) -> UnsafeMutableRawPointer {
    let block = Int(tables.openBlocks[channel]) - 1
    let page = block * geometry.pagesPerBlock + Int(tables.nextPages[channel])
    tables.nextPages[channel] += 1
    tables.physical[logicalPage] = Int32(page + 1)
    tables.owners[page] = Int32(logicalPage + 1)
    tables.usedCounts[block] += 1
    usedPageCount += 1
    return openPlace(channel: channel, index: page % geometry.pagesPerBlock)
  }

  private mutating func programIfFull(_ channel: Int) throws(DriveError) {
    let block = Int(tables.openBlocks[channel]) - 1
    guard block >= 0, Int(tables.nextPages[channel]) == geometry.pagesPerBlock else { return }
    tables.openBlocks[channel] = 0
    tables.states[block] = .programmed
    // What was reclaimed meanwhile need not be written.
    guard tables.usedCounts[block] > 0 else {
      tables.states[block] = .free
      return
    }
    try flash.program(block: block, openPlace(channel: channel, index: 0))
  }

  private mutating func erase(_ block: Int) {
    tables.eraseCounts[block] += 1
    flash.noteErase()
    tables.states[block] = tables.eraseCounts[block] < eraseLimit ? .free : .retired
  }

  private mutating func setOpen(_ block: Int, _ channel: Int) {
    tables.states[block] = .open
    tables.openBlocks[channel] = Int32(block + 1)
    tables.nextPages[channel] = 0
  }

  private func freeBlock(_ channel: Int, mostWorn: Bool) -> Int? {
    var best: Int?
    for block in blocks(channel) where tables.states[block] == .free {
      guard let other = best else {
        best = block
        continue
      }
      let (count, least) = (tables.eraseCounts[block], tables.eraseCounts[other])
      if mostWorn ? count > least : count < least { best = block }
    }
    return best
  }

  private func blocks(_ channel: Int) -> Range<Int> {
    channel * geometry.blocksPerChannel..<(channel + 1) * geometry.blocksPerChannel
  }

  /// Where a page of an open block lies in memory; nil if it is in flash.
  private func openPlace(ofPage page: Int) -> UnsafeMutableRawPointer? {
    let (block, index) = page.quotientAndRemainder(dividingBy: geometry.pagesPerBlock)
    guard tables.states[block] == .open else { return nil }
    return openPlace(channel: block / geometry.blocksPerChannel, index: index)
  }

  private func openPlace(channel: Int, index: Int) -> UnsafeMutableRawPointer {
    UnsafeMutableRawPointer(tables.openPages)
      + (channel * geometry.pagesPerBlock + index) * FlashArray.pageStride(geometry)
  }

  // MARK: Statistics

  package var retiredBlockCount: Int {
    (0..<geometry.blockCount).reduce(0) { $0 + (tables.states[$1] == .retired ? 1 : 0) }
  }

  /// Erases of the least and the most worn block.
  package var eraseRange: ClosedRange<Int> {
    var (least, most) = (Int32.max, Int32(0))
    for block in 0..<geometry.blockCount {
      least = min(least, tables.eraseCounts[block])
      most = max(most, tables.eraseCounts[block])
    }
    return Int(min(least, most))...Int(most)
  }
}
