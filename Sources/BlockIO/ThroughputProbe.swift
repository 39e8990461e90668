import Glibc
public import TensorBasics

/// Reads one file through a device as fast as possible, to measure the drive.
///
/// The queue is kept full: each completion is replaced at once, and replacements go out a few with one
/// system call.
public struct ThroughputProbe: Sendable {
  /// Bytes of one read, a multiple of the device's alignment.
  public var blockByteCount: Int
  /// Reads in flight, at most the device's capacity.
  public var queueDepth: Int
  /// Seed of uniformly random offsets, multiples of the block; nil = one block after the other,
  /// from the start again at the file's end.
  public var randomSeed: UInt64?
  /// The first block that is read one after the other, modulo those in the file.
  public var firstBlock = 0
  /// Stop after so many bytes, rounded up to whole blocks.
  public var byteLimit: Int?
  /// Begin no read after so many seconds.
  public var secondLimit: Double?
  /// Whether reads go through all of the buffer, as through a staging ring, or only through as much as is in flight.
  ///
  /// A few MiB stay in the processor's caches, and a virtual drive is faster then.
  public var cyclesThroughBuffer = false

  public init(blockByteCount: Int, queueDepth: Int, randomSeed: UInt64? = nil) {
    self.blockByteCount = blockByteCount
    self.queueDepth = queueDepth
    self.randomSeed = randomSeed
  }

  /// Memory that reads land in.
  public var bufferByteCount: Int { blockByteCount * queueDepth }

  /// What a probe measured.
  public struct Measurement: Sendable {
    /// Bytes that came from the file.
    public var byteCount = 0
    public var requestCount = 0
    /// From the first submission to the last completion.
    public var seconds = 0.0
    /// Processor time of this process meanwhile, user and system.
    public var processorSeconds = 0.0
    /// From submission to completion of each read.
    public var latency = FineLatencyHistogram()

    public init() {}

    public var bytesPerSecond: Double { seconds > 0 ? Double(byteCount) / seconds : 0 }
    public var processorSecondsPerByte: Double {
      byteCount > 0 ? processorSeconds / Double(byteCount) : 0
    }

    /// Adds what another probe measured, after this one.
    public static func += (sum: inout Self, other: Self) {
      sum.byteCount += other.byteCount
      sum.requestCount += other.requestCount
      sum.seconds += other.seconds
      sum.processorSeconds += other.processorSeconds
      sum.latency += other.latency
    }
  }

  /// Reads file 0 of `device` into `buffer` until a limit is reached; a probe has at least one.
  ///
  /// - Parameters:
  ///   - buffer: ``bufferByteCount`` bytes, page-aligned; registered by the caller, once.
  ///   - cancellation: raised, it ends the probe early.
  ///   - meanwhile: work of the caller's between looks at the queue, as a decoder has it; without it
  ///     the caller sleeps until a read is done.
  /// - Precondition: nothing is in flight and the file is not empty.
  /// - Throws: the error of the first failed read, after the others have landed.
  public func run(
    _ device: any BlockDevice, buffer: UnsafeMutableRawBufferPointer,
    cancellation: CancellationFlag = CancellationFlag(), meanwhile: (() -> Void)? = nil
  ) throws(BlockIOError) -> Measurement {
    precondition(byteLimit != nil || secondLimit != nil, "a probe needs an end")
    precondition(buffer.count >= bufferByteCount, "the buffer holds every read in flight")
    precondition(queueDepth <= device.capacity && device.inFlight == 0)
    var run = Run(self, device, buffer)
    let processorStart = Self.processorSeconds()
    do throws(BlockIOError) {
      for _ in 0..<queueDepth where try !run.submit() { break }
      try device.flush()
      while device.inFlight > 0 {
        if cancellation.isRaised { run.isEnding = true }
        meanwhile?()
        guard
          var done = try device.reap(
            waiting: meanwhile == nil || run.isEnding, timeoutMilliseconds: 100)
        else { continue }
        var replaced = 0
        while true {
          try run.replace(done)
          replaced += 1
          // A drive that waits for a whole queue's replacements idles where reads are short.
          if replaced % Self.submissionBatch == 0 { try device.flush() }
          guard let next = try device.reap(waiting: false, timeoutMilliseconds: nil) else { break }
          done = next
        }
      }
    } catch {
      device.drain()
      throw error
    }
    run.measurement.seconds = Double(run.lastNanoseconds - run.startNanoseconds) / 1e9
    run.measurement.processorSeconds = Self.processorSeconds() - processorStart
    return run.measurement
  }

