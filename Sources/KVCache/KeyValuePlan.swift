import Kernels

/// Which rows of keys and values stay in memory, and which buffers the others pass through.
///
/// The rows that stay are a fixed set: every token reads all rows in the same order, and of a cyclic scan
/// no policy saves more reads than keeping the same rows. Rows of sliding windows come first, as a row
/// that stays until no query sees it is never written; then the oldest slabs of the other layers.
///
/// Rows being filled are rows of the pool, unless complete rows are quantised: then they lie apart, of
/// every layer the one that a chunk begins in, and of the current layer the others that it reaches into.
public struct KeyValuePlan: Sendable {
  public let shape: KeyValueShape
  /// Rows of the pool: those that stay, those being filled and those being written.
  public let slotCount: Int
  /// Rows being filled, where they lie apart.
  public let openRowCount: Int
  /// Rows that reads go through; 0 if every row stays.
  public let stagingCount: Int

  /// Of each layer with a window, how many of its visible rows stay.
  private let keptVisibleRows: [Int]
  /// Rows of layers without a window that stay, counted slab by slab.
  private let keptRowCount: Int
  /// The place of each layer without a window among such layers.
  private let places: [Int]
  private let wholeLayerCount: Int

  /// A tile must have room, so that attention can proceed.
  private static let leastStagingCount = AttentionTile.blockCount
  /// Bytes of reads in flight that keep any drive busy.
  private static let stagingByteCount = 8 << 20

  /// Rows of the pool that are filled or written while tokens are decoded.
  var workingRowCount: Int { Self.workingRowCount(shape, chunkLength: 1) }

  /// Whether some rows do not stay in memory.
  public var hasTier: Bool { stagingCount > 0 }

  /// Memory of all rows.
  public var byteCount: Int { slotByteCount + openByteCount }
  /// Memory of the pool and of the rows that reads go through.
  var slotByteCount: Int { (slotCount + stagingCount) * shape.rowStride }
  var openByteCount: Int { openRowCount * shape.openRowStride }

  /// Memory of the bookkeeping of every row.
  public static func bookByteCount(_ shape: KeyValueShape) -> Int {
    shape.rowCount * 32 + BlockSelection.byteCount(shape)
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
    let all = Self.residentRowCount(shape, chunkLength: chunkLength)
    openRowCount = Self.openRowCount(shape, chunkLength: chunkLength)
    let forSlots = budgetByteCount - openRowCount * shape.openRowStride
    guard forSlots >= 0 else { return nil }
    let rowCount = forSlots / shape.rowStride
    if rowCount >= all {
      slotCount = all
      stagingCount = 0
      keptVisibleRows = (0..<shape.layerCount).map { shape.visibleRowCount(layer: $0) }
      keptRowCount = wholeLayerCount * shape.slabCount
      return
    }
    let working = Self.workingRowCount(shape, chunkLength: chunkLength)
    guard rowCount >= working + Self.leastStagingCount else { return nil }
    stagingCount = min(
      rowCount - working,
      max(
        Self.leastStagingCount,
        min(rowCount / 4, max(16, Self.stagingByteCount / shape.rowStride))))
    slotCount = rowCount - stagingCount
    var left = slotCount - working
    keptVisibleRows = (0..<shape.layerCount).map { layer in
      guard shape.windows[layer] != nil else { return 0 }
      let kept = min(left, shape.visibleRowCount(layer: layer))
      left -= kept
      return kept
    }
    keptRowCount = min(left, wholeLayerCount * shape.slabCount)
  }

  /// Whether the row stays in memory for as long as a query sees it.
  public func keeps(layer: Int, slab: Int) -> Bool {
    guard shape.windows[layer] != nil else {
      return slab * wholeLayerCount + places[layer] < keptRowCount
    }
    // Of any neighbouring rows that a window spans, as many stay.
    return slab % max(1, shape.visibleRowCount(layer: layer)) < keptVisibleRows[layer]
  }

  /// The least memory that works.
  public static func minimumByteCount(_ shape: KeyValueShape, chunkLength: Int) -> Int {
    min(
      workingRowCount(shape, chunkLength: chunkLength) + leastStagingCount,
      residentRowCount(shape, chunkLength: chunkLength)) * shape.rowStride
      + openRowCount(shape, chunkLength: chunkLength) * shape.openRowStride
  }

  /// Memory with which every row that a query still sees stays.
  public static func residentByteCount(_ shape: KeyValueShape, chunkLength: Int) -> Int {
    residentRowCount(shape, chunkLength: chunkLength) * shape.rowStride
      + openRowCount(shape, chunkLength: chunkLength) * shape.openRowStride
  }

  /// The longest chunk up to `limit` whose rows take at most half of what a budget leaves them.
  public static func longestChunk(
    _ limit: Int, _ shape: KeyValueShape, budgetByteCount: Int
  ) -> Int {
    guard budgetByteCount < residentByteCount(shape, chunkLength: limit) else { return limit }
    // A chunk may begin anywhere in its first slab, which is one more that it touches.
    let (fillingCount, begun) = shape.quantises ? (0, 0) : (shape.layerCount, 1)
    let slabByteCount = 2 * shape.rowStride + (shape.quantises ? shape.openRowStride : 0)
    let left =
      budgetByteCount - (fillingCount + leastStagingCount) * shape.rowStride
      - openRowCount(shape, chunkLength: 1) * shape.openRowStride
    guard left >= (1 + begun) * slabByteCount else { return 1 }
    return min(limit, max(1, left / (2 * slabByteCount) - begun) * KeyValueBlock.positionCount)
  }

  /// Rows of the pool that are being filled or written.
  static func workingRowCount(_ shape: KeyValueShape, chunkLength: Int) -> Int {
    (shape.quantises ? 0 : shape.layerCount) + 2 * enteringRowCount(shape, chunkLength: chunkLength)
  }

  private static func openRowCount(_ shape: KeyValueShape, chunkLength: Int) -> Int {
    shape.quantises
      ? shape.layerCount + touchedSlabCount(chunkLength: chunkLength) - 1 : 0
  }

  /// Rows of a layer that a chunk brings into the pool at most: of all slabs that it touches, or of those
  /// that it completes.
  private static func enteringRowCount(_ shape: KeyValueShape, chunkLength: Int) -> Int {
    shape.quantises
      ? (chunkLength + KeyValueBlock.positionCount - 1) / KeyValueBlock.positionCount
      : touchedSlabCount(chunkLength: chunkLength)
  }

  private static func residentRowCount(_ shape: KeyValueShape, chunkLength: Int) -> Int {
    let whole = shape.windows.reduce(0) { $0 + ($1 == nil ? shape.slabCount : 0) }
    let sliding = (0..<shape.layerCount).reduce(0) {
      shape.windows[$1] == nil
        ? $0
        : $0
          + min(
            shape.slabCount,
            shape.visibleRowCount(layer: $1) + (shape.quantises ? 0 : 1))
    }
    guard sliding > 0 else { return whole }
    return min(
      shape.rowCount, whole + sliding + enteringRowCount(shape, chunkLength: chunkLength))
  }

  /// Slabs that a chunk reaches into at most.
  static func touchedSlabCount(chunkLength: Int) -> Int {
    (chunkLength + KeyValueBlock.positionCount - 2) / KeyValueBlock.positionCount + 1
  }
}
