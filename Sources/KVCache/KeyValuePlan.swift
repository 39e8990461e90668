import Kernels

/// How the memory of all sequences' keys and values is divided.
///
/// - **Open pages**, which are being filled, as f16: of every sequence and layer the one that its next token goes into.
///   They take memory by groups of sixteen positions, as far as the sequence may still grow into them.
/// - **Resident pages**: complete ones that stay in memory. With the open pages they share ``retainedByteCount``;
///   what open pages do not need, resident ones have.
/// - **Working pages**: complete ones that enter memory, or leave it once they are written.
/// - **Extra open pages**: of the layer in work, those that chunks reach into after their first.
/// - **Staging**: what reads go through; 0 if every page stays.
///
/// Every sweep reads all pages in the same order, and of a cyclic scan no policy saves more reads than keeping the
/// same pages: pages stay as they are completed, for as long as there is room. Room for the pages of sliding windows
/// is set aside, as a page that stays until no query sees it is never written.
public struct KeyValuePlan: Sendable {
  public let shape: KeyValueShape
  /// Sequences that may be open at the same time, each as long as the context.
  public let sequenceCount: Int
  /// Memory that open and resident pages share.
  public let retainedByteCount: Int
  public let workingCount: Int
  public let extraOpenCount: Int
  public let stagingCount: Int
  /// Resident pages that are set aside for layers with a window.
  let windowReserveCount: Int

  /// A tile must have room, so that attention can proceed.
  private static let leastStagingCount = AttentionTile.blockCount
  /// Bytes of reads in flight that keep any drive busy.
  private static let stagingByteCount = 8 << 20

  /// Whether some pages do not stay in memory.
  public var hasTier: Bool { stagingCount > 0 }

  /// Most pages that are resident or working.
  var slotCount: Int { workingCount + retainedByteCount / shape.pageStride }

  /// Memory of all pages.
  public var byteCount: Int {
    retainedByteCount + (workingCount + stagingCount) * shape.pageStride
      + extraOpenCount * shape.openPageStride
  }

  /// Memory of the bookkeeping of every page.
  public static func bookByteCount(_ shape: KeyValueShape, sequenceCount: Int = 1) -> Int {
    sequenceCount
      * (shape.pageCount * (MemoryLayout<KeyValuePage>.stride + 8) + BlockSelection.byteCount(shape))
  }

  /// Divides `budgetByteCount`; nil if it is below ``minimumByteCount(_:sequenceCount:chunkLength:)``.
  ///
  /// - Parameter chunkLength: most positions of a sequence that enter at once; those of all sequences are as many, or
  ///   one each.
  public init?(
    _ shape: KeyValueShape, sequenceCount: Int = 1, budgetByteCount: Int, chunkLength: Int
  ) {
    let parts = Parts(shape, sequenceCount: sequenceCount, chunkLength: chunkLength)
    self.shape = shape
    self.sequenceCount = sequenceCount
    extraOpenCount = parts.extraOpenCount
    if budgetByteCount >= parts.residentByteCount {
      workingCount = parts.enteringCount
      stagingCount = 0
      retainedByteCount = parts.retainedByteCount
      windowReserveCount = 0
      return
    }
    guard budgetByteCount >= parts.tierByteCount else { return nil }
    let spareCount = (budgetByteCount - parts.tierByteCount) / shape.pageStride
    // Where there is room, a layer's pages wait for the drive while those of later layers enter.
    let leavingCount = min(
      spareCount / 2, max(parts.leavingCount, min(spareCount / 8, shape.layerCount)))
    workingCount = parts.enteringCount + leavingCount
    stagingCount =
      Self.leastStagingCount
      + min(
        (spareCount - leavingCount) / 4,
        max(16, Self.stagingByteCount / shape.pageStride) - Self.leastStagingCount)
    retainedByteCount =
      budgetByteCount - (workingCount + stagingCount) * shape.pageStride
      - extraOpenCount * shape.openPageStride
    windowReserveCount = min(
      (retainedByteCount - parts.openByteCount) / shape.pageStride, parts.windowPageCount)
  }

