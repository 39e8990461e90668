/// How one drive's keys and values lie on pages, and the logical number of each page.
///
/// A *stream* is one layer's KV head. Its positions form **token groups**: as many whole groups of sixteen
/// positions ([headDim][16] keys, [16][headDim] values: the kernel's order) as one page of keys
/// holds, and as one page of values, rounded down to a power of two and at most a tile; a head too long for
/// sixteen positions of a page has groups of sixteen that take several pages of each. With the paper's
/// 4 KiB pages and f16 that is 16 positions at 128 elements and 32 at 64 (arXiv:2409.04992, layout).
///
/// The sparse engine's **channel-indexed** pages hold the keys a second time: [elements][512 positions],
/// as many elements of a tile as a page has room for.
struct PageLayout: Sendable {
  static let tilePositionCount = 512
  private static let groupPositionCount = 16

  let pageByteCount: Int
  let headDim: Int
  let streamCount: Int
  let hasChannelPages: Bool
  /// Positions of a token group.
  let groupPositions: Int
  /// Pages of a token group's keys; as many hold its values.
  let pagesPerGroup: Int
  /// Token groups of the context.
  let groupCount: Int
  /// Elements of a channel-indexed page.
  let elementsPerPage: Int
  /// Channel-indexed pages of a tile.
  let pagesPerTile: Int
  let tileCount: Int

  init(_ contents: DriveContents, pageByteCount: Int, hasChannelPages: Bool) {
    self.pageByteCount = pageByteCount
    self.hasChannelPages = hasChannelPages
    headDim = contents.headDim
    streamCount = contents.streamCount
    // Sixteen positions of keys or of values.
    let halfByteCount = 2 * Self.groupPositionCount * headDim
    var halves = 1
    while 2 * halves * halfByteCount <= pageByteCount,
      2 * halves * Self.groupPositionCount <= Self.tilePositionCount
    {
      halves *= 2
    }
    groupPositions = halves * Self.groupPositionCount
    pagesPerGroup = (halves * halfByteCount + pageByteCount - 1) / pageByteCount
    groupCount = (contents.contextLength + groupPositions - 1) / groupPositions
    elementsPerPage = max(1, min(headDim, pageByteCount / (2 * Self.tilePositionCount)))
    pagesPerTile = (headDim + elementsPerPage - 1) / elementsPerPage
    // Only complete tiles have pages.
    tileCount = contents.contextLength / Self.tilePositionCount
  }

  /// Bytes of the keys, or the values, of a token group.
  var groupByteCount: Int { 2 * groupPositions * headDim }

  private var tokenPagesPerStream: Int { 2 * pagesPerGroup * groupCount }
  private var channelPagesPerStream: Int { hasChannelPages ? pagesPerTile * tileCount : 0 }

  /// Pages that a full context fills.
  var logicalPageCount: Int { streamCount * (tokenPagesPerStream + channelPagesPerStream) }

  /// The first of a group's ``pagesPerGroup`` pages of keys; those of values follow.
  func keyPage(stream: Int, group: Int) -> Int {
    stream * tokenPagesPerStream + group * 2 * pagesPerGroup
  }

  func valuePage(stream: Int, group: Int) -> Int {
    keyPage(stream: stream, group: group) + pagesPerGroup
  }

  /// The page of a tile that holds the elements [page · elementsPerPage, …) of its keys.
  func channelPage(stream: Int, tile: Int, page: Int) -> Int {
    streamCount * tokenPagesPerStream + stream * channelPagesPerStream + tile * pagesPerTile + page
  }
}
