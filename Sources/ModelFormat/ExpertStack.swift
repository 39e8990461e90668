/// How a tensor holds one matrix an expert: parts of equal shape and length.
public struct ExpertStack: Sendable, Codable, Equatable {
  /// Where a part begins.
  public struct Place: Sendable, Equatable {
    public var fileIndex: Int
    /// Byte offset in the file.
    public var offset: Int

    public init(fileIndex: Int, offset: Int) {
      self.fileIndex = fileIndex
      self.offset = offset
    }
  }

  /// Parts; the tensor's rows are those of all of them.
  public var count: Int
  /// Bytes from the beginning of one part to that of the next, at least a part's length; without meaning
  /// where ``places`` are given.
  public var byteStride: Int
  /// Where each part begins, if they do not lie at equal distances in one file; otherwise nil.
  ///
  /// A Hugging Face folder has a tensor for each expert. No file's header states these.
  public var places: [Place]?

  public init(count: Int, byteStride: Int, places: [Place]? = nil) {
    self.count = count
    self.byteStride = byteStride
    self.places = places
  }

  private enum CodingKeys: String, CodingKey { case count, byteStride }
}

extension TensorRecord {
  /// Rows of one part; all rows of a plain tensor.
  public var partRowCount: Int { rowCount / (stack?.count ?? 1) }

  /// Bytes of one part, which lie together; all bytes of a plain tensor.
  public var partByteCount: Int { byteCount / (stack?.count ?? 1) }

  /// Whether the parts lie apart, between those of other tensors: in bundles (`docs/format.md`).
  public var isBundled: Bool { stack.map { $0.byteStride != partByteCount } ?? false }

  /// Bytes from the first part's first to the last part's last, of parts at equal distances; those of others
  /// may lie between.
  public var byteSpan: Range<Int> {
    let stride = stack?.byteStride ?? 0
    let last = offset + ((stack?.count ?? 1) - 1) * stride
    return offset..<last + partByteCount
  }

  /// The matrix of one expert as a tensor of its own; `self` where it is plain.
  public func part(_ expert: Int) -> TensorRecord {
    guard let stack else { return self }
    precondition((0..<stack.count).contains(expert), "expert \(expert) of \(stack.count)")
    let place =
      stack.places?[expert]
      ?? ExpertStack.Place(fileIndex: fileIndex, offset: offset + expert * stack.byteStride)
    return TensorRecord(
      name: name, type: type, columnCount: columnCount, rowCount: partRowCount, layout: layout,
      fileIndex: place.fileIndex, offset: place.offset, byteCount: partByteCount)
  }
}
