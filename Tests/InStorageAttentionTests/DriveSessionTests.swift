import InStorageAttention
import KVCache
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Whole models that decode with drives.
@Suite struct DriveSessionTests {
  private static let cases = [
    HeadCase(name: "llama", headDim: 16, queryHeadCount: 4, keyValueHeadCount: 2),
    HeadCase(name: "llama", headDim: 64, queryHeadCount: 9, keyValueHeadCount: 3),
    HeadCase(name: "llama", headDim: 32, queryHeadCount: 2, keyValueHeadCount: 2, window: 40),
    HeadCase(name: "qwen3", headDim: 128, queryHeadCount: 4, keyValueHeadCount: 1),
    HeadCase(name: "gemma3", headDim: 256, queryHeadCount: 4, keyValueHeadCount: 1, window: 70),
  ]

  @Test("Dense drives give the host's logits, bit for bit", arguments: cases)
  private func identity(example: HeadCase) throws {
    let file = TemporaryFile(example.model(contextLength: 1024).gguf(seed: 3).bytes())
    defer { extendLifetime(file) }
    var generator = SeededGenerator(seed: 7)
    // Past a tile of 512 positions.
    let prompt = (0..<505).map { _ in Int32(generator.next() % 320) }
    let decoding = (0..<12).map { _ in Int32(generator.next() % 320) }
    let context = 520
    let expected = try logitBits(
      openSession(file.path, contextLength: context, promptLength: prompt.count), prompt, decoding)
    let configuration = try #require(try ModelSource.open(file.path).description.configuration)
    for count in 1...20 {
      let drives = try DriveArray.make(
        DriveArray.Shape(configuration, contextLength: context), count: count)
      let session = try openSession(
        file.path, contextLength: context, promptLength: prompt.count,
        chunkLength: [512, 100, 7][count % 3], decodeAttention: drives)
      let found = try logitBits(session, prompt, decoding)
      #expect(found.elementsEqual(expected), "\(count) drives")
      #expect(session.usesDecodeAttention)
      #expect(drives.foldCount == decoding.count * configuration.layerCount)
      let statistics = drives.statistics
      #expect(statistics.flash.pagesProgrammed > 0 && statistics.flash.pagesRead > 0)
      // Again from the start, over flash that was used.
      guard count % 7 == 1 else { continue }
      session.reset()
      let again = try logitBits(session, prompt, decoding)
      #expect(again.elementsEqual(expected), "\(count) drives, used before")
    }
  }

  /// Gemma's prompt is longer than its windows of 512.
  @Test(.enabled(if: RealModels.smolLM2 != nil, "SmolLM2 is not in the model folder"))
  func `SmolLM2 decodes with the host's bits`() throws {
    try decodesWithTheHostsBits(try #require(RealModels.smolLM2), promptLength: 70)
  }

  @Test(.enabled(if: RealModels.gemma3 != nil, "Gemma 3 is not in the model folder"))
  func `Gemma 3 decodes with the host's bits`() throws {
    try decodesWithTheHostsBits(try #require(RealModels.gemma3), promptLength: 530)
  }

  private func decodesWithTheHostsBits(_ path: String, promptLength: Int) throws {
    var generator = SeededGenerator(seed: 1)
    let prompt = (0..<promptLength).map { _ in Int32(generator.next() % 49152) }
    let decoding = (0..<4).map { _ in Int32(generator.next() % 49152) }
    let context = promptLength + 4
    let expected = try logitBits(
      openSession(path, contextLength: context, promptLength: promptLength), prompt, decoding)
    let configuration = try #require(try ModelSource.open(path).description.configuration)
    for count in [1, 3, 20] {
      let drives = try DriveArray.make(
        DriveArray.Shape(configuration, contextLength: context), count: count,
        flash: smallFlash(channels: 8, blocks: 200, pages: 4, pageByteCount: 4096))
      let session = try openSession(
        path, contextLength: context, promptLength: promptLength, decodeAttention: drives)
      let found = try logitBits(session, prompt, decoding)
      #expect(found.elementsEqual(expected), "\(count) drives")
    }
  }

  @Test func `A decoded token moves what the documentation's formula says`() throws {
    let example = Self.cases[1]
    let file = TemporaryFile(example.model(contextLength: 1024).gguf(seed: 3).bytes())
    defer { extendLifetime(file) }
    let configuration = try #require(try ModelSource.open(file.path).description.configuration)
    let (layers, heads, length, group) = (
      configuration.layerCount, example.keyValueHeadCount, example.headDim,
      example.queryHeadCount / example.keyValueHeadCount
    )
    for count in [1, 2, 3, 20] {
      let drives = try DriveArray.make(
        DriveArray.Shape(configuration, contextLength: 100), count: count)
      let session = try openSession(
        file.path, contextLength: 100, promptLength: 30, decodeAttention: drives)
      _ = try session.prefill((0..<30).map { Int32($0) })
      for position in 30..<40 {
        let (bus, hostPath) = (drives.statistics.bus, drives.hostPathByteCount)
        _ = try session.decode(7)
        let holders = min(count, heads)
        #expect(
          (drives.statistics.bus - bus).byteCount
            == layers
            * (2 * 80 * holders + 4 * length * heads + 4 * (2 * length + 2) * heads * group))
        #expect(
          drives.hostPathByteCount - hostPath == layers * 4 * length * heads * (position + 2))
      }
    }
  }

  /// Attention that spoils the partials and fails.
  private final class SpoilingAttention: DecodeAttention {
    struct Spoilt: Error {}
    let hostWindow = 0

    func append(
      layer: Int, position: Int, tokenCount: Int, keys: UnsafePointer<Float>,
      values: UnsafePointer<Float>
    ) {}

