import BlockIO
import TensorBasics
import TestSupport
import Testing

@Suite struct ThroughputProbeTests {
  /// A device in memory that records what is asked of it and completes reads last in, first out.
  private final class RecordingDevice: BlockDevice {
    let fileByteCounts: [Int]
    let alignment = 4096
    let capacity = 64
    private var queue: [ReadRequest] = []
    private(set) var offsets: [Int] = []
    private(set) var deepest = 0
    private(set) var touching: [UnsafeMutableRawPointer?] = []
    var failureIndex: Int?

    init(fileByteCount: Int) { fileByteCounts = [fileByteCount] }

    var inFlight: Int { queue.count }
    var statistics: IOStatistics { IOStatistics() }
    var notes: [String] { [] }
    func flush() {}
    func abandonReads() { queue = [] }
    func checkUnchanged() {}

    func submit(_ request: ReadRequest) {
      #expect(!queue.contains { $0.destination.baseAddress == request.destination.baseAddress })
      queue.append(request)
      offsets.append(request.offset)
      deepest = max(deepest, queue.count)
    }

    func reap(waiting: Bool, timeoutMilliseconds: Int?) throws(BlockIOError) -> ReadCompletion? {
      guard waiting || queue.count % 3 == 0, let request = queue.popLast() else { return nil }
      if let failureIndex, offsets.count > failureIndex {
        self.failureIndex = nil
        throw BlockIOError(.read, reason: .system(errno: 5))
      }
      let end = min(fileByteCounts[0], request.offset + request.destination.count)
      return ReadCompletion(tag: request.tag, byteCount: max(0, end - request.offset))
    }
  }

  @Test(arguments: [(1, 1), (4, 3), (16, 16), (64, 5)])
  func `It reads what it says, with the queue full`(depth: Int, fileBlocks: Int) throws {
    let block = 8192
    let device = RecordingDevice(fileByteCount: fileBlocks * block + 100)
    let buffer = try AlignedBuffer(byteCount: depth * block)
    var probe = ThroughputProbe(blockByteCount: block, queueDepth: depth)
    probe.firstBlock = 2
    probe.byteLimit = 100 * block - 1
    let result = try probe.run(device, buffer: buffer.bytes)
    #expect(result.requestCount == 100 && result.byteCount == 100 * block)
    #expect(device.offsets == (0..<100).map { (2 + $0) % fileBlocks * block })
    #expect(device.deepest == depth && device.inFlight == 0)
    #expect(result.latency.quantileNanoseconds(0.5) <= result.latency.quantileNanoseconds(0.99))
  }

  @Test func `Random reads are whole blocks of the file, and the seed names them`() throws {
    let (block, blocks) = (4096, 37)
    let buffer = try AlignedBuffer(byteCount: 8 * block)
    var seen: [[Int]] = []
    for seed in [UInt64(1), 1, 2] {
      let device = RecordingDevice(fileByteCount: blocks * block)
      var probe = ThroughputProbe(blockByteCount: block, queueDepth: 8, randomSeed: seed)
      probe.byteLimit = 500 * block
      #expect(try probe.run(device, buffer: buffer.bytes).byteCount == 500 * block)
      #expect(device.offsets.allSatisfy { $0 % block == 0 && $0 < blocks * block })
      seen.append(device.offsets)
    }
    #expect(seen[0] == seen[1] && seen[0] != seen[2])
    #expect(Set(seen[0]).count == blocks)
  }

  @Test func `A failed read ends it with nothing in flight; time and a flag end it too`() throws {
    let device = RecordingDevice(fileByteCount: 1 << 20)
    let buffer = try AlignedBuffer(byteCount: 4 * 4096)
    var probe = ThroughputProbe(blockByteCount: 4096, queueDepth: 4)
    probe.secondLimit = 1e9
    device.failureIndex = 20
    #expect(throws: BlockIOError.self) { try probe.run(device, buffer: buffer.bytes) }
    #expect(device.inFlight == 0)
    let flag = CancellationFlag()
    flag.raise()
    _ = try probe.run(device, buffer: buffer.bytes, cancellation: flag)
    probe.secondLimit = 0
    #expect(try probe.run(device, buffer: buffer.bytes).requestCount == 1)
    #expect(device.inFlight == 0)
  }

  @Test(arguments: backends)
  func `Every back end gives a file's bytes, the last ones short`(
    backend: StorageBackend
  ) throws {
    let bytes = randomBytes(5000, seed: 1)
    let file = TemporaryFile(bytes, name: "probe")
    let device = try openDevice(paths: [file.path], backend: backend, queueDepth: 4)
    let buffer = try AlignedBuffer(byteCount: 4 * 8192)
    var probe = ThroughputProbe(blockByteCount: 8192, queueDepth: 4)
    probe.byteLimit = 10 * 8192
    let result = try probe.run(device, buffer: buffer.bytes)
    #expect(result.requestCount == 10 && result.byteCount == 10 * 5000)
    #expect(Array(buffer.bytes[..<5000]) == bytes)
  }

  @Test func `Quantiles are upper bounds within an eighth`() {
    var generator = SeededGenerator(seed: 3)
    var histogram = FineLatencyHistogram()
    #expect(histogram.quantileNanoseconds(0.5) == 0)
    let values = (0..<5000).map { _ in Int.random(in: 100...50_000_000, using: &generator) }
    for value in values { histogram.record(nanoseconds: value) }
    for fraction in [0.01, 0.5, 0.99, 1] {
      let exact = values.sorted()[max(0, Int(Double(values.count) * fraction) - 1)]
      let bound = histogram.quantileNanoseconds(fraction)
      #expect(bound >= exact && Double(bound) <= Double(exact) * 1.13 + 1, "\(fraction)")
    }
    histogram.record(nanoseconds: -5)
    histogram.record(nanoseconds: .max)
    #expect(histogram.quantileNanoseconds(1) > 0)
  }
}