  /// The least memory that works.
  public static func minimumByteCount(
    _ shape: KeyValueShape, sequenceCount: Int = 1, chunkLength: Int
  ) -> Int {
    let parts = Parts(shape, sequenceCount: sequenceCount, chunkLength: chunkLength)
    return min(parts.tierByteCount, parts.residentByteCount)
  }

  /// Memory with which every page that a query still sees stays.
  public static func residentByteCount(
    _ shape: KeyValueShape, sequenceCount: Int = 1, chunkLength: Int
  ) -> Int {
    Parts(shape, sequenceCount: sequenceCount, chunkLength: chunkLength).residentByteCount
  }

  /// The longest chunk up to `limit` whose pages take at most half of what a budget leaves them.
  ///
  /// Where that is little, because the least of many sequences is most of a budget, they may take an eighth of all.
  public static func longestChunk(
    _ limit: Int, _ shape: KeyValueShape, sequenceCount: Int = 1, budgetByteCount: Int
  ) -> Int {
    func least(_ length: Int) -> Int {
      minimumByteCount(shape, sequenceCount: sequenceCount, chunkLength: length)
    }
    guard
      budgetByteCount
        < residentByteCount(shape, sequenceCount: sequenceCount, chunkLength: limit)
    else { return limit }
    let floor = least(1)
    let most = min(
      budgetByteCount, floor + max((budgetByteCount - floor) / 2, budgetByteCount / 8))
    var length = min(
      limit,
      (limit + KeyValueBlock.positionCount - 1) / KeyValueBlock.positionCount
        * KeyValueBlock.positionCount)
    while length > 1, least(length) > most {
      length = max(1, (length - 1) / KeyValueBlock.positionCount * KeyValueBlock.positionCount)
    }
    return length
  }

  /// What the parts of a plan take.
  private struct Parts {
    let shape: KeyValueShape
    /// Open pages of all sequences.
    let openByteCount: Int
    /// Open pages and all complete ones that queries still see.
    let retainedByteCount: Int
    /// Pages of a layer that a sweep completes at most.
    let enteringCount: Int
    /// Pages that are written while the next layer's enter.
    let leavingCount: Int
    let extraOpenCount: Int
    /// Complete pages that queries see in layers with a window.
    let windowPageCount: Int

    init(_ shape: KeyValueShape, sequenceCount: Int, chunkLength: Int) {
      self.shape = shape
      let length = KeyValueBlock.positionCount
      openByteCount =
        sequenceCount * shape.layerCount
        * shape.openByteCount(positionCount: min(length, shape.contextLength))
      retainedByteCount = sequenceCount * shape.retainedByteCount
      // Of a model that does not attend nothing enters.
      let rows = shape.layerCount == 0 ? 0 : max(chunkLength, sequenceCount)
      // Of n rows in s sequences, each completes one page more than its rows fill whole ones, at most.
      let most = min(sequenceCount, rows) + (rows - min(sequenceCount, rows)) / length
      enteringCount = min(most, sequenceCount * shape.pageGroupCount)
      leavingCount = (chunkLength + length - 1) / length
      extraOpenCount =
        rows == 0
        ? 0
        : min(
          sequenceCount * ((chunkLength + length - 2) / length), rows / length + sequenceCount)
      windowPageCount =
        sequenceCount
        * (0..<shape.layerCount).reduce(0) {
          $0 + (shape.windows[$1] == nil ? 0 : shape.completePageCount(layer: $1))
        }
    }

    var residentByteCount: Int {
      retainedByteCount + enteringCount * shape.pageStride + extraOpenCount * shape.openPageStride
    }

    var tierByteCount: Int {
      openByteCount
        + (enteringCount + KeyValuePlan.leastStagingCount) * shape.pageStride
        + extraOpenCount * shape.openPageStride
    }
  }
}
