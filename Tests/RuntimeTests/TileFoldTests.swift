import KVCache
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Attention that something else begins and the host continues.
@Suite struct TileFoldTests {
  @Test(arguments: UInt64(0)..<16)
  func `A token whose attention begins elsewhere has the host's bits`(seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    var model = TinyFamilies.model(
      ["llama", "qwen3", "llama window", "gemma3"].randomElement(using: &generator)!)
    model.contextLength = 4096
    model.headDim = [16, 32].randomElement(using: &generator)!
    if model.slidingWindow > 0 { model.slidingWindow = Int.random(in: 1...1500, using: &generator) }
    let file = TemporaryFile(model.gguf(seed: seed).bytes())
    defer { extendLifetime(file) }
    func tokens(_ count: Int) -> [Int32] { (0..<count).map { _ in Int32(generator.next() % 320) } }
    // Answers that begin before or after a tile's end, and a prompt after the first.
    let tile = 512 * Int.random(in: 1...3, using: &generator)
    let prompts = [
      tokens(tile + Int.random(in: -9...9, using: &generator)),
      tokens(Int.random(in: 1...600, using: &generator)),
    ]
    let answers = [tokens(12), tokens(3)]
    let contextLength = (prompts + answers).reduce(0) { $0 + $1.count }
    let source = try ModelSource.open(file.path)
    let configuration = try #require(source.description.configuration)
    func shape() -> RunShape {
      RunShape(
        threadCount: Int.random(in: 1...3, using: &generator),
        maximumChunkLength: Int.random(in: 1...512, using: &generator))
    }
    func bits(_ session: Session) throws -> [[UInt32]] {
      try zip(prompts, answers)
        .flatMap { try logitBits(session, prompt: $0, decoding: $1) }
    }
    let expected = try bits(
      makeSession(
        source, contextLength: contextLength, promptLength: prompts[0].count, shape()))
    let windows = [0, 1, 512, 513, 1024, contextLength, Int.max]
    for hostWindow in windows + [Int.random(in: 2...1600, using: &generator)] {
      let attention = try MemoryAttention(
        KeyValueShape(configuration, contextLength: contextLength),
        queryHeadCount: configuration.queryHeadCount, hostWindow: hostWindow)
      let session = try makeSession(
        source, contextLength: contextLength, promptLength: prompts[0].count, shape(),
        decodeAttention: attention)
      #expect(try bits(session) == expected, "host window \(hostWindow)")
      #expect(hostWindow > 0 || attention.foldCount == 15 * configuration.layerCount)
      #expect(hostWindow < contextLength || attention.foldCount == 0)
      #expect(session.usesDecodeAttention)
      // A source that fails anywhere, from the start.
      session.reset()
      attention.callsLeft = Int.random(in: 0...200, using: &generator)
      session.onDecodeAttentionFailure = { $0 is MemoryAttention.Failed }
      #expect(try bits(session) == expected, "host window \(hostWindow), failing")
    }
  }

  @Test func `A source that is continued takes all keys and values as f16`() throws {
    let file = TemporaryFile(TinyModel().gguf(seed: 1).bytes())
    defer { extendLifetime(file) }
    let source = try ModelSource.open(file.path)
    let configuration = try #require(source.description.configuration)
    func isRefused(_ hostWindow: Int, _ change: (inout KeyValueOptions) -> Void) throws -> Bool {
      var shape = RunShape()
      change(&shape.keyValues)
      let attention = try MemoryAttention(
        KeyValueShape(configuration, contextLength: 64),
        queryHeadCount: configuration.queryHeadCount, hostWindow: hostWindow)
      do {
        _ = try makeSession(
          source, contextLength: 64, promptLength: 8, shape, decodeAttention: attention)
        return false
      } catch {
        guard case RuntimeError.notRunnable = error else { throw error }
        return true
      }
    }
    #expect(try !isRefused(1) { _ in })
    #expect(try isRefused(1) { $0.type = .q8 })
    #expect(try isRefused(1) { $0.policy = .recent(sinks: 0, recent: 128) })
    #expect(try isRefused(-1) { _ in })
  }
}