  /// Replacements that go out with one system call.
  private static let submissionBatch = 4

  private static func processorSeconds() -> Double {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    return Double(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
      + Double(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6
  }
}

/// A probe under way.
private struct Run {
  let probe: ThroughputProbe
  let device: any BlockDevice
  let buffer: UnsafeMutableRawBufferPointer
  let blockCount: Int
  let startNanoseconds = monotonicNanoseconds()
  let endNanoseconds: Int
  /// Submission of each slot's read.
  var began: [Int]
  /// Slots of the buffer that are free, the one free for longest first: a ring.
  private var freeSlots: [Int]
  private var firstFree = 0
  private var freeCount: Int
  var submittedCount = 0
  var generator: SeededGenerator
  var lastNanoseconds: Int
  /// Whether no further read begins.
  var isEnding = false
  var measurement = ThroughputProbe.Measurement()

  init(
    _ probe: ThroughputProbe, _ device: any BlockDevice, _ buffer: UnsafeMutableRawBufferPointer
  ) {
    self.probe = probe
    self.device = device
    self.buffer = buffer
    blockCount = max(1, device.fileByteCounts[0] / probe.blockByteCount)
    let slotCount =
      probe.cyclesThroughBuffer ? buffer.count / probe.blockByteCount : probe.queueDepth
    began = [Int](repeating: 0, count: slotCount)
    freeSlots = Array(0..<slotCount)
    freeCount = slotCount
    generator = SeededGenerator(seed: probe.randomSeed ?? 0)
    lastNanoseconds = startNanoseconds
    let seconds = min(max(probe.secondLimit ?? 1e6, 0), 1e6)
    endNanoseconds = startNanoseconds + Int(seconds * 1e9)
  }

  /// Begins the next read; false if the probe is at its end.
  mutating func submit() throws(BlockIOError) -> Bool {
    let now = monotonicNanoseconds()
    if let limit = probe.byteLimit, submittedCount >= (limit - 1) / probe.blockByteCount + 1 {
      isEnding = true
    }
    // One read at least, so that there is something to measure.
    if now >= endNanoseconds, submittedCount > 0 { isEnding = true }
    guard !isEnding else { return false }
    let block =
      probe.randomSeed == nil
      ? (probe.firstBlock + submittedCount) % blockCount
      : Int.random(in: 0..<blockCount, using: &generator)
    let slot = freeSlots[firstFree]
    firstFree = (firstFree + 1) % freeSlots.count
    freeCount -= 1
    began[slot] = now
    submittedCount += 1
    try device.submit(
      ReadRequest(
        fileIndex: 0, offset: block * probe.blockByteCount,
        destination: UnsafeMutableRawBufferPointer(
          rebasing: buffer[slot * probe.blockByteCount..<(slot + 1) * probe.blockByteCount]),
        tag: UInt64(slot)))
    return true
  }

  /// Counts a completion and begins another read in its place.
  mutating func replace(_ completion: ReadCompletion) throws(BlockIOError) {
    let slot = Int(completion.tag)
    lastNanoseconds = monotonicNanoseconds()
    measurement.byteCount += completion.byteCount
    measurement.requestCount += 1
    measurement.latency.record(nanoseconds: lastNanoseconds - began[slot])
    freeSlots[(firstFree + freeCount) % freeSlots.count] = slot
    freeCount += 1
    _ = try submit()
  }
}

/// Counts of durations in steps of an eighth of a power of two, for quantiles within 13 %.
public struct FineLatencyHistogram: Sendable {
  private var buckets = [Int](repeating: 0, count: 64 * 8)

  public init() {}

  /// Counts one duration.
  public mutating func record(nanoseconds: Int) {
    let value = min(max(8, nanoseconds), 1 << 60)
    let exponent = Int.bitWidth - 1 - value.leadingZeroBitCount
    buckets[exponent * 8 + (value >> (exponent - 3)) & 7] += 1
  }

  /// Adds the durations of another histogram.
  public static func += (sum: inout Self, other: Self) {
    for index in sum.buckets.indices { sum.buckets[index] += other.buckets[index] }
  }

  /// An upper bound of the `fraction` quantile in nanoseconds; 0 if nothing was recorded.
  public func quantileNanoseconds(_ fraction: Double) -> Int {
    let total = buckets.reduce(0, +)
    let rank = max(1, Int((Double(total) * min(max(fraction, 0), 1)).rounded(.up)))
    var seen = 0
    for (index, count) in buckets.enumerated() where count > 0 {
      seen += count
      if seen >= rank { return (index % 8 + 9) << (index / 8 - 3) }
    }
    return 0
  }
}