    func fold(
      layer: Int, visible: VisibleRange, queries: UnsafePointer<Float>,
      into partials: TokenPartials, continues: Bool
    ) throws {
      for head in 0..<3 {
        partials[head].maxima.update(repeating: 3, count: 3)
        partials[head].sums.update(repeating: .nan, count: 3)
        partials[head].outputs.update(repeating: 3, count: 3 * 64)
      }
      throw Spoilt()
    }

    func reset() {}
  }

  @Test func `The host begins anew where partials are spoilt`() throws {
    let file = TemporaryFile(Self.cases[1].model(contextLength: 1024).gguf(seed: 3).bytes())
    defer { extendLifetime(file) }
    let (prompt, decoding): ([Int32], [Int32]) = ([5, 6, 7], [8, 9])
    let expected = try logitBits(
      openSession(file.path, contextLength: 8, promptLength: 3), prompt, decoding)
    let session = try openSession(
      file.path, contextLength: 8, promptLength: 3, decodeAttention: SpoilingAttention())
    session.onDecodeAttentionFailure = { $0 is SpoilingAttention.Spoilt }
    let found = try logitBits(session, prompt, decoding)
    #expect(found.elementsEqual(expected))
    #expect(!session.usesDecodeAttention)
  }

  @Test func `A failing drive ends the run, or the host goes on with its own bits`() throws {
    let example = Self.cases[1]
    let file = TemporaryFile(example.model(contextLength: 1024).gguf(seed: 3).bytes())
    defer { extendLifetime(file) }
    let prompt = (0..<40).map { Int32($0) }
    let decoding = (0..<300).map { Int32($0 % 320) }
    let expected = try logitBits(
      openSession(file.path, contextLength: 400, promptLength: 40), prompt, decoding)
    let configuration = try #require(try ModelSource.open(file.path).description.configuration)
    let shape = DriveArray.Shape(configuration, contextLength: 400)
    let kinds: [(FlashGeometry, FlashFaults)] = [
      (smallFlash(blocks: 6, pageByteCount: 4096), FlashFaults()),
      (smallFlash(blocks: 2000), FlashFaults(bitErrorRate: 0.3)),
    ]
    for (flash, faults) in kinds {
      let failing = try openSession(
        file.path, contextLength: 400, promptLength: 40,
        decodeAttention: try DriveArray.make(shape, count: 2, flash: flash, faults: faults))
      #expect(throws: RuntimeError.self) { _ = try logitBits(failing, prompt, decoding) }
      let goingOn = try openSession(
        file.path, contextLength: 400, promptLength: 40,
        decodeAttention: try DriveArray.make(shape, count: 2, flash: flash, faults: faults))
      var causes: [DriveFailure] = []
      goingOn.onDecodeAttentionFailure = { error in
        if let error = error as? DriveFailure { causes.append(error) }
        return true
      }
      let found = try logitBits(goingOn, prompt, decoding)
      #expect(found.elementsEqual(expected), "the host goes on with its own bits")
      #expect(causes.count == 1)
      #expect(!goingOn.usesDecodeAttention)
    }
  }

  @Test func `Lossless SparF decodes what dense attention does`() throws {
    for example in [Self.cases[1], Self.cases[4]] {
      let file = TemporaryFile(example.model(contextLength: 1024).gguf(seed: 3).bytes())
      defer { extendLifetime(file) }
      let prompt = (0..<530).map { Int32($0 % 317) }
      let configuration = try #require(try ModelSource.open(file.path).description.configuration)
      let lossless = SparseAttention(channelFraction: 1, tokenFraction: 1)
      let drives = try DriveArray.make(
        DriveArray.Shape(configuration, contextLength: 560), count: 3, engine: .sparse(lossless))
      let host = try openSession(file.path, contextLength: 560, promptLength: 530)
      let session = try openSession(
        file.path, contextLength: 560, promptLength: 530, decodeAttention: drives)
      _ = try host.prefill(prompt)
      _ = try session.prefill(prompt)
      for token in Int32(0)..<20 {
        let expected = Array(try host.decode(token))
        let found = Array(try session.decode(token))
        // Attention differs by rounding; the int8 activations that follow amplify it.
        let scale = expected.map(abs).max() ?? 1
        #expect(largestDifference(expected, found) <= 5e-3 * scale, "\(example.testDescription)")
      }
    }
  }

  @Test func `The host's own keys and values have room in memory, or the budget is too small`()
    throws
  {
    let file = TemporaryFile(TinyModel().gguf(seed: 1).bytes())
    defer { extendLifetime(file) }
    let source = try ModelSource.open(file.path)
    let configuration = try #require(source.description.configuration)
    var request = MemoryPlan.Request(
      budgetByteCount: 1 << 30, contextLength: 4096, promptLength: 1, threadCount: 1)
    request.assumedProcessByteCount = 0
    request.keyValues.budgetByteCount = 512 << 10
    _ = try Session(source, configuration, request)
    let drives = try DriveArray.make(DriveArray.Shape(configuration, contextLength: 4096))
    #expect {
      try Session(source, configuration, request, decodeAttention: drives)
    } throws: {
      if case RuntimeError.keyValueBudgetTooSmall = $0 { true } else { false }
    }
    // The budget that is named as the smallest is one that works.
    request.keyValues.budgetByteCount = nil
    request.budgetByteCount = 1
    do {
      _ = try Session(source, configuration, request, decodeAttention: drives)
      Issue.record("a budget of one byte was accepted")
    } catch {
      guard case .budgetTooSmall(_, let minimum, _) = error else { throw error }
      request.budgetByteCount = minimum.bytes
    }
    let session = try Session(source, configuration, request, decodeAttention: drives)
    #expect(!session.plan.keyValues.hasTier)
    _ = try session.decode(1)
  }
}
