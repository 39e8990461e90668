import BlockIO
import TensorBasics

/// Where parts of tensors lie in the memory that they are read into together.
struct LoadLayout {
  /// A range to read, and where it goes.
  struct Run {
    var range: Extent
    /// First byte in the memory.
    var start: Int
    /// The extents of an image that the range consists of.
    var wholeExtents: Range<Int>?
  }

  let parts: [TensorPart]
  /// In ascending order of their ranges.
  private(set) var runs: [Run] = []
  /// Where each part's bytes lie in the memory, and which rows they are.
  private(set) var ranges: [Range<Int>] = []
  private(set) var rows: [Range<Int>] = []
  /// Memory that it takes.
  private(set) var byteCount = 0

  /// Neighbours are read together, and extents of an image whole, each once.
  ///
  /// - Complexity: O(n log n)
  init(
    _ parts: [TensorPart], of tensors: [LoadableTensor], alignment: Int,
    widen: (Extent) -> (indexes: Range<Int>, range: Extent)?
  ) {
    self.parts = parts
    let extents = parts.map { tensors[$0.tensor].extent(of: $0) }
    let plan = ReadPlan(
      extents.map { $0.byteCount > 0 ? widen($0)?.range ?? $0 : $0 }, alignment: alignment,
      maximumByteCount: 1 << 40, maximumGapByteCount: 4095)
    for read in plan.reads {
      let whole = widen(read.range)
      let range = whole?.range ?? read.range
      runs.append(Run(range: range, start: byteCount, wholeExtents: whole?.indexes))
      byteCount += AlignedBuffer.roundedUp(range.byteCount)
    }
    for (part, extent) in zip(parts, extents) {
      let start = extent.byteCount == 0 ? 0 : place(of: extent)
      ranges.append(start..<start + extent.byteCount)
      let tensor = tensors[part.tensor]
      let first = extent.offset - tensor.extent(ofPart: part.part).offset
      rows.append(tensor.rows(inBytes: first..<first + extent.byteCount))
    }
  }

  /// Where an extent that one of the runs brings lies in the memory: it is the last to begin before it.
  private func place(of extent: Extent) -> Int {
    var (low, high) = (0, runs.count)
    while high - low > 1 {
      let middle = (low + high) / 2
      let range = runs[middle].range
      if (range.fileIndex, range.offset) <= (extent.fileIndex, extent.offset) {
        low = middle
      } else {
        high = middle
      }
    }
    return runs[low].start + (extent.offset - runs[low].range.offset)
  }
}

/// Parts of tensors on their way into memory of their own, or into the caller's.
final class PendingLoad {
  /// Tags of loads' reads have this bit, those of a stream's have not.
  static let tagBit: UInt64 = 1 << 62

  let layout: LoadLayout
  /// The loader's memory; nil where it is the caller's.
  let held: HeldMemory?
  private let bytes: UnsafeMutableRawBufferPointer
  let tag: UInt64
  private var runIndex = 0
  private var submittedByteCount = 0
  private var pendingReadCount = 0
  private(set) var failure: BlockIOError?

  init(_ layout: LoadLayout, in memory: HeldMemory, tag: UInt64) {
    self.layout = layout
    held = memory
    bytes = memory.bytes
    self.tag = tag
  }

  /// - Parameter memory: the caller's, which must stay valid until the load is complete.
  init(_ layout: LoadLayout, into memory: UnsafeMutableRawBufferPointer, tag: UInt64) {
    self.layout = layout
    held = nil
    bytes = memory
    self.tag = tag
  }

  /// Whether every read was submitted.
  var isSubmitted: Bool { runIndex == layout.runs.count || failure != nil }
  /// Whether every byte has come, or will not.
  var isComplete: Bool { isSubmitted && pendingReadCount == 0 }

  /// The first byte that a run's range goes to.
  func address(of run: LoadLayout.Run) -> UnsafeRawPointer? {
    UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[run.start...]).baseAddress
  }

  /// The next read; there is one while ``isSubmitted`` is false.
  func nextRead(limit: Int) -> ReadRequest {
    let run = layout.runs[runIndex]
    let part = ReadCut.next(of: run.range.byteCount, after: submittedByteCount, limit: limit)
    let start = run.start + part.lowerBound
    submittedByteCount = part.upperBound
    if submittedByteCount >= run.range.byteCount {
      runIndex += 1
      submittedByteCount = 0
    }
    pendingReadCount += 1
    return ReadRequest(
      fileIndex: run.range.fileIndex, offset: run.range.offset + part.lowerBound,
      destination: UnsafeMutableRawBufferPointer(rebasing: bytes[start..<start + part.count]),
      tag: tag)
  }

  /// Submits no further read.
  func abandon() { runIndex = layout.runs.count }

  func completed(_ error: BlockIOError?) {
    pendingReadCount -= 1
    if let error { failure = failure ?? error }
  }
}
