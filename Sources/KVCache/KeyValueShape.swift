public import Kernels
import TensorBasics

/// The shape of keys and values of a whole context.
///
/// A **row** is one layer's part of a **slab** of 128 positions: the blocks of all heads, contiguous; the
/// unit of writing, reading and residence. Rows are numbered in the order of files: slab by slab, and in
/// a slab by layers. A row that is being filled is **open**: f16, whatever complete rows are.
public struct KeyValueShape: Sendable {
  public let layerCount: Int
  public let keyValueHeadCount: Int
  public let headDim: Int
  /// Positions that fit.
  public let contextLength: Int
  /// How complete rows are stored.
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
  /// Bytes of a complete row.
  public var rowByteCount: Int { keyValueHeadCount * blockByteCount }
  /// Bytes from a row to the next, in memory and in files.
  public var rowStride: Int { AlignedBuffer.roundedUp(rowByteCount) }
  /// Whether open rows are another thing than complete ones, and lie apart.
  public var quantises: Bool { type != .f16 }
  /// Bytes of a block of an open row.
  public var openBlockByteCount: Int { KeyValueBlock.byteCount(headDim: headDim) }
  /// Bytes from an open row to the next, where they lie apart.
  public var openRowStride: Int {
    AlignedBuffer.roundedUp(keyValueHeadCount * openBlockByteCount)
  }
  public var slabCount: Int { Self.slabCount(positionCount: contextLength) }
  public var rowCount: Int { slabCount * layerCount }

  /// Slabs that hold `positionCount` positions, the last perhaps in part.
  public static func slabCount(positionCount: Int) -> Int {
    (positionCount + KeyValueBlock.positionCount - 1) / KeyValueBlock.positionCount
  }

  /// Where row `layer` of a file's slab `slab` begins.
  public func fileOffset(layer: Int, slab: Int, dataOffset: Int) -> Int {
    dataOffset + (slab * layerCount + layer) * rowStride
  }

  /// The first slab that a query of `layer` at `position` sees.
  func firstVisibleSlab(layer: Int, position: Int) -> Int {
    guard let window = windows[layer] else { return 0 }
    return max(0, position - window + 1) / KeyValueBlock.positionCount
  }

  /// Complete rows that a query of `layer` sees at most.
  func visibleRowCount(layer: Int) -> Int {
    guard let window = windows[layer] else { return slabCount }
    return min(slabCount, (window + KeyValueBlock.positionCount - 2) / KeyValueBlock.positionCount)
  }
}
