import InStorageAttention
import TensorBasics
import Testing

/// Simulated times against what no device can beat, on drawn devices.
@Suite struct TimingBoundTests {
  /// A drive, a model and a workload drawn from `seed`.
  struct Drawn {
    var model: ModelParameters
    var drive: DriveParameters
    var mode: AttentionMode
    var context: Int
    var commandCount: Int

    init(seed: UInt64) {
      var generator = SeededGenerator(seed: seed)
      func pick<Value>(_ values: [Value]) -> Value {
        values[Int.random(in: 0..<values.count, using: &generator)]
      }
      let keyValueHeads = pick([1, 2, 8, 40])
      model = ModelParameters(
        layerCount: pick([1, 2, 40]), queryHeadCount: keyValueHeads * pick([1, 4, 8]),
        keyValueHeadCount: keyValueHeads, headDim: pick([64, 128]), weightCount: 1e9)
      drive = pick([.paper, .year2026])
      drive.geometry.channelCount = pick([1, 3, 8, 16])
      drive.geometry.planesPerChannel = pick([1, 4, 16])
      drive.readNanoseconds = pick([0, 20_000, 65_000])
      drive.channelBytesPerSecond *= pick([0.5, 1, 4])
      drive.memoryBytesPerSecond *= pick([0.5, 1, 16])
      drive.engine?.kernelCount = pick([1, 2, 5])
      drive.engine?.headsInFlight = pick([1, 2, 3, 8, 32])
      drive.engine?.scoresPerSecond *= pick([0.1, 1, 100])
      drive.engine?.operationsPerSecond *= pick([0.1, 1, 100])
      mode = pick([.dense, .sparse(compression: 0.125), .sparse(compression: 1)])
      context = Int.random(in: 1...3000, using: &generator)
      commandCount = Int.random(in: 1...2000, using: &generator)
    }

    func timing() throws(TimingError) -> AttentionTiming {
      try AttentionTiming(
        model: model, drive: drive, commandCount: commandCount, context: context, mode: mode)
    }
  }

  /// Of two numbers, up to rounding, the first is not above the second.
  static func atMost(_ a: Double, _ b: Double) -> Bool { a <= b * (1 + 1e-9) }

  @Test(arguments: UInt64(1)...120)
  func attentionTakesAtLeastEveryBound(seed: UInt64) throws {
    let drawn = Drawn(seed: seed)
    let timing = try drawn.timing()
    let engine = try #require(drawn.drive.engine)
    let commands = Double(drawn.commandCount)
    let seconds = timing.nanoseconds / 1e9
    #expect(
      Self.atMost(
        timing.flashByteCount
          / (Double(drawn.drive.geometry.channelCount) * drawn.drive.channelBytesPerSecond), seconds
      ))
    #expect(Self.atMost(timing.flashNanoseconds / 1e9, seconds))
    #expect(
      Self.atMost(
        commands * timing.command.operationCount
          / (Double(engine.kernelCount) * engine.operationsPerSecond), seconds))
    #expect(
      Self.atMost(
        commands * timing.command.softmaxScoreCount
          / (Double(engine.kernelCount) * engine.scoresPerSecond), seconds))
    #expect(
      Self.atMost(
        2 * timing.flashByteCount * timing.command.keptFraction
          / drawn.drive.memoryBytesPerSecond, seconds))
  }

  @Test(arguments: UInt64(1)...60)
  func fasterUnitsTakeNoLonger(seed: UInt64) throws {
    let drawn = Drawn(seed: seed)
    let before = try drawn.timing().nanoseconds
    let changes: [(inout DriveParameters) -> Void] = [
      { $0.channelBytesPerSecond *= 1.3 }, { $0.memoryBytesPerSecond *= 1.3 },
      { $0.readNanoseconds *= 0.7 }, { $0.engine?.operationsPerSecond *= 1.3 },
      { $0.engine?.scoresPerSecond *= 1.3 }, { $0.engine?.filterBytesPerSecond *= 1.3 },
      { $0.engine?.selectedScoresPerSecond *= 1.3 }, { $0.commandNanoseconds *= 0.7 },
    ]
    for (index, change) in changes.enumerated() {
      var faster = drawn
      change(&faster.drive)
      #expect(Self.atMost(try faster.timing().nanoseconds, before), "change \(index)")
    }
  }

  @Test(arguments: UInt64(1)...60)
  func moreChannelsTakeNoLonger(seed: UInt64) throws {
    var drawn = Drawn(seed: seed)
    var last = Double.infinity
    for count in [1, 2, 3, 4, 6, 8, 12, 16, 32] {
      drawn.drive.geometry.channelCount = count
      let nanoseconds = try drawn.timing().nanoseconds
      #expect(Self.atMost(nanoseconds, last), "\(count) channels")
      last = nanoseconds
    }
  }

  @Test(arguments: UInt64(1)...60)
  func fewerCommandsTakeNoLonger(seed: UInt64) throws {
    var drawn = Drawn(seed: seed)
    var last = 0.0
    for count in [1, 2, 3, 10, 100, 1000, 1500, 10_000] {
      drawn.commandCount = count
      let nanoseconds = try drawn.timing().nanoseconds
      #expect(Self.atMost(last, nanoseconds), "\(count) commands")
      last = nanoseconds
    }
  }

  @Test(arguments: UInt64(1)...40)
  func writesTakeAtLeastEveryBound(seed: UInt64) throws {
    let drawn = Drawn(seed: seed)
    let drive = drawn.drive
    for isStream in [false, true] {
      let write = try WriteTiming(
        drive: drive, hostByteCount: 1e4 * Double(drawn.commandCount),
        storedFraction: drawn.mode.storedFraction, isStream: isStream)
      let seconds = write.nanoseconds / 1e9
      let planes = Double(drive.geometry.channelCount * drive.geometry.planesPerChannel)
      let unit = Double(drive.pagesPerProgram * drive.geometry.pageByteCount)
      #expect(Self.atMost(write.hostByteCount / drive.linkBytesPerSecond, seconds))
      #expect(
        Self.atMost(
          write.flashByteCount / (planes * unit) * drive.programNanoseconds / 1e9, seconds))
      #expect(
        Self.atMost(
          write.flashByteCount
            / (Double(drive.geometry.channelCount) * drive.channelBytesPerSecond), seconds))
    }
  }

  @Test func sameArgumentsTakeTheSameTime() throws {
    for seed in UInt64(1)...20 {
      let drawn = Drawn(seed: seed)
      #expect(try drawn.timing() == drawn.timing())
    }
  }
}
