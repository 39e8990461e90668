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
  /// Bytes that a sequence's layers with a state in place of keys and values have, each a multiple of 64.
  public let stateByteCounts: [Int]

  public init(
    layerCount: Int, keyValueHeadCount: Int, headDim: Int, contextLength: Int,
    type: KeyValueType = .f16, windows: [Int?]? = nil, stateByteCounts: [Int] = []
  ) {
    precondition(stateByteCounts.allSatisfy { $0 % 64 == 0 }, "states are aligned")
    self.stateByteCounts = stateByteCounts
    self.layerCount = layerCount
    self.keyValueHeadCount = keyValueHeadCount
    self.headDim = headDim
    self.contextLength = contextLength
    self.type = type
    self.windows = windows ?? Array(repeating: nil, count: layerCount)
  }

  /// Whether layers have states, which know no position but the last.
  public var hasStates: Bool { !stateByteCounts.isEmpty }
  /// Memory of a sequence's states.
  public var stateByteCount: Int { AlignedBuffer.roundedUp(stateByteCounts.reduce(0, +)) }

  /// Bytes of a complete block.
  public var blockByteCount: Int { KeyValueBlock.byteCount(headDim: headDim, type: type) }
  /// Bytes of a complete page.
  public var pageByteCount: Int { keyValueHeadCount * blockByteCount }
  /// Bytes from a page to the next, in memory and in files.
  public var pageStride: Int { AlignedBuffer.roundedUp(pageByteCount) }
  /// Whether complete pages are another thing than open ones.
  public var quantises: Bool { type != .f16 }
  /// Bytes of a block of an open page.
  public var openBlockByteCount: Int { KeyValueBlock.byteCount(headDim: headDim) }
  /// Bytes of an open page.
  public var openPageByteCount: Int { keyValueHeadCount * openBlockByteCount }
  /// Bytes from an open page to the next.
  public var openPageStride: Int { AlignedBuffer.roundedUp(openPageByteCount) }
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

  /// Memory of an open page with `positionCount` positions, which is committed by groups of sixteen.
  func openByteCount(positionCount: Int) -> Int {
    let groups =
      (positionCount + KeyValueGroup.positionCount - 1) / KeyValueGroup.positionCount
    let byteCount = groups * KeyValueGroup.byteCount(headDim: headDim)
    return min(openPageStride, keyValueHeadCount * AlignedBuffer.roundedUp(byteCount))
  }

  /// Memory of a sequence's open page of the page group `pageGroup`, where it ends at `limit`.
  func openByteCount(pageGroup: Int, limit: Int) -> Int {
    let left = limit - pageGroup * KeyValueBlock.positionCount
    return openByteCount(positionCount: max(0, min(KeyValueBlock.positionCount, left)))
  }

  /// Complete pages of a layer of the whole context that a query sees at the same time at most.
  func completePageCount(layer: Int) -> Int {
    min(contextLength / KeyValueBlock.positionCount, visiblePageCount(layer: layer))
  }

  /// Memory of a layer of a sequence as long as the context, if every page that a query sees stays.
  func retainedByteCount(layer: Int) -> Int {
    let count = completePageCount(layer: layer)
    let whole = openByteCount(positionCount: KeyValueBlock.positionCount)
    let (complete, rest) = contextLength.quotientAndRemainder(
      dividingBy: KeyValueBlock.positionCount)
    guard complete > 0 else { return openByteCount(positionCount: rest) }
    guard count == complete else { return count * pageStride + whole }
    return max(
      count * pageStride + openByteCount(positionCount: rest), (count - 1) * pageStride + whole)
  }

  /// Memory of a sequence as long as the context, if every page that a query sees stays.
  public var retainedByteCount: Int {
    (0..<layerCount).reduce(0) { $0 + retainedByteCount(layer: $1) }
  }

  /// Complete pages that a query of `layer` sees at most.
  func visiblePageCount(layer: Int) -> Int {
    guard let window = windows[layer] else { return pageGroupCount }
    return min(
      pageGroupCount, (window + KeyValueBlock.positionCount - 2) / KeyValueBlock.positionCount)
  }
}
