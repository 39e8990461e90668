import BlockIO
public import ModelFormat
public import TensorBasics

/// One tensor of an open file: what it is, and where its bytes lie.
public struct LoadableTensor: Sendable {
  public let name: String
  public let type: StorageType
  /// Outermost dimension first; empty for a scalar.
  public let shape: [Int]
  /// How rows lie in the file, and so in memory.
  public let layout: RowLayout
  /// Matrices of equal shape that are stacked in the tensor, as experts are; 1 for a plain one.
  public let partCount: Int
  /// Bytes of one part, which lie together.
  public let partByteCount: Int
  /// Index into ``TensorLoader/files``.
  public let fileIndex: Int
  /// The first byte of part 0 in its file, and bytes from the beginning of one part to that of the next. Of a
  /// striped image they count in the image that its members are together.
  public let offset: Int
  public let byteStride: Int

  /// Bytes of all parts.
  public var byteCount: Int { partCount * partByteCount }

  /// Elements of a row; 1 for a scalar.
  public var columnCount: Int { shape.last ?? 1 }

  /// Rows of one part; none where the type's layout is not known.
  public var partRowCount: Int {
    shape.contains(0) || type.isOpaque ? 0 : shape.dropLast().reduce(1, *) / partCount
  }

  /// The type's name in the file's format, e.g. `BF16`, `I64`, `Q4_K`.
  public var typeName: String { type.name }

  /// Bytes of one row; where rows are interleaved, of a row's share in a group of sixteen.
  public var rowByteCount: Int { unitByteCount / unitRowCount }

  /// Rows that belong together: one, or sixteen interleaved ones.
  public var unitRowCount: Int { layout == .interleaved ? RowGroup.rowCount : 1 }

  /// Bytes that belong together: a row, or of interleaved rows a group of sixteen.
  ///
  /// 0 in an empty tensor, whose other dimensions may be anything, and where the type's layout is not known.
  public var unitByteCount: Int {
    guard byteCount > 0, !type.isOpaque else { return 0 }
    return switch (layout, type.elementType) {
    case (.interleaved, let type?): RowGroup.byteCount(type, columnCount: columnCount)
    default: columnCount / type.blockElementCount * type.blockByteCount
    }
  }

  /// Bytes that must not be cut: a group of interleaved rows, otherwise a block.
  var leastUnitByteCount: Int {
    layout == .interleaved ? unitByteCount : type.blockByteCount
  }

  /// Where the bytes of `part` lie.
  func extent(ofPart part: Int) -> Extent {
    Extent(fileIndex: fileIndex, offset: offset + part * byteStride, byteCount: partByteCount)
  }

  /// Where the rows of `part` lie, or of interleaved ones their whole groups.
  func extent(of part: TensorPart) -> Extent {
    var extent = extent(ofPart: part.part)
    guard let rows = part.rows else { return extent }
    let first = rows.lowerBound / unitRowCount
    let end = rows.isEmpty ? first : (rows.upperBound + unitRowCount - 1) / unitRowCount
    extent.offset += first * unitByteCount
    extent.byteCount = (end - first) * unitByteCount
    return extent
  }

  /// Bytes of a part before a row, or before the group of interleaved ones that it lies in.
  package func byteOffset(ofRow row: Int) -> Int { row / unitRowCount * unitByteCount }

  /// The rows of a part that lie whole in `range` of its bytes; none from the row that a piece of less than
  /// a row belongs to.
  func rows(inBytes range: Range<Int>) -> Range<Int> {
    guard unitByteCount > 0 else { return 0..<(range.isEmpty ? partRowCount : 0) }
    let first = min(partRowCount, range.lowerBound / unitByteCount * unitRowCount)
    guard range.lowerBound % unitByteCount == 0 else { return first..<first }
    return first..<max(first, min(partRowCount, range.upperBound / unitByteCount * unitRowCount))
  }

  /// The longest piece of at most `limit` bytes that the tensor is cut into: whole rows or row groups where
  /// they fit, otherwise whole blocks.
  func pieceByteCount(limit: Int) -> Int {
    for unit in [unitByteCount, leastUnitByteCount] where unit > 0 && unit <= limit {
      return limit / unit * unit
    }
    return max(1, leastUnitByteCount)
  }
}

extension LoadableTensor {
  init(_ tensor: SafetensorsTensor, fileIndex: Int) {
    self.init(
      name: tensor.name, type: tensor.type, shape: tensor.shape, layout: .rowMajor, partCount: 1,
      partByteCount: tensor.byteCount, fileIndex: fileIndex, offset: tensor.offset,
      byteStride: tensor.byteCount)
  }

  /// A third dimension of experts counts matrices, which lie one after the other; of others it may be
  /// anything.
  init(_ tensor: GGUFTensorInfo, fileIndex: Int) {
    let isStacked =
      tensor.dimensions.count == 3 && tensor.name.hasSuffix("_exps.weight")
      && !tensor.type.isOpaque
    let partCount = isStacked ? tensor.dimensions[2] : 1
    self.init(
      name: tensor.name, type: tensor.type, shape: tensor.dimensions.reversed(),
      layout: .rowMajor, partCount: partCount, partByteCount: tensor.byteCount / partCount,
      fileIndex: fileIndex, offset: tensor.offset, byteStride: tensor.byteCount / partCount)
  }

  init(_ record: TensorRecord) {
    let outer = record.stack.map { [$0.count, record.partRowCount] } ?? [record.rowCount]
    self.init(
      name: record.name, type: StorageType(record.type),
      shape: (record.rowCount == 1 ? [] : outer) + [record.columnCount], layout: record.layout,
      partCount: record.stack?.count ?? 1, partByteCount: record.partByteCount,
      fileIndex: record.fileIndex, offset: record.offset,
      byteStride: record.stack?.byteStride ?? record.byteCount)
  }
}

/// A part of a tensor: one matrix of a stacked tensor, all of a plain one (part 0), or some rows of either.
public struct TensorPart: Hashable, Sendable {
  /// Index into ``TensorLoader/tensors``.
  public var tensor: Int
  public var part: Int
  /// Rows of the part; nil = all. Interleaved rows come in the whole groups of sixteen that they lie in.
  public var rows: Range<Int>?

  public init(_ tensor: Int, part: Int = 0, rows: Range<Int>? = nil) {
    self.tensor = tensor
    self.part = part
    self.rows = rows
  }
}
