public import BlockIO
import ModelFormat
import TensorBasics

/// How a ``TensorLoader`` reads.
public struct LoaderOptions: Sendable {
  /// How to read; `.auto` takes the fastest that works here.
  public var backend = StorageBackend.auto
  /// Bytes of one read, a multiple of 4096.
  public var readByteCount = 1 << 20
  /// Reads in flight at most, 1 to ``queueDepthLimit``.
  public var queueDepth = 32
  /// Far more than any drive needs.
  public static let queueDepthLimit = 1024
  /// Longer tensors are streamed in pieces of whole rows of at most so many bytes.
  public var pieceByteCount = 8 << 20
  /// Length of the ring that tensors stream through; nil = as it serves both, at most 64 MiB. What the budget
  /// leaves beside it is for tensors that are loaded. A length below what streaming needs is raised to that.
  public var streamByteCount: Int?
  /// Part of the budget that the caller needs for itself, in addition to what the process holds already.
  public var callerByteCount = 0
  /// Whole copies of the file on other drives; each read is shared among all of them. Copies of a file without
  /// checksums are read whole and compared the first time.
  public var mirrors: [String] = []
  /// What the process is taken to hold; nil = what it does. Tests fix it, because others run beside them.
  package var assumedResidentByteCount: Int?

  public init() {}

  /// ``queueDepth``, where it is in its range.
  var deviceQueueDepth: Int { min(max(1, queueDepth), Self.queueDepthLimit) }
}

/// Where a loader's memory budget goes: a promise on the process's peak resident set from its opening on.
public struct LoaderPlan: Sendable {
  /// The promise.
  public let budgetByteCount: Int
  /// What the process held when the file was open, and a margin for code that has not run yet.
  public let processByteCount: Int
  /// What the caller asked to be left for itself.
  public let callerByteCount: Int
  /// The ring that tensors stream through.
  public let streamByteCount: Int
  /// For tensors that are loaded or prefetched, until they are released.
  public let heldByteCount: Int
  /// Longest piece of a stream.
  public let pieceByteCount: Int
  /// Bytes of one read.
  public let readByteCount: Int
  /// Reads in flight at most.
  public let queueDepth: Int

  /// Code pages, stacks and allocator slack that come after planning.
  private static let marginByteCount = 3 << 20
  /// A ring large enough for any drive.
  private static let usefulStreamByteCount = 64 << 20
  /// Pieces are not made shorter than this to fit a small budget.
  private static let leastPieceByteCount = 256 << 10
  /// A piece in use, one that is ready, and one under way.
  private static let leastPieceCount = 3

  /// Divides `budget`.
  ///
  /// - Parameters:
  ///   - residentByteCount: what the process holds.
  ///   - slackByteCount: most bytes that are read around a piece for alignment and checksums.
  /// - Throws: ``LoaderError/budgetTooSmall(budget:minimum:)``.
  static func make(
    budget: Int, residentByteCount: Int, options: LoaderOptions, tensors: [LoadableTensor],
    slackByteCount: Int
  ) throws(LoaderError) -> LoaderPlan {
    let unit = tensors.lazy.map(\.leastUnitByteCount).max() ?? 1
    let longest = max(unit, tensors.lazy.map(\.partByteCount).max() ?? 1)
    let leastPiece = max(unit, leastPieceByteCount)
    let leastStream = leastPieceCount * (roundedUp(leastPiece) + slackByteCount)
    let process = residentByteCount + marginByteCount
    // More than any budget, and less than overflows.
    let caller = min(max(0, options.callerByteCount), 1 << 60)
    let stated = options.streamByteCount.map { max(leastStream, roundedUp(min($0, 1 << 60))) }
    let minimum = process + caller + (stated ?? leastStream)
    guard budget >= minimum else {
      throw .budgetTooSmall(budget: ByteCount(budget), minimum: ByteCount(minimum))
    }
    let available = budget - process - caller
    let wantedPiece = max(leastPiece, min(options.pieceByteCount, longest))
    let wanted = max(
      usefulStreamByteCount, leastPieceCount * (roundedUp(wantedPiece) + slackByteCount))
    let stream = stated ?? roundedDown(max(leastStream, min(wanted, available / 4 * 3)))
    let piece = min(wantedPiece, max(leastPiece, stream / leastPieceCount - slackByteCount))
    let page = AlignedBuffer.pageByteCount
    return LoaderPlan(
      budgetByteCount: budget, processByteCount: process, callerByteCount: caller,
      streamByteCount: stream, heldByteCount: available - stream, pieceByteCount: piece,
      readByteCount: max(page, roundedDown(min(options.readByteCount, max(64 << 10, stream / 8)))),
      queueDepth: options.deviceQueueDepth)
  }

  private static func roundedUp(_ count: Int) -> Int { AlignedBuffer.roundedUp(count) }
  private static func roundedDown(_ count: Int) -> Int {
    count & ~(AlignedBuffer.pageByteCount - 1)
  }
}
