/// What one computational storage drive is: its flash, memory, engine and faults.
public struct DriveConfiguration: Sendable {
  public var flash: FlashGeometry
  /// The drive's own DRAM: address maps, open blocks, group buffers and the engine's memory.
  public var memoryByteCount: Int
  public var engine: AttentionEngineKind
  public var faults: FlashFaults
  /// Erases after which a block is retired.
  public var eraseLimit: Int
  /// Where the flash file lies.
  public var file: FlashFile

  /// Where a drive's flash lies.
  public enum FlashFile: Sendable {
    /// A file without a name in this folder, gone with the drive.
    case temporary(folder: String)
    /// A file of this name, created or emptied, that stays.
    case named(String)
  }

  /// Program/erase cycles of TLC flash as the paper counts them (arXiv:2409.04992).
  public static let defaultEraseLimit = 3000

  public init(
    flash: FlashGeometry, memoryByteCount: Int = 2 << 30, engine: AttentionEngineKind = .dense,
    faults: FlashFaults = FlashFaults(), eraseLimit: Int = Self.defaultEraseLimit,
    file: FlashFile = .temporary(folder: "/var/tmp")
  ) {
    self.flash = flash
    self.memoryByteCount = memoryByteCount
    self.engine = engine
    self.faults = faults
    self.eraseLimit = eraseLimit
    self.file = file
  }

  /// - Throws: ``DriveError/impossible(_:)`` with the reason.
  func check(_ contents: DriveContents) throws(DriveError) {
    try flash.check()
    try engine.check()
    try faults.check()
    guard memoryByteCount > 0 else { throw .impossible("a drive needs memory of its own") }
    guard eraseLimit > 0 else {
      throw .impossible("a block must endure at least one erase, not \(eraseLimit)")
    }
    try contents.check()
    let tokenByteCount = 2 * contents.headDim
    guard flash.pageByteCount >= tokenByteCount else {
      throw .impossible(
        "a page of \(flash.pageByteCount) bytes is smaller than one head's token of "
          + "\(tokenByteCount)")
    }
    if engine.isSparse, flash.pageByteCount < 2 * PageLayout.tilePositionCount {
      throw .impossible(
        "a page of \(flash.pageByteCount) bytes is smaller than one element of "
          + "\(PageLayout.tilePositionCount) keys, which channel-indexed pages begin at")
    }
  }
}

extension FlashGeometry {
  /// - Throws: ``DriveError/impossible(_:)`` with the reason.
  package func check() throws(DriveError) {
    let counts = [
      ("channels", channelCount, 1, 1 << 10), ("planes in a channel", planesPerChannel, 1, 1 << 10),
      ("blocks in a plane", blocksPerPlane, 1, 1 << 20),
      ("pages in a block", pagesPerBlock, 1, 1 << 14),
    ]
    for (name, count, least, most) in counts where !(least...most).contains(count) {
      throw .impossible("a drive of \(count) \(name) is not possible: \(least) to \(most)")
    }
    guard (512...1 << 20).contains(pageByteCount), pageByteCount & (pageByteCount - 1) == 0 else {
      throw .impossible(
        "a page of \(pageByteCount) bytes is not possible: a power of two from 512 bytes to 1 MiB")
    }
    guard blocksPerChannel >= 2 else {
      throw .impossible(
        "a channel of one block is not possible: one is kept free for garbage collection")
    }
    guard pageCount < Int(Int32.max) else {
      throw .impossible("a drive of more than \(Int32.max) pages cannot be addressed")
    }
  }

  /// Blocks of all planes of a channel.
  var blocksPerChannel: Int { planesPerChannel * blocksPerPlane }
  var blockCount: Int { channelCount * blocksPerChannel }

  func address(ofPage page: Int) -> FlashAddress {
    let (block, index) = page.quotientAndRemainder(dividingBy: pagesPerBlock)
    return FlashAddress(
      channel: block / blocksPerChannel, block: block % blocksPerChannel, page: index)
  }

  /// The paper's page (arXiv:2409.04992).
  public static let standardPageByteCount = 4096

  /// Eight channels of 16-page blocks of 4 KiB pages, with room for at least `pageCount` pages.
  ///
  /// One block of each channel is kept free, and one is being filled; these come on top.
  public static func holding(pageCount: Int) -> FlashGeometry {
    let (channels, planes, pages) = (8, 2, 16)
    let perBlock = channels * planes * pages
    let blocks = min((max(0, pageCount) + perBlock - 1) / perBlock + 1, 1 << 20)
    return FlashGeometry(
      channelCount: channels, planesPerChannel: planes, blocksPerPlane: blocks,
      pagesPerBlock: pages, pageByteCount: standardPageByteCount)
  }
}

