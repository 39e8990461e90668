import KVCache
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Memory that is planned for keys and values keeps weights while no sequence needs it.
@Suite struct LendingTests {
  private static let contextLength = 900
  private static let sequenceCount = 3

  /// A model that does not fit beside its keys and values, in the least memory and some for these.
  private func makeCore(_ path: String, keyValueByteCount: Int) throws -> EngineCore {
    let source = try ModelSource.open(path)
    let configuration = try #require(source.description.configuration)
    var request = MemoryPlan.Request(
      budgetByteCount: 1, contextLength: Self.contextLength, promptLength: Self.contextLength,
      threadCount: 2, maximumChunkLength: 128)
    request.assumedProcessByteCount = 0
    request.sequenceCount = Self.sequenceCount
    request.leastLoanByteCount = 1
    request.keyValues.budgetByteCount = keyValueByteCount
    do { return try EngineCore(source, configuration, request) } catch {
      guard case .budgetTooSmall(_, let minimum, _) = error else { throw error }
      request.budgetByteCount = minimum.bytes + keyValueByteCount
      return try EngineCore(source, configuration, request)
    }
  }

  /// Reads tokens into a sequence, and gives the bits of the logits after the last.
  private func read(
    _ tokens: [Int32], at position: Int, in cache: KeyValueStore, of core: EngineCore
  ) throws -> [UInt32] {
    var bits: [UInt32] = []
    for first in stride(from: 0, to: tokens.count, by: core.plan.chunkLength) {
      let slice = first..<min(first + core.plan.chunkLength, tokens.count)
      core.batch.removeAll()
      tokens.withUnsafeBufferPointer {
        core.batch.append(
          UnsafeBufferPointer(rebasing: $0[slice]), at: position + first, .read,
          promptEnd: position + tokens.count, in: cache,
          logitCount: slice.upperBound == tokens.count ? 1 : 0)
      }
      try core.step(continues: true) { _, logits in bits = logits.map(\.bitPattern) }
    }
    return bits
  }

  private func tokens(_ count: Int, using generator: inout SeededGenerator) -> [Int32] {
    (0..<count).map { _ in Int32.random(in: 0..<300, using: &generator) }
  }

  @Test(arguments: ["llama", "mixtral"], [0, 1])
  func `Weights stay until a sequence needs their memory`(family: String, format: Int) throws {
    var generator = SeededGenerator(seed: 0x1E)
    var model = family == "mixtral" ? TinyModel.mixtral() : TinyModel()
    (model.layerCount, model.contextLength) = (4, Self.contextLength)
    (model.hiddenSize, model.feedForwardLength) = (512, 1024)
    let gguf = model.gguf(seed: 5).bytes()
    let file = TemporaryFile(format == 0 ? gguf : try ImageBuilder.image(of: gguf))
    defer { extendLifetime(file) }
    let core = try makeCore(file.path, keyValueByteCount: 1 << 20)
    let (stream, pool) = (core.stream, core.keyValues)
    #expect(stream.borrowableByteCount > 0)
    let prompts = (0..<Self.sequenceCount).map { _ in tokens(700, using: &generator) }
    var expected: [[UInt32]] = []
    for prompt in prompts {
      let session = try makeSession(
        file.path, contextLength: Self.contextLength, promptLength: 700, RunShape())
      expected.append(Array(try session.prefill(prompt)).map(\.bitPattern))
    }
    for _ in 0..<2 {
      // One sequence that stays short.
      var caches = [try core.openSequence()]
      _ = try read(tokens(3, using: &generator), at: 0, in: caches[0], of: core)
      let short = stream.borrowedByteCount
      #expect(short > stream.borrowableByteCount / 4 && short == pool.lentByteCount)
      core.close(caches.removeLast())
      // All there may be, as long as they come.
      var least = Int.max
      for (prompt, bits) in zip(prompts, expected) {
        caches.append(try core.openSequence())
        #expect(try read(prompt, at: 0, in: caches[caches.count - 1], of: core) == bits)
        least = min(least, stream.borrowedByteCount)
        #expect(stream.borrowedByteCount == pool.lentByteCount)
      }
      #expect(least < short / 2, "\(least) of \(short)")
      for cache in caches { core.close(cache) }
      // Pages that are being written are free when they are.
      try pool.drain()
      #expect(pool.isEmpty)
    }
  }

  @Test(arguments: ["llama", "mixtral"])
  func `A loan that grows and shrinks by steps changes no answer`(family: String) throws {
    var generator = SeededGenerator(seed: 0x20)
    var model = family == "mixtral" ? TinyModel.mixtral() : TinyModel()
    (model.layerCount, model.contextLength) = (4, Self.contextLength)
    (model.hiddenSize, model.feedForwardLength) = (512, 1024)
    let file = TemporaryFile(model.gguf(seed: 6).bytes())
    defer { extendLifetime(file) }
    let core = try makeCore(file.path, keyValueByteCount: 2 << 20)
    let stream = core.stream
    // With experts, what all streamed runs leave is for bundles: steps are on both sides of that.
    let session = try makeSession(
      file.path, contextLength: Self.contextLength, promptLength: Self.contextLength, RunShape())
    let prompt = tokens(800, using: &generator)
    let expected = try stride(from: 0, to: prompt.count, by: 20).map { first in
      Array(try session.prefill(Array(prompt[first..<first + 20]))).map(\.bitPattern)
    }
    var seen: Set<Int> = []
    for _ in 0..<3 {
      // Sequences grow one after the other, and end in another order.
      var open: [(cache: KeyValueStore, step: Int)] = []
      for _ in 0..<120 {
        if open.count < Self.sequenceCount, Int.random(in: 0..<10, using: &generator) == 0 {
          open.append((try core.openSequence(), 0))
        }
        guard let index = open.indices.randomElement(using: &generator) else { continue }
        let step = open[index].step
        let bits = try read(
          Array(prompt[(20 * step)..<(20 * step + 20)]), at: 20 * step, in: open[index].cache,
          of: core)
        #expect(bits == expected[step])
        seen.insert(stream.borrowedByteCount)
        open[index].step += 1
        if open[index].step == expected.count || Int.random(in: 0..<25, using: &generator) == 0 {
          core.close(open.remove(at: index).cache)
        }
      }
      for (cache, _) in open { core.close(cache) }
    }
    #expect(seen.count >= 4, "\(seen.sorted())")
  }

  @Test func `What is borrowed saves reads`() throws {
    var generator = SeededGenerator(seed: 0x1F)
    var model = TinyModel()
    (model.layerCount, model.contextLength) = (4, Self.contextLength)
    (model.hiddenSize, model.feedForwardLength) = (512, 1024)
    let file = TemporaryFile(model.gguf(seed: 5).bytes())
    defer { extendLifetime(file) }
    let core = try makeCore(file.path, keyValueByteCount: 1 << 20)
    let cache = try core.openSequence()
    for position in 0..<6 {
      _ = try read(tokens(1, using: &generator), at: position, in: cache, of: core)
    }
    let device = core.stream.source.device
    let (before, borrowed) = (device.statistics.bytesRead, core.stream.borrowedByteCount)
    for position in 6..<26 {
      _ = try read(tokens(1, using: &generator), at: position, in: cache, of: core)
    }
    let read = (device.statistics.bytesRead - before) / 20
    #expect(core.stream.isSettled && borrowed == core.stream.borrowedByteCount && borrowed > 0)
    // Beside the weights there are embedding rows, of a page at most.
    #expect(read <= core.plan.residency.streamedByteCount - borrowed + 2 * 4096)
  }
}
