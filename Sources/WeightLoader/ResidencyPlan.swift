public import ModelFormat
public import TensorBasics

/// The order in which a sweep over a model consumes its matrices.
///
/// Segments let a sweep leave something out: a decoder's body is one segment, its output head
/// another that only the last chunk of a prompt needs.
public struct StreamOrder: Sendable {
  /// Tensor indexes in the order of their use, by segment.
  public var segments: [[Int]]

  public init(segments: [[Int]]) { self.segments = segments }
}

/// Which weights stay in memory and which are read again for every token.
///
/// A decoder scans its weights cyclically, and for a cyclic scan the best cache is a fixed set: LRU
/// below one cycle never hits. Pinned and streamed runs alternate through the depth of the model in
/// proportion, so that the drive reads on while pinned layers compute.
///
/// Some streamed runs stay for a while in memory that somebody else has no use for at the time, and leave it when he has
/// (``WeightStream/borrow(_:)``).
public struct ResidencyPlan: Sendable {
  /// Neighbouring pieces that one request reads.
  public struct Run: Sendable {
    /// Indexes into ``ResidencyPlan/pieces``.
    public let pieces: Range<Int>
    public let segment: Int
    public let fileIndex: Int
    /// Offset of the read, a multiple of the device's alignment.
    public let offset: Int
    /// Bytes of the read, a multiple of the device's alignment.
    public let byteCount: Int
    /// Offset in pinned memory; nil = streamed.
    public let pinnedOffset: Int?
    /// Offset in borrowed memory; nil = the run never stays there.
    public fileprivate(set) var borrowedOffset: Int?
    public var isPinned: Bool { pinnedOffset != nil }
  }

  /// Every piece, in the order of use.
  public let pieces: [WeightPiece]
  /// For each tensor of the model its pieces; empty for tensors outside the order.
  public let piecesOfTensor: [Range<Int>]
  /// Every run, in the order of use.
  public private(set) var runs: [Run]
  /// The runs of each segment.
  public let runsOfSegment: [Range<Int>]
  /// The run of each piece.
  public let runOfPiece: [Int]
  /// Memory for pinned runs.
  public let pinnedByteCount: Int
  /// Memory that streamed runs pass through; 0 when nothing is streamed.
  public let stagingByteCount: Int
  /// Bytes read in one sweep over all segments once pinned runs are in memory, and none stay in borrowed memory.
  public let streamedByteCount: Int
  /// Streamed runs that stay in borrowed memory as far as there is some: from the first on, one after the other.
  public private(set) var borrowers: [Int] = []
  /// Memory for all of them.
  public private(set) var borrowableByteCount = 0

  /// Bytes that a sweep over all segments consumes, from memory and from the drive.
  public var sweepByteCount: Int { pinnedByteCount + streamedByteCount }

  /// Whether a tensor's pieces are pinned one after the other, as they lie in the file.
  func isContiguous(_ tensor: Int) -> Bool {
    guard let first = piecesOfTensor[tensor].first, let start = homeAddress(first) else {
      return false
    }
    return piecesOfTensor[tensor].allSatisfy {
      homeAddress($0) == start + (pieces[$0].offset - pieces[first].offset)
    }
  }

  /// Offset of a pinned piece in pinned memory.
  private func homeAddress(_ piece: Int) -> Int? {
    let run = runs[runOfPiece[piece]]
    return run.pinnedOffset.map { $0 + (pieces[piece].offset - run.offset) }
  }

  /// How many runs are pinned.
  public var pinnedRunCount: Int { runs.lazy.filter(\.isPinned).count }

  public var isFullyPinned: Bool { streamedByteCount == 0 }
  /// Memory the plan needs.
  public var byteCount: Int { pinnedByteCount + stagingByteCount }

  /// How large reads and the staging ring are.
  public struct Options: Sendable {
    /// Upper bound of one read, unless a single row group is larger.
    public var readByteCount: Int
    /// Memory for reads ahead of use.
    public var stagingByteCount: Int

