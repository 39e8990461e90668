import Kernels

/// Which pages of keys and values stay in memory, and which buffers the others pass through.
///
/// The pages that stay are a fixed set: every token reads all pages in the same order, and of a cyclic scan
/// no policy saves more reads than keeping the same pages. Pages of sliding windows come first, as a page
/// that stays until no query sees it is never written; then the oldest page groups of the other layers.
///
/// Pages being filled are pages of the pool, unless complete pages are quantised: then they lie apart, of
/// every layer the one that a chunk begins in, and of the current layer the others that it reaches into.
public struct KeyValuePlan: Sendable {
  public let shape: KeyValueShape
  /// Pages of the pool: those that stay, those being filled and those being written.
  public let slotCount: Int
  /// Pages being filled, where they lie apart.
  public let openPageCount: Int
  /// Pages that reads go through; 0 if every page stays.
  public let stagingCount: Int

  /// Of each layer with a window, how many of its visible pages stay.
  private let keptVisiblePages: [Int]
  /// Pages of layers without a window that stay, counted page group by page group.
  private let keptPageCount: Int
  /// The place of each layer without a window among such layers.
  private let places: [Int]
  private let wholeLayerCount: Int

  /// A tile must have room, so that attention can proceed.
  private static let leastStagingCount = AttentionTile.blockCount
  /// Bytes of reads in flight that keep any drive busy.
  private static let stagingByteCount = 8 << 20

  /// Pages of the pool that are filled or written while tokens are decoded.
  var workingPageCount: Int { Self.workingPageCount(shape, chunkLength: 1) }

  /// Whether some pages do not stay in memory.
  public var hasTier: Bool { stagingCount > 0 }

  /// Memory of all pages.
  public var byteCount: Int { slotByteCount + openByteCount }
  /// Memory of the pool and of the pages that reads go through.
  var slotByteCount: Int { (slotCount + stagingCount) * shape.pageStride }
  var openByteCount: Int { openPageCount * shape.openPageStride }

  /// Memory of the bookkeeping of every page.
  public static func bookByteCount(_ shape: KeyValueShape) -> Int {
    shape.pageCount * 32 + BlockSelection.byteCount(shape)
  }

  /// Divides `budgetByteCount`; nil if it is below ``minimumByteCount(_:chunkLength:)``.
  ///
  /// - Parameter chunkLength: most positions that enter at once.
  public init?(_ shape: KeyValueShape, budgetByteCount: Int, chunkLength: Int) {
    self.shape = shape
    var (places, wholeLayerCount) = ([Int](repeating: 0, count: shape.layerCount), 0)
    for layer in 0..<shape.layerCount where shape.windows[layer] == nil {
      places[layer] = wholeLayerCount
      wholeLayerCount += 1
    }
    self.places = places
    self.wholeLayerCount = wholeLayerCount
    let all = Self.residentPageCount(shape, chunkLength: chunkLength)
    openPageCount = Self.openPageCount(shape, chunkLength: chunkLength)
    let forSlots = budgetByteCount - openPageCount * shape.openPageStride
    guard forSlots >= 0 else { return nil }
    let pageCount = forSlots / shape.pageStride
    if pageCount >= all {
      slotCount = all
      stagingCount = 0
      keptVisiblePages = (0..<shape.layerCount).map { shape.visiblePageCount(layer: $0) }
      keptPageCount = wholeLayerCount * shape.pageGroupCount
      return
    }
    let working = Self.workingPageCount(shape, chunkLength: chunkLength)
    guard pageCount >= working + Self.leastStagingCount else { return nil }
    stagingCount = min(
      pageCount - working,
      max(
        Self.leastStagingCount,
        min(pageCount / 4, max(16, Self.stagingByteCount / shape.pageStride))))
    slotCount = pageCount - stagingCount
    var left = slotCount - working
    keptVisiblePages = (0..<shape.layerCount).map { layer in
      guard shape.windows[layer] != nil else { return 0 }
      let kept = min(left, shape.visiblePageCount(layer: layer))
      left -= kept
      return kept
    }
    keptPageCount = min(left, wholeLayerCount * shape.pageGroupCount)
  }

