import KVCache
import Kernels
import Runtime
import TensorBasics
import TestSupport
import Testing

/// What sequences leave: it is gone on with where it is of use, and changes no answer.
@Suite struct IdleContextTests {
  /// A turn as a sequence of its own, which is gone afterwards.
  private func ask(
    _ engine: Engine, _ tokens: [Int32], limit: Int = 8, contextLimit: Int? = nil
  ) throws -> (tokens: [Int32], reused: Int) {
    let sequence = try engine.open(
      request(tokens, limit: limit, contextLimit: contextLimit), whenFull: .queue)
    defer { sequence.cancel() }
    return EngineRig.take(sequence)
  }

  private func request(
    _ tokens: [Int32], limit: Int = 8, contextLimit: Int? = nil
  ) -> SequenceRequest {
    var request = SequenceRequest(
      tokens: tokens, limit: limit, sampling: SamplingOptions(temperature: 1, seed: 5),
      ignoresEnd: true)
    request.contextLimit = contextLimit
    return request
  }

  @Test(arguments: KeyValueType.allCases, [false, true])
  func `A conversation of requests is read once`(type: KeyValueType, hasStore: Bool) throws {
    let rig = try EngineRig()
    rig.contextLength = 700
    rig.keyValues.type = type
    let folder = TemporaryFolder()
    let engine = try rig.engine(
      sequenceCount: 1, store: hasStore ? Engine.Store(path: folder.path, byteLimit: 1 << 30) : nil)
    var path = EngineRig.tokens(300, seed: 1)
    for turn in 0..<4 {
      // Of other lengths, as each request has.
      let found = try ask(engine, path, contextLimit: turn % 2 == 0 ? path.count + 8 : nil)
      #expect(found.tokens == (try rig.alone(request(path)).tokens), "turn \(turn)")
      // The token that was drawn last is read with the next turn.
      if turn > 0 { #expect(found.reused == path.count - 21, "turn \(turn)") }
      path += found.tokens + EngineRig.tokens(20, seed: 10 + UInt64(turn))
    }
    // Another with the same beginning takes that, in whole page groups where they are quantised.
    let other = Array(path.prefix(200)) + EngineRig.tokens(100, seed: 30)
    let found = try ask(engine, other)
    #expect(found.tokens == (try rig.alone(request(other)).tokens))
    #expect(found.reused == (type == .f16 ? 200 : 128))
    // The same once more needs one row, or none where the store has its logits.
    let rowCount = engine.statistics().rowCount
    #expect(try ask(engine, other, limit: 1).tokens == Array(found.tokens.prefix(1)))
    #expect(engine.statistics().rowCount - rowCount <= 1)
    engine.stop()
    #expect(engine.takeWarnings().isEmpty)
  }

  @Test func `A context that fills its memory is gone on with`() throws {
    let rig = try EngineRig()
    rig.contextLength = 320
    let engine = try rig.engine(sequenceCount: 1)
    let prompt = EngineRig.tokens(300, seed: 60)
    _ = try ask(engine, prompt)
    let other = Array(prompt.prefix(240)) + EngineRig.tokens(40, seed: 61)
    let found = try ask(engine, other)
    #expect(found.tokens == (try rig.alone(request(other)).tokens) && found.reused == 240)
    engine.stop()
  }

  @Test func `Who needs the place gets it`() throws {
    let rig = try EngineRig()
    rig.contextLength = 300
    let engine = try rig.engine(sequenceCount: 2)
    let prompts = (0..<3).map { EngineRig.tokens(150, seed: 40 + UInt64($0)) }
    let expected = try prompts.map { try rig.alone(request($0)).tokens }
    for number in [0, 1, 2] { #expect(try ask(engine, prompts[number]).tokens == expected[number]) }
    // The oldest went.
    for (number, reused) in [(2, 149), (1, 149), (0, 0)] {
      let found = try ask(engine, prompts[number])
      #expect(found.tokens == expected[number] && found.reused == reused, "\(number)")
    }
    engine.stop()
  }

  @Test(arguments: ["llama", "gemma3", "qwen2moe"], KeyValueType.allCases)
  func `Requests one after the other answer as they do alone`(
    family: String, type: KeyValueType
  ) throws {
    var generator = SeededGenerator(seed: 50)
    let rig = try EngineRig(TinyFamilies.model(family))
    rig.contextLength = 600
    rig.keyValues.type = type
    let shape = KeyValueShape(
      rig.model.configuration, contextLength: rig.contextLength, type: type)
    for round in 0..<4 {
      rig.keyValues.budgetByteCount =
        round % 2 == 1
        ? KeyValuePlan.minimumByteCount(shape, sequenceCount: 2, chunkLength: 100) : nil
      let folder = TemporaryFolder()
      let engine = try rig.engine(
        sequenceCount: 2, maximumChunkLength: 100,
        store: round < 2 ? nil : Engine.Store(path: folder.path, byteLimit: 1 << 30))
      var path = EngineRig.tokens(200, seed: 51)
      for number in 0..<12 {
        let kept = Int.random(in: 0...path.count, using: &generator)
        let own = Int.random(in: 1...60, using: &generator)
        path = Array(path.prefix(min(kept, 500))) + EngineRig.tokens(own, seed: UInt64(number))
        var next = request(path, limit: Int.random(in: 1...9, using: &generator))
        next.sampling.seed = UInt64(number)
        if Bool.random(using: &generator) { next.contextLimit = path.count + next.limit }
        let sequence = try engine.open(next, whenFull: .queue)
        if Int.random(in: 0..<4, using: &generator) == 0 {
          _ = sequence.next(timeout: .milliseconds(2))
        } else {
          let found = EngineRig.take(sequence)
          #expect(found.tokens == (try rig.alone(next).tokens), "\(family), \(round), \(number)")
          path += found.tokens
        }
        sequence.cancel()
      }
      engine.stop()
      #expect(engine.takeWarnings().isEmpty)
    }
  }
}