    public init(readByteCount: Int = 1 << 20, stagingByteCount: Int = 24 << 20) {
      self.readByteCount = readByteCount
      self.stagingByteCount = stagingByteCount
    }
  }

  /// Plans `model` under `budget` bytes for weights.
  ///
  /// - Parameters:
  ///   - order: the matrices of a sweep, in order of use.
  ///   - budget: memory for pinned weights and staging together.
  ///   - alignment: what the device's reads must be aligned to.
  ///   - borrowable: memory beside the budget that may come to be borrowed.
  /// - Throws: ``LoaderError/budgetTooSmall(budget:minimum:)`` below ``minimumByteCount(model:order:options:alignment:)``.
  public static func make(
    model: ModelDescription, order: StreamOrder, budget: Int, options: Options = Options(),
    alignment: Int = AlignedBuffer.pageByteCount, borrowable: Int = 0
  ) throws(LoaderError) -> ResidencyPlan {
    let draft = Draft(model: model, order: order, options: options, alignment: alignment)
    if draft.byteCount <= budget {
      return ResidencyPlan(draft, pinnedBudget: draft.byteCount, stagingByteCount: 0)
    }
    let minimum = draft.minimumStagingByteCount
    guard budget >= minimum else {
      throw .budgetTooSmall(
        budget: ByteCount(budget), minimum: ByteCount(min(draft.byteCount, minimum)))
    }
    let staging = min(max(minimum, min(options.stagingByteCount, budget / 2)), budget)
    var plan = ResidencyPlan(draft, pinnedBudget: budget - staging, stagingByteCount: staging)
    plan.chooseBorrowers(within: borrowable)
    return plan
  }

  /// The smallest budget that ``make(model:order:budget:options:alignment:borrowable:)`` accepts.
  public static func minimumByteCount(
    model: ModelDescription, order: StreamOrder, options: Options = Options(),
    alignment: Int = AlignedBuffer.pageByteCount
  ) -> Int {
    let draft = Draft(model: model, order: order, options: options, alignment: alignment)
    return min(draft.byteCount, draft.minimumStagingByteCount)
  }

  private init(_ draft: Draft, pinnedBudget: Int, stagingByteCount: Int) {
    var pinnedOffset = 0
    var streamed = 0
    var credit = 0.0
    let share = Double(pinnedBudget) / Double(max(1, draft.byteCount))
    var runs: [Run] = []
    runs.reserveCapacity(draft.runs.count)
    for run in draft.runs {
      credit += share * Double(run.byteCount)
      let pins =
        credit >= Double(run.byteCount) * 0.5 && pinnedOffset + run.byteCount <= pinnedBudget
      runs.append(
        Run(
          pieces: run.pieces, segment: run.segment, fileIndex: run.fileIndex, offset: run.offset,
          byteCount: run.byteCount, pinnedOffset: pins ? pinnedOffset : nil))
      if pins {
        pinnedOffset += run.byteCount
        credit -= Double(run.byteCount)
      } else {
        streamed += run.byteCount
      }
    }
    self.runs = runs
    pieces = draft.pieces
    piecesOfTensor = draft.piecesOfTensor
    runsOfSegment = draft.runsOfSegment
    var runOfPiece = [Int](repeating: 0, count: draft.pieces.count)
    for (index, run) in runs.enumerated() {
      for piece in run.pieces { runOfPiece[piece] = index }
    }
    self.runOfPiece = runOfPiece
    pinnedByteCount = pinnedOffset
    streamedByteCount = streamed
    self.stagingByteCount = streamed == 0 ? 0 : stagingByteCount
  }

