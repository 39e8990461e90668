public import BlockIO
import Glibc
public import TensorBasics

/// Measures a drive through one file on it.
///
/// Reads go through one device and one buffer, and on through the file from one point to the next, so
/// that no point finds in some cache what another one read. A file smaller than what a measurement
/// reads may still be served from a cache below the operating system.
public struct DriveMeasurement: ~Copyable {
  /// What reads; nothing is in flight between calls.
  public let device: any BlockDevice
  private let buffer: AlignedBuffer
  private let backend: StorageBackend
  private let drive: DriveIdentity
  private let cancellation: CancellationFlag
  /// Where in the file the next point begins.
  private var offset = 0

  /// Block sizes of a curve, in bytes.
  public static let blockByteCounts = (16...22).map { 1 << $0 }
  private static let passCount = 3
  /// Queue depths of a curve.
  public static let queueDepths = [1, 2, 4, 8, 16, 32, 64]

  /// Opens `path`, which has at least one byte, and reserves at most `memoryByteCount` for reads in
  /// flight.
  ///
  /// - Throws: `BlockIOError` for a file that cannot be opened or is empty, and if there is no
  ///   memory.
  public init(
    path: String, backend: StorageBackend, memoryByteCount: Int = 32 << 20,
    cancellation: CancellationFlag = CancellationFlag()
  ) throws(BlockIOError) {
    let device = try openDevice(paths: [path], backend: backend, queueDepth: 64)
    guard device.fileByteCounts[0] > 0 else {
      throw BlockIOError(.read, path: path, offset: 0, byteCount: 1, reason: .truncated)
    }
    guard let drive = DriveIdentity(ofFileAt: path) else {
      throw BlockIOError(.inspect, path: path, reason: .system(errno: errno))
    }
    // Staging memory prefers huge pages as well, and they make a difference to the drive.
    let buffer: AlignedBuffer
    do {
      buffer = try AlignedBuffer(byteCount: max(1 << 20, memoryByteCount), prefersHugePages: true)
    } catch {
      throw BlockIOError(
        .allocate, path: path, byteCount: memoryByteCount, reason: .system(errno: error.errno))
    }
    device.register(buffer.bytes)
    self.device = device
    self.buffer = buffer
    self.backend = backend
    self.drive = drive
    self.cancellation = cancellation
  }

  /// Whether a point's reads fit the memory, the device and the file.
  public func allows(blockByteCount: Int, queueDepth: Int) -> Bool {
    blockByteCount * queueDepth <= buffer.byteCount && queueDepth <= device.capacity
      && (blockByteCount <= device.fileByteCounts[0] || blockByteCount == Self.blockByteCounts[0])
  }

  /// Reads at one point for `seconds`.
  public mutating func probe(
    blockByteCount: Int, queueDepth: Int, isRandom: Bool = false, seconds: Double
  ) throws(BlockIOError) -> ThroughputProbe.Measurement {
    var probe = ThroughputProbe(
      blockByteCount: blockByteCount, queueDepth: queueDepth,
      randomSeed: isRandom ? UInt64(offset) : nil)
    probe.cyclesThroughBuffer = true
    probe.firstBlock = offset / blockByteCount
    probe.secondLimit = seconds
    let measurement = try probe.run(device, buffer: buffer.bytes, cancellation: cancellation)
    offset += measurement.byteCount
    return measurement
  }

