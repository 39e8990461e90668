/// What a device has done, for reports and for judging how busy the drive was.
public struct IOStatistics: Sendable {
  /// Bytes the kernel delivered, alignment overhead and repeated parts included.
  public var bytesRead = 0
  /// Completed reads, failed ones included.
  public var requests = 0
  /// Times a read was continued or repeated (short results, EINTR, EAGAIN).
  public var retries = 0
  /// Time with at least one read submitted and not yet reaped.
  public var busyNanoseconds = 0
  /// Time the caller slept in `reap`.
  public var waitNanoseconds = 0
  /// Integral of the number of reads in flight over time.
  public var depthNanoseconds = 0
  /// From submission to reaping.
  public var latency = LatencyHistogram()

  public init() {}

  /// Mean number of reads in flight while there were any.
  public var meanQueueDepth: Double {
    busyNanoseconds == 0 ? 0 : Double(depthNanoseconds) / Double(busyNanoseconds)
  }

  /// Bytes per second of busy time.
  public var bytesPerSecond: Double {
    busyNanoseconds == 0 ? 0 : Double(bytesRead) / Double(busyNanoseconds) * 1e9
  }

  /// What happened after `earlier`, an older snapshot of the same device.
  public func since(_ earlier: IOStatistics) -> IOStatistics {
    var difference = self
    difference.bytesRead -= earlier.bytesRead
    difference.requests -= earlier.requests
    difference.retries -= earlier.retries
    difference.busyNanoseconds -= earlier.busyNanoseconds
    difference.waitNanoseconds -= earlier.waitNanoseconds
    difference.depthNanoseconds -= earlier.depthNanoseconds
    difference.latency.subtract(earlier.latency)
    return difference
  }
}

/// Counts of durations in powers of two: bucket `i` holds those of 2^i up to 2^(i+1) nanoseconds.
public struct LatencyHistogram: Sendable {
  /// Buckets; the last also holds everything longer (over nine minutes).
  public static let bucketCount = 40

  private var buckets: [40 of Int] = .init(repeating: 0)

  public init() {}

  /// Durations in bucket `index`.
  public subscript(index: Int) -> Int { buckets[index] }

  /// All durations recorded.
  public var count: Int {
    var sum = 0
    for index in 0..<Self.bucketCount { sum += buckets[index] }
    return sum
  }

  /// Counts one duration.
  public mutating func record(nanoseconds: Int) {
    let bucket = Int.bitWidth - 1 - max(nanoseconds, 1).leadingZeroBitCount
    buckets[min(bucket, Self.bucketCount - 1)] += 1
  }

  /// An upper bound, within a factor of two, of the `fraction` quantile; nil if nothing was
  /// recorded.
  public func quantileNanoseconds(_ fraction: Double) -> Int? {
    let total = count
    guard total > 0 else { return nil }
    let rank = max(1, Int((Double(total) * min(max(fraction, 0), 1)).rounded(.up)))
    var seen = 0
    for index in 0..<Self.bucketCount {
      seen += buckets[index]
      if seen >= rank { return 1 << (index + 1) }
    }
    return 1 << Self.bucketCount
  }

  fileprivate mutating func subtract(_ other: LatencyHistogram) {
    for index in 0..<Self.bucketCount { buckets[index] -= other.buckets[index] }
  }
}
