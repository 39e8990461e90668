/// How a tensor holds one matrix an expert: parts of equal shape and length, at equal distances.
public struct ExpertStack: Sendable, Codable, Equatable {
  /// Parts; the tensor's rows are those of all of them.
  public var count: Int
  /// Bytes from the beginning of one part to that of the next, at least a part's length.
  public var byteStride: Int

  public init(count: Int, byteStride: Int) {
    self.count = count
    self.byteStride = byteStride
  }
}

extension TensorRecord {
  /// Rows of one part; all rows of a plain tensor.
  public var partRowCount: Int { rowCount / (stack?.count ?? 1) }

  /// Bytes of one part, which lie together; all bytes of a plain tensor.
  public var partByteCount: Int { byteCount / (stack?.count ?? 1) }

  /// Whether the parts lie apart, between those of other tensors: in bundles (`docs/format.md`).
  public var isBundled: Bool { stack.map { $0.byteStride != partByteCount } ?? false }

  /// Bytes from the first part's first to the last part's last; those of others may lie between.
  public var byteSpan: Range<Int> {
    let stride = stack?.byteStride ?? 0
    let last = offset + ((stack?.count ?? 1) - 1) * stride
    return offset..<last + partByteCount
  }

  /// The matrix of one expert as a tensor of its own, in the same file; `self` where it is plain.
  public func part(_ expert: Int) -> TensorRecord {
    guard let stack else { return self }
    precondition((0..<stack.count).contains(expert), "expert \(expert) of \(stack.count)")
    return TensorRecord(
      name: name, type: type, columnCount: columnCount, rowCount: partRowCount, layout: layout,
      fileIndex: fileIndex, offset: offset + expert * stack.byteStride, byteCount: partByteCount)
  }
}