/// How a drive attends.
public enum AttentionEngineKind: Sendable, Equatable {
  /// Over every visible position: the host's bits.
  case dense
  /// SparF (arXiv:2409.04992, algorithm 1).
  case sparse(SparseAttention)

  var isSparse: Bool { self != .dense }

  package func check() throws(DriveError) {
    if case .sparse(let options) = self { try options.check() }
  }
}

/// How much of the keys and values SparF looks at.
public struct SparseAttention: Sendable, Equatable {
  /// r / d: the share of a query's elements that approximate scores use.
  public var channelFraction: Double
  /// k / S: the share of visible positions that are attended over exactly.
  public var tokenFraction: Double
  /// The share of those k positions that are the most recent ones whatever their scores.
  ///
  /// A quarter, as in SparQ (arXiv:2312.04985), of which SparF is a form.
  public var recentFraction = 0.25

  public init(channelFraction: Double, tokenFraction: Double) {
    self.channelFraction = channelFraction
    self.tokenFraction = tokenFraction
  }

  package func check() throws(DriveError) {
    for (name, value) in [
      ("r / d, the share of a query's elements,", channelFraction),
      ("k / S, the share of positions,", tokenFraction),
    ] where !(value > 0 && value <= 1) {
      throw .impossible("\(name) must be above 0 and at most 1, not \(value)")
    }
    guard (0...1).contains(recentFraction) else {
      throw .impossible("the share of recent positions must be between 0 and 1")
    }
  }

  /// r of a head's `headDim` elements.
  func channelCount(headDim: Int) -> Int {
    min(headDim, max(1, Int((channelFraction * Double(headDim)).rounded(.up))))
  }

  /// k of `count` visible positions.
  func tokenCount(of count: Int) -> Int {
    min(count, max(1, Int((tokenFraction * Double(count)).rounded(.up))))
  }

  /// Positions of `tokenCount` that are the most recent ones.
  func recentCount(ofTokens tokenCount: Int) -> Int {
    Int(recentFraction * Double(tokenCount))
  }
}

/// Bit errors that reading flash is to have, from one seed.
public struct FlashFaults: Sendable {
  /// Probability that a bit is read wrong.
  public var bitErrorRate: Double
  public var seed: UInt64
  /// Bits that the modelled code corrects in each KiB of a page: that of a common BCH code.
  public var correctableBitsPerKiB = 40
  /// Reads of a page after the first; each meets half the errors of the one before, as reading again
  /// with shifted thresholds does.
  public var retryLimit = 4

  public init(bitErrorRate: Double = 0, seed: UInt64 = 0) {
    self.bitErrorRate = bitErrorRate
    self.seed = seed
  }

  package func check() throws(DriveError) {
    guard bitErrorRate >= 0, bitErrorRate <= 0.5 else {
      throw .impossible("a bit error rate must be between 0 and 0.5, not \(bitErrorRate)")
    }
    guard (0...1 << 16).contains(retryLimit), correctableBitsPerKiB >= 0 else {
      throw .impossible("retries and correctable bits cannot be negative")
    }
  }
}

/// The keys and values that one drive holds: which KV heads of each layer, of how many positions.
public struct DriveContents: Sendable {
  /// KV heads of each layer that the drive holds, ascending.
  public var heads: [[Int]]
  /// Positions that a layer's queries see, their own included; nil = all.
  public var windows: [Int?]
  public var headDim: Int
  /// Query heads that share a KV head.
  public var groupSize: Int
  public var contextLength: Int

  public init(
    heads: [[Int]], windows: [Int?], headDim: Int, groupSize: Int, contextLength: Int
  ) {
    self.heads = heads
    self.windows = windows
    self.headDim = headDim
    self.groupSize = groupSize
    self.contextLength = contextLength
  }

  var layerCount: Int { heads.count }
  /// Pairs of layer and KV head.
  var streamCount: Int { heads.reduce(0) { $0 + $1.count } }

  package func check() throws(DriveError) {
    guard headDim > 0, headDim <= 1 << 12, headDim % 16 == 0 else {
      throw .impossible("heads of \(headDim) elements: the engine takes multiples of 16")
    }
    guard (1..<1 << 28).contains(contextLength) else {
      throw .impossible(
        "a context of \(contextLength) positions: a drive takes 1 to \(1 << 28 - 1)")
    }
    guard groupSize > 0, windows.count == heads.count, windows.allSatisfy({ $0 ?? 1 > 0 }) else {
      throw .impossible("heads without queries, or windows without positions")
    }
  }
}
