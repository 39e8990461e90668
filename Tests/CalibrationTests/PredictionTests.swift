import Calibration
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

@Suite struct PredictionTests {
  private static let kind = TokenWork.Weights(type: .q4_0, layout: .interleaved)

  private func drive(_ bytesPerSecond: Double, processor: Double = 0) -> DriveProfile {
    DriveProfile(
      drive: DriveIdentity(major: 1, minor: 2, fileSystem: "ext4", model: "", sectorCount: 0),
      backend: "auto", blockByteCount: 1 << 20, queueDepth: 16, bytesPerSecond: bytesPerSecond,
      processorSecondsPerByte: processor)
  }

  private func compute(memory: Double, product: Double, region: Double = 0) -> ComputeProfile {
    ComputeProfile(
      processor: "test", threadCount: 2, instructionSet: "scalar", memoryBytesPerSecond: memory,
      regionSeconds: region,
      products: ElementType.allCases.flatMap { type in
        [RowLayout.interleaved, .rowMajor].map {
          ComputeProfile.ProductRate(
            type: type, layout: $0, decodeBytesPerSecond: product,
            prefillOperationsPerSecond: 1e11)
        }
      })
  }

  private func work(streamed: Int, weights: Int) -> TokenWork {
    var work = TokenWork()
    work.streamedByteCount = streamed
    work.weightByteCounts[Self.kind] = weights
    work.operationCounts[Self.kind] = Double(weights) * 4
    return work
  }

  @Test func `The limit is what takes longest, by its name`() throws {
    let (slow, fast) = (drive(1e9), drive(1e11))
    let balanced = compute(memory: 1e10, product: 9e9)
    let heavy = compute(memory: 1e11, product: 9e9)
    let token = work(streamed: 2_000_000_000, weights: 9_000_000_000)
    let onDrive = try #require(SpeedPrediction(token, drive: slow, compute: balanced))
    #expect(onDrive.limit == .drive && onDrive.decodeTokensPerSecond == 0.5)
    let onMemory = try #require(SpeedPrediction(token, drive: fast, compute: balanced))
    #expect(onMemory.limit == .memory && onMemory.decodeTokensPerSecond == 1)
    let onArithmetic = try #require(SpeedPrediction(token, drive: fast, compute: heavy))
    #expect(onArithmetic.limit == .arithmetic && onArithmetic.decodeTokensPerSecond == 1)
  }

  @Test func `Reading costs processor time, regions and keys and values cost theirs`() throws {
    var token = work(streamed: 1_000_000_000, weights: 9_000_000_000)
    token.keyValueByteCount = 1_000_000_000
    token.regionCount = 1000
    let prediction = try #require(
      SpeedPrediction(
        token, drive: drive(1e11, processor: 1e-10),
        compute: compute(memory: 1e10, product: 9e9, region: 1e-4)))
    #expect((prediction.computeSeconds - 1.3).magnitude < 1e-9)
  }

  @Test func `Sequences share the reading of weights, and not their arithmetic`() throws {
    var token = work(streamed: 2_000_000_000, weights: 9_000_000_000)
    func predict(_ count: Int) throws -> SpeedPrediction {
      token.sequenceCount = count
      return try #require(
        SpeedPrediction(token, drive: drive(1e9), compute: compute(memory: 1e10, product: 9e9)))
    }
    let (one, two, eight) = (try predict(1), try predict(2), try predict(8))
    #expect(one.totalTokensPerSecond == one.decodeTokensPerSecond)
    // Two rows wait for the drive as one does.
    #expect(two.totalTokensPerSecond == 2 * one.totalTokensPerSecond)
    // 8 · 36e9 operations at 1e11 a second.
    #expect((eight.totalTokensPerSecond - 8 / 2.88).magnitude < 1e-9)
    #expect(eight.decodeTokensPerSecond == eight.totalTokensPerSecond / 8)
  }

  @Test func `Drafts gain what the drive leaves them of arithmetic`() throws {
    let token = work(streamed: 2_000_000_000, weights: 9_000_000_000)
    func gain(_ count: Int) throws -> Double {
      try #require(
        SpeedPrediction.speedUp(
          tokensPerSweep: count, token, drive: drive(1e9),
          compute: compute(memory: 1e10, product: 9e9)))
    }
    #expect(try gain(1) == 1)
    #expect(try gain(4) == 4)
    // 2 s of the drive, 8 · 0.36 s of arithmetic.
    #expect((try gain(8) - 8 * 2 / 2.88).magnitude < 1e-9)
  }

  @Test func `Nothing is predicted from what was not measured`() {
    var unknown = compute(memory: 1e10, product: 1e10)
    unknown.products.removeAll { $0.type == .q4_0 }
    let token = work(streamed: 1, weights: 1)
    #expect(SpeedPrediction(token, drive: drive(1e9), compute: unknown) == nil)
    #expect(
      SpeedPrediction(
        TokenWork(), drive: drive(1e9), compute: compute(memory: 1e10, product: 1e10)) == nil)
  }

  @Test(arguments: UInt64(0)..<12)
  func `More memory is never predicted to be slower`(seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    let file = TemporaryFile(TinyModel().gguf(seed: seed).bytes(), name: "planned")
    let source = try ModelSource.open(file.path)
    let configuration = try #require(source.description.configuration)
    let drive = drive(
      Double.random(in: 1e6...1e10, using: &generator),
      processor: Double.random(in: 0...1e-9, using: &generator))
    let product = Double.random(in: 1e7...1e11, using: &generator)
    let compute = compute(
      memory: product * Double.random(in: 1...3, using: &generator), product: product,
      region: Double.random(in: 0...1e-5, using: &generator))
    var request = MemoryPlan.Request(
      budgetByteCount: 0, contextLength: 64, promptLength: 1, threadCount: 2)
    request.assumedProcessByteCount = 0
    var rates: [Double] = []
    for budget in stride(from: 3 << 20, through: 8 << 20, by: 128 << 10) {
      request.budgetByteCount = budget
      guard
        let plan = try? MemoryPlan.make(request, source: source, configuration: configuration)
      else { continue }
      let work = TokenWork(plan, model: source.description, configuration: configuration)
      #expect(work.streamedByteCount == plan.residency.streamedByteCount)
      rates.append(
        try #require(SpeedPrediction(work, drive: drive, compute: compute)).decodeTokensPerSecond)
    }
    #expect(rates.count > 10)
    for (smaller, larger) in zip(rates, rates.dropFirst()) {
      // Bytes of a read that are cut off differ a little from plan to plan.
      #expect(larger >= smaller * 0.98, "seed \(seed): \(rates)")
    }
  }
}
