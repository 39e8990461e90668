import BlockIO
import KVCache
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing

/// With quantised keys and values, too, chunks, workers and tiers change no bit.
@Suite struct KeyValueTypeTests {
  @Test(arguments: [KeyValueType.f16, .q8, .q4], ["llama", "llama window", "qwen3", "gemma3"])
  func `Logits do not depend on chunks, threads, memory or what was decoded`(
    type: KeyValueType, family: String
  ) throws {
    var model = TinyFamilies.model(family)
    model.headDim = 64
    if model.slidingWindow > 0 { model.slidingWindow = 150 }
    let file = TemporaryFile(model.gguf(seed: 7).bytes())
    defer { extendLifetime(file) }
    var generator = SeededGenerator(seed: 3)
    let tokens = (0..<400).map { _ in Int32(generator.next() % 300) }
    /// Bits of the logits after each of the last twenty tokens, the first `promptLength` read as a prompt.
    func bits(_ promptLength: Int, _ shape: RunShape) throws -> [[UInt32]] {
      let session = try makeSession(
        file.path, contextLength: 512, promptLength: promptLength, shape)
      let rows = try logitBits(
        session, prompt: Array(tokens[..<promptLength]), decoding: Array(tokens[promptLength...]))
      return rows.suffix(20)
    }
    var whole = RunShape()
    whole.keyValues.type = type
    let expected = try bits(380, whole)
    let least = KeyValuePlan.minimumByteCount(
      try makeSession(file.path, contextLength: 512, promptLength: 380, whole).plan.keyValues.shape,
      chunkLength: 1)
    // A block ends after 256, the next after 384.
    for promptLength in [1, 127, 128, 129, 255, 256, 257, 380] {
      var shape = RunShape(
        backend: [.uring, .pread, .mmap].randomElement(using: &generator) ?? .auto,
        threadCount: Int.random(in: 1...3, using: &generator),
        maximumChunkLength: Int.random(in: 1...300, using: &generator))
      shape.keyValues.type = type
      shape.keyValues.backend = shape.backend
      if Bool.random(using: &generator) {
        shape.keyValues.budgetByteCount = least + Int.random(in: 0...least, using: &generator)
      }
      #expect(try bits(promptLength, shape) == expected, "\(promptLength), \(shape)")
    }
  }

  @Test func `Fewer bits change logits a little`() throws {
    var model = TinyFamilies.model("llama")
    model.headDim = 64
    let file = TemporaryFile(model.gguf(seed: 7).bytes())
    defer { extendLifetime(file) }
    var generator = SeededGenerator(seed: 3)
    let tokens = (0..<300).map { _ in Int32(generator.next() % 300) }
    func logits(_ type: KeyValueType) throws -> [Float] {
      var shape = RunShape()
      shape.keyValues.type = type
      let session = try makeSession(
        file.path, contextLength: 512, promptLength: 300, shape)
      defer { extendLifetime(session) }
      return Array(try session.prefill(tokens))
    }
    let exact = try logits(.f16)
    let range = (exact.max() ?? 0) - (exact.min() ?? 0)
    // Random weights make every key matter alike, so errors do not hide behind what stands out.
    for (type, bound) in [(KeyValueType.q8, Float(0.02)), (.q4, 0.25)] {
      let found = try logits(type)
      #expect(found != exact)
      for (a, b) in zip(exact, found) { #expect((a - b).magnitude < bound * range, "\(type)") }
    }
  }
}