  /// Measures every allowed pair of block size and queue depth three times and takes each pair's median.
  ///
  /// The orders are shuffled: a drive's speed drifts, and one pass in order would show that instead.
  ///
  /// Pairs that may be chosen are measured again, up to `mostPassCount` times in all, until the choice's
  /// ``DrivePoint/spread`` is small.
  ///
  /// - Parameter progress: is told what share of the reads is done, if no pair is measured again.
  public mutating func curve(
    blockByteCounts: [Int] = DriveMeasurement.blockByteCounts,
    queueDepths: [Int] = DriveMeasurement.queueDepths, secondsPerPoint: Double,
    mostPassCount: Int = 3, progress: (_ fraction: Double) -> Void = { _ in }
  ) throws(BlockIOError) -> [DrivePoint] {
    let pairs = blockByteCounts.flatMap { block in
      queueDepths.filter { allows(blockByteCount: block, queueDepth: $0) }.map { (block, $0) }
    }
    var results = [[DrivePoint]](repeating: [], count: pairs.count)
    var generator = SeededGenerator(seed: 0)
    var done = 0
    for pass in 0..<max(Self.passCount, mostPassCount) {
      var indices = Array(pairs.indices)
      if pass >= Self.passCount {
        let points = results.map(DrivePoint.median)
        guard let choice = DrivePoint.choose(points), choice.spread > Self.smallSpread,
          !cancellation.isRaised
        else { break }
        let contend = DrivePoint.contend(points)
        indices.removeAll { !contend[$0] }
      }
      for index in indices.shuffled(using: &generator) {
        let (block, depth) = pairs[index]
        let result = try probe(
          blockByteCount: block, queueDepth: depth,
          seconds: secondsPerPoint / Double(Self.passCount))
        results[index].append(
          DrivePoint(
            blockByteCount: block, queueDepth: depth, bytesPerSecond: result.bytesPerSecond,
            processorSecondsPerByte: result.processorSecondsPerByte))
        done += 1
        progress(min(1, Double(done) / Double(pairs.count * Self.passCount)))
      }
    }
    return results.map(DrivePoint.median)
  }

  /// Spread of a choice that needs no further pass.
  private static let smallSpread = 0.1

  /// The speed at `profile`'s point while all threads multiply weights of `kind`; 0.5 s.
  public mutating func bytesPerSecond(
    at profile: DriveProfile, whileComputing compute: ComputeMeasurement, _ kind: TokenWork.Weights
  ) throws(BlockIOError) -> Double {
    var probe = ThroughputProbe(
      blockByteCount: profile.blockByteCount, queueDepth: profile.queueDepth)
    probe.cyclesThroughBuffer = true
    probe.firstBlock = offset / profile.blockByteCount
    probe.secondLimit = 0.5
    let measurement = try probe.run(
      device, buffer: buffer.bytes, cancellation: cancellation,
      meanwhile: compute.steadyWork(kind))
    offset += measurement.byteCount
    return min(measurement.bytesPerSecond, profile.bytesPerSecond)
  }

  /// The drive's profile, reading at the point that `points` suggest; about 1.8 s.
  public mutating func profile(choosingFrom points: [DrivePoint]) throws(BlockIOError)
    -> DriveProfile
  {
    let choice =
      DrivePoint.choose(points)
      ?? DrivePoint(
        blockByteCount: Self.blockByteCounts[0], queueDepth: 1, bytesPerSecond: 0)
    let main = try probe(
      blockByteCount: choice.blockByteCount, queueDepth: choice.queueDepth, seconds: 1.5)
    let depth = min(32, device.capacity)
    let small = try probe(
      blockByteCount: 4 << 10, queueDepth: depth, isRandom: true, seconds: 0.15)
    let medium = try probe(
      blockByteCount: 32 << 10, queueDepth: min(depth, buffer.byteCount / (32 << 10)),
      isRandom: true, seconds: 0.15)
    return DriveProfile(
      drive: drive, backend: backend.rawValue, blockByteCount: choice.blockByteCount,
      queueDepth: choice.queueDepth, bytesPerSecond: main.bytesPerSecond,
      processorSecondsPerByte: main.processorSecondsPerByte,
      random4KiBytesPerSecond: small.bytesPerSecond,
      random32KiBytesPerSecond: medium.bytesPerSecond)
  }

  /// A profile from a short curve of the points that matter to streaming; about 2.9 s, and up to 2.2 s more where
  /// measurements differ.
  ///
  /// - Returns: the profile, and the ``DrivePoint/spread`` of its point.
  public mutating func shortProfile() throws(BlockIOError) -> (DriveProfile, spread: Double) {
    let points = try curve(
      blockByteCounts: [512 << 10, 1 << 20, 2 << 20], queueDepths: [8, 16, 32],
      secondsPerPoint: 0.12, mostPassCount: 9)
    return (try profile(choosingFrom: points), DrivePoint.choose(points)?.spread ?? 0)
  }
}
