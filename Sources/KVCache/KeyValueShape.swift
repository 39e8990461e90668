public import Kernels
import TensorBasics

/// The shape of keys and values of a whole context.
///
/// A **page** is one layer's part of a **page group** of 128 positions: the blocks of all heads, contiguous; the
/// unit of writing, reading and residence. Pages are numbered in the order of files: page group by page group, and in
/// a page group by layers. A page that is being filled is **open**: f16, whatever complete pages are.
public struct KeyValueShape: Sendable {
  public let layerCount: Int
  public let keyValueHeadCount: Int
  public let headDim: Int
  /// Positions that fit.
  public let contextLength: Int
  /// How complete pages are stored.
  public let type: KeyValueType
  /// Positions that a query of each layer sees, its own included; nil = all before it.
  public let windows: [Int?]

  public init(
    layerCount: Int, keyValueHeadCount: Int, headDim: Int, contextLength: Int,
    type: KeyValueType = .f16, windows: [Int?]? = nil
  ) {
    self.layerCount = layerCount
    self.keyValueHeadCount = keyValueHeadCount
    self.headDim = headDim
    self.contextLength = contextLength
    self.type = type
    self.windows = windows ?? Array(repeating: nil, count: layerCount)
  }

  /// Bytes of a complete block.
  public var blockByteCount: Int { KeyValueBlock.byteCount(headDim: headDim, type: type) }
  /// Bytes of a complete page.
  public var pageByteCount: Int { keyValueHeadCount * blockByteCount }
  /// Bytes from a page to the next, in memory and in files.
  public var pageStride: Int { AlignedBuffer.roundedUp(pageByteCount) }
  /// Whether open pages are another thing than complete ones, and lie apart.
  public var quantises: Bool { type != .f16 }
  /// Bytes of a block of an open page.
  public var openBlockByteCount: Int { KeyValueBlock.byteCount(headDim: headDim) }
  /// Bytes from an open page to the next, where they lie apart.
  public var openPageStride: Int {
    AlignedBuffer.roundedUp(keyValueHeadCount * openBlockByteCount)
  }
  public var pageGroupCount: Int { Self.pageGroupCount(positionCount: contextLength) }
  public var pageCount: Int { pageGroupCount * layerCount }

  /// Page groups that hold `positionCount` positions, the last perhaps in part.
  public static func pageGroupCount(positionCount: Int) -> Int {
    (positionCount + KeyValueBlock.positionCount - 1) / KeyValueBlock.positionCount
  }

  /// Where page `layer` of a file's page group `pageGroup` begins.
  public func fileOffset(layer: Int, pageGroup: Int, dataOffset: Int) -> Int {
    dataOffset + (pageGroup * layerCount + layer) * pageStride
  }

  /// The first page group that a query of `layer` at `position` sees.
  func firstVisiblePageGroup(layer: Int, position: Int) -> Int {
    guard let window = windows[layer] else { return 0 }
    return max(0, position - window + 1) / KeyValueBlock.positionCount
  }

  /// Complete pages that a query of `layer` sees at most.
  func visiblePageCount(layer: Int) -> Int {
    guard let window = windows[layer] else { return pageGroupCount }
    return min(
      pageGroupCount, (window + KeyValueBlock.positionCount - 2) / KeyValueBlock.positionCount)
  }
}