  /// Chooses streamed runs for borrowed memory of at most `byteCount`, such that the first so many of them are spread
  /// through the depth of the model, as pinned ones are.
  private mutating func chooseBorrowers(within byteCount: Int) {
    guard byteCount > 0, streamedByteCount > 0 else { return }
    let share = min(1, Double(byteCount) / Double(streamedByteCount))
    var credit = 0.0
    var chosen: [Int] = []
    for (index, run) in runs.enumerated() where !run.isPinned {
      credit += share * Double(run.byteCount)
      guard credit >= Double(run.byteCount) * 0.5 else { continue }
      credit -= Double(run.byteCount)
      chosen.append(index)
    }
    for place in Self.spread(chosen.count)
    where borrowableByteCount + runs[chosen[place]].byteCount <= byteCount {
      runs[chosen[place]].borrowedOffset = borrowableByteCount
      borrowableByteCount += runs[chosen[place]].byteCount
      borrowers.append(chosen[place])
    }
  }

  /// 0..<count in the order of their reversed bits: the first so many are far apart (van der Corput's sequence).
  private static func spread(_ count: Int) -> [Int] {
    let width = max(1, Int.bitWidth - max(0, count - 1).leadingZeroBitCount)
    return (0..<(1 << width)).lazy
      .map { Int(UInt(bitPattern: $0).reversedBits >> (UInt.bitWidth - width)) }
      .filter { $0 < count }
  }
}

extension UInt {
  fileprivate var reversedBits: UInt {
    var (value, result) = (self, UInt(0))
    for _ in 0..<UInt.bitWidth {
      result = result << 1 | value & 1
      value >>= 1
    }
    return result
  }
}

/// Pieces and runs before it is decided which are pinned.
private struct Draft {
  struct Run {
    var pieces: Range<Int>
    var segment: Int
    var fileIndex: Int
    var offset: Int
    var byteCount: Int
  }

  var pieces: [WeightPiece] = []
  var piecesOfTensor: [Range<Int>]
  var runs: [Run] = []
  var runsOfSegment: [Range<Int>] = []
  /// Sum of all runs.
  var byteCount = 0

  /// Two runs: one in use while the next one lands.
  var minimumStagingByteCount: Int { 2 * (runs.map(\.byteCount).max() ?? 0) }

  init(
    model: ModelDescription, order: StreamOrder, options: ResidencyPlan.Options, alignment: Int
  ) {
    let cutter = PieceCutter(targetByteCount: options.readByteCount)
    piecesOfTensor = [Range<Int>](repeating: 0..<0, count: model.tensors.count)
    for (segment, tensors) in order.segments.enumerated() {
      let firstRun = runs.count
      for tensor in tensors {
        let first = pieces.count
        for piece in cutter.cut(model.tensors[tensor], tensor: tensor, alignment: alignment) {
          append(
            piece, segment: segment, firstRun: firstRun, options: options, alignment: alignment)
        }
        piecesOfTensor[tensor] = first..<pieces.count
      }
      runsOfSegment.append(firstRun..<runs.count)
    }
    byteCount = runs.reduce(0) { $0 + $1.byteCount }
  }

  /// Adds a piece to the last run if it follows it directly, else begins a new one.
  private mutating func append(
    _ piece: WeightPiece, segment: Int, firstRun: Int, options: ResidencyPlan.Options,
    alignment: Int
  ) {
    let index = pieces.count
    pieces.append(piece)
    let start = piece.offset / alignment * alignment
    let end = (piece.offset + piece.byteCount + alignment - 1) / alignment * alignment
    if runs.count > firstRun, var last = runs.last, last.fileIndex == piece.fileIndex,
      case let previous = pieces[index - 1], piece.offset >= previous.offset + previous.byteCount,
      start <= last.offset + last.byteCount, end - last.offset <= options.readByteCount
    {
      last.pieces = last.pieces.lowerBound..<(index + 1)
      last.byteCount = end - last.offset
      runs[runs.count - 1] = last
      return
    }
    runs.append(
      Run(
        pieces: index..<(index + 1), segment: segment, fileIndex: piece.fileIndex, offset: start,
        byteCount: end - start))
  }
}
