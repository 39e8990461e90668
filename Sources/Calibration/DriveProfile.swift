/// What a drive gave when it was measured, through one back end.
public struct DriveProfile: Sendable, Equatable {
  /// The drive it was measured on.
  public var drive: DriveIdentity
  /// The back end's name as `--io` takes it.
  public var backend: String
  /// The smallest read that brings close to the most bytes per second, with ``queueDepth`` of them.
  public var blockByteCount: Int
  /// Reads in flight at that point.
  public var queueDepth: Int
  /// One block after the other at that point.
  public var bytesPerSecond: Double
  /// Processor time spent on reading, per byte, at that point.
  public var processorSecondsPerByte: Double
  /// The same while all threads multiply: finished reads wait to be replaced then, and the drive's
  /// data passes through the same memory.
  public var bytesPerSecondWhileComputing: Double
  /// Random reads of 4 KiB, 32 in flight.
  public var random4KiBytesPerSecond: Double
  /// Random reads of 32 KiB, 32 in flight.
  public var random32KiBytesPerSecond: Double

  public init(
    drive: DriveIdentity, backend: String, blockByteCount: Int, queueDepth: Int,
    bytesPerSecond: Double, processorSecondsPerByte: Double = 0,
    bytesPerSecondWhileComputing: Double? = nil, random4KiBytesPerSecond: Double = 0,
    random32KiBytesPerSecond: Double = 0
  ) {
    self.drive = drive
    self.backend = backend
    self.blockByteCount = blockByteCount
    self.queueDepth = queueDepth
    self.bytesPerSecond = bytesPerSecond
    self.processorSecondsPerByte = processorSecondsPerByte
    self.bytesPerSecondWhileComputing = bytesPerSecondWhileComputing ?? bytesPerSecond
    self.random4KiBytesPerSecond = random4KiBytesPerSecond
    self.random32KiBytesPerSecond = random32KiBytesPerSecond
  }

  /// Whether every number is one that a drive can have; a cache may hold anything.
  var isPlausible: Bool {
    let rates = [
      bytesPerSecond, bytesPerSecondWhileComputing, random4KiBytesPerSecond,
      random32KiBytesPerSecond,
    ]
    return blockByteCount >= 4096 && blockByteCount <= 16 << 20
      && blockByteCount & (blockByteCount - 1) == 0 && (1...1024).contains(queueDepth)
      && bytesPerSecond >= 1e3 && rates.allSatisfy { (0...1e13).contains($0) }
      && (0...1e-3).contains(processorSecondsPerByte)
  }
}

/// One point of a drive's curve of block size × queue depth.
public struct DrivePoint: Sendable, Equatable {
  public var blockByteCount: Int
  public var queueDepth: Int
  public var bytesPerSecond: Double
  public var processorSecondsPerByte: Double
  /// How far the middle half of its measurements lie apart, over their median; 0 for a single one.
  public var spread: Double

  public init(
    blockByteCount: Int, queueDepth: Int, bytesPerSecond: Double,
    processorSecondsPerByte: Double = 0, spread: Double = 0
  ) {
    self.spread = spread
    self.blockByteCount = blockByteCount
    self.queueDepth = queueDepth
    self.bytesPerSecond = bytesPerSecond
    self.processorSecondsPerByte = processorSecondsPerByte
  }

  /// Memory that reads in flight take.
  public var byteCountInFlight: Int { blockByteCount * queueDepth }

  /// Memory that a run spends on reads in flight at most.
  public static let mostByteCountInFlight = 32 << 20

  /// Shorter reads make shorter regions of arithmetic, which cost more than a drive gives back.
  public static let leastBlockByteCount = 512 << 10

  /// The point to read at: of those within `tolerance` of the fastest, the one with the least memory in flight.
  ///
  /// Of equals it is the one with the largest blocks, whose requests cost least.
  ///
  /// Blocks below ``leastBlockByteCount`` are for files that allow no other.
  ///
  /// - Returns: nil if no point keeps to ``mostByteCountInFlight``.
  public static func choose(_ points: [DrivePoint], tolerance: Double = 0.05) -> DrivePoint? {
    let possible = points.filter { $0.byteCountInFlight <= mostByteCountInFlight }
    let large = possible.filter { $0.blockByteCount >= leastBlockByteCount }
    let points = large.isEmpty ? possible : large
    let fastest = points.map(\.bytesPerSecond).max() ?? 0
    return points.filter { $0.bytesPerSecond >= (1 - tolerance) * fastest }.min {
      ($0.byteCountInFlight, -$0.blockByteCount) < ($1.byteCountInFlight, -$1.blockByteCount)
    }
  }
}

extension DrivePoint {
  /// What repeated measurements of one point say: that of the median, and how far they lie apart.
  ///
  /// - Precondition: there is at least one.
  static func median(of passes: [DrivePoint]) -> DrivePoint {
    let sorted = passes.sorted { $0.bytesPerSecond < $1.bytesPerSecond }
    var point = sorted[sorted.count / 2]
    point.spread = RepeatedRate(sorted.map(\.bytesPerSecond)).spread
    return point
  }

  /// Whether another measurement of the point could change the choice among `points`.
  static func contend(_ points: [DrivePoint]) -> [Bool] {
    let fastest = points.map(\.bytesPerSecond).max() ?? 0
    return points.map { $0.bytesPerSecond * (1 + $0.spread) >= 0.8 * fastest }
  }
}