  /// Whether the page stays in memory for as long as a query sees it.
  public func keeps(layer: Int, pageGroup: Int) -> Bool {
    guard shape.windows[layer] != nil else {
      return pageGroup * wholeLayerCount + places[layer] < keptPageCount
    }
    // Of any neighbouring pages that a window spans, as many stay.
    return pageGroup % max(1, shape.visiblePageCount(layer: layer)) < keptVisiblePages[layer]
  }

  /// The least memory that works.
  public static func minimumByteCount(_ shape: KeyValueShape, chunkLength: Int) -> Int {
    min(
      workingPageCount(shape, chunkLength: chunkLength) + leastStagingCount,
      residentPageCount(shape, chunkLength: chunkLength)) * shape.pageStride
      + openPageCount(shape, chunkLength: chunkLength) * shape.openPageStride
  }

  /// Memory with which every page that a query still sees stays.
  public static func residentByteCount(_ shape: KeyValueShape, chunkLength: Int) -> Int {
    residentPageCount(shape, chunkLength: chunkLength) * shape.pageStride
      + openPageCount(shape, chunkLength: chunkLength) * shape.openPageStride
  }

  /// The longest chunk up to `limit` whose pages take at most half of what a budget leaves them.
  public static func longestChunk(
    _ limit: Int, _ shape: KeyValueShape, budgetByteCount: Int
  ) -> Int {
    guard budgetByteCount < residentByteCount(shape, chunkLength: limit) else { return limit }
    // A chunk may begin anywhere in its first page group, which is one more that it touches.
    let (fillingCount, begun) = shape.quantises ? (0, 0) : (shape.layerCount, 1)
    let pageGroupByteCount = 2 * shape.pageStride + (shape.quantises ? shape.openPageStride : 0)
    let left =
      budgetByteCount - (fillingCount + leastStagingCount) * shape.pageStride
      - openPageCount(shape, chunkLength: 1) * shape.openPageStride
    guard left >= (1 + begun) * pageGroupByteCount else { return 1 }
    return min(limit, max(1, left / (2 * pageGroupByteCount) - begun) * KeyValueBlock.positionCount)
  }

  /// Pages of the pool that are being filled or written.
  static func workingPageCount(_ shape: KeyValueShape, chunkLength: Int) -> Int {
    (shape.quantises ? 0 : shape.layerCount) + 2
      * enteringPageCount(shape, chunkLength: chunkLength)
  }

  private static func openPageCount(_ shape: KeyValueShape, chunkLength: Int) -> Int {
    shape.quantises
      ? shape.layerCount + touchedPageGroupCount(chunkLength: chunkLength) - 1 : 0
  }

  /// Pages of a layer that a chunk brings into the pool at most: of all page groups that it touches, or of those
  /// that it completes.
  private static func enteringPageCount(_ shape: KeyValueShape, chunkLength: Int) -> Int {
    shape.quantises
      ? (chunkLength + KeyValueBlock.positionCount - 1) / KeyValueBlock.positionCount
      : touchedPageGroupCount(chunkLength: chunkLength)
  }

  private static func residentPageCount(_ shape: KeyValueShape, chunkLength: Int) -> Int {
    let whole = shape.windows.reduce(0) { $0 + ($1 == nil ? shape.pageGroupCount : 0) }
    let sliding = (0..<shape.layerCount).reduce(0) {
      shape.windows[$1] == nil
        ? $0
        : $0
          + min(
            shape.pageGroupCount,
            shape.visiblePageCount(layer: $1) + (shape.quantises ? 0 : 1))
    }
    guard sliding > 0 else { return whole }
    return min(
      shape.pageCount, whole + sliding + enteringPageCount(shape, chunkLength: chunkLength))
  }

  /// Page groups that a chunk reaches into at most.
  static func touchedPageGroupCount(chunkLength: Int) -> Int {
    (chunkLength + KeyValueBlock.positionCount - 2) / KeyValueBlock.positionCount + 1
  }
}
