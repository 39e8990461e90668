import BlockIO

/// Where a piece lies in its tensor and its file.
struct PiecePlace {
  let part: TensorPart
  /// Bytes of the whole part before the piece.
  let byteOffset: Int
  let isLast: Bool
  let extent: Extent
}

/// The pieces of a list of parts, in its order, cut as they are asked for.
struct PieceSequence {
  private let parts: [TensorPart]
  private let pieceByteCount: Int
  private var index = 0
  private var byteOffset = 0

  /// - Parameter pieceByteCount: longest piece, except where one unit of a tensor is longer.
  init(_ parts: [TensorPart], pieceByteCount: Int) {
    self.parts = parts
    self.pieceByteCount = pieceByteCount
  }

  /// The next piece, and steps over it; nil at the end.
  mutating func next(_ tensors: [LoadableTensor]) -> PiecePlace? {
    guard index < parts.count else { return nil }
    let part = parts[index]
    let tensor = tensors[part.tensor]
    var extent = tensor.extent(of: part)
    let start = extent.offset - tensor.extent(ofPart: part.part).offset
    let left = extent.byteCount - byteOffset
    let byteCount =
      left <= pieceByteCount ? left : min(left, tensor.pieceByteCount(limit: pieceByteCount))
    extent.offset += byteOffset
    extent.byteCount = byteCount
    let place = PiecePlace(
      part: part, byteOffset: start + byteOffset, isLast: byteCount == left, extent: extent)
    if place.isLast {
      index += 1
      byteOffset = 0
    } else {
      byteOffset += byteCount
    }
    return place
  }

  /// The next piece, without stepping over it.
  func peek(_ tensors: [LoadableTensor]) -> PiecePlace? {
    var copy = self
    return copy.next(tensors)
  }
}

/// Pieces that one contiguous range of a file brings.
struct PieceRun {
  /// What to read: aligned, and in an image widened to whole extents at an end that does not continue the run
  /// before or is not continued by the next.
  var range: Extent
  var pieceCount: Int
}

/// Joins pieces that are neighbours in a file, up to a length.
struct RunBuilder {
  let tensors: [LoadableTensor]
  let alignment: Int
  /// Longest run before it is widened; a single piece may exceed it.
  let runByteCount: Int
  /// Widens a range to whole extents of an image; nil for other files.
  let widen: ((Extent) -> Extent)?
  /// Where the run before ended.
  private var end: (fileIndex: Int, offset: Int)?

  init(
    tensors: [LoadableTensor], alignment: Int, runByteCount: Int, widen: ((Extent) -> Extent)?
  ) {
    self.tensors = tensors
    self.alignment = alignment
    self.runByteCount = runByteCount
    self.widen = widen
  }

  /// The longest gap that is read over.
  private static let gapByteCount = 4096

  /// The next run of `pieces`, which steps over it; nil at the end.
  mutating func next(_ pieces: inout PieceSequence) -> PieceRun? {
    guard let first = pieces.next(tensors) else { return nil }
    var run = first.extent
    var pieceCount = 1
    while let piece = pieces.peek(tensors), continues(piece.extent, run),
      piece.extent.endOffset - run.offset <= runByteCount
    {
      run.byteCount = piece.extent.endOffset - run.offset
      pieceCount += 1
      _ = pieces.next(tensors)
    }
    var range = run.aligned(to: alignment)
    if let widen, run.byteCount > 0 {
      let isContinuation = end.map {
        $0.fileIndex == run.fileIndex && (0...Self.gapByteCount).contains($0.offset - range.offset)
      }
      let widened = widen(range)
      let start = isContinuation ?? false ? range.offset : widened.offset
      let isContinued = pieces.peek(tensors).map { continues($0.extent, run) } ?? false
      let endOffset = isContinued ? range.endOffset : widened.endOffset
      range.offset = start
      range.byteCount = endOffset - start
    }
    end = (range.fileIndex, range.endOffset)
    return PieceRun(range: range, pieceCount: pieceCount)
  }

  private func continues(_ extent: Extent, _ run: Extent) -> Bool {
    extent.fileIndex == run.fileIndex && extent.offset >= run.endOffset
      && extent.offset - run.endOffset < Self.gapByteCount
  }
}
