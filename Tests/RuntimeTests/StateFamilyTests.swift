import KVCache
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing

/// Families whose layers have states in other ways than beside an FFN: alone, beside attention in one block, of a convolution.
@Suite struct StateFamilyTests {
  private static let families = ["mamba2", "nemotron_h", "lfm2", "falcon-h1", "gla", "based"]

  private func makeRig(_ family: String) throws -> EngineRig {
    let rig = try EngineRig.of(family)
    rig.contextLength = 400
    return rig
  }

  private func request(_ tokens: [Int32], limit: Int = 8) -> SequenceRequest {
    SequenceRequest(
      tokens: tokens, limit: limit, sampling: SamplingOptions(temperature: 1, seed: 5),
      ignoresEnd: true)
  }

  @Test(arguments: families)
  func `Whoever is beside it, a sequence answers as it does alone`(family: String) throws {
    let rig = try makeRig(family)
    var generator = SeededGenerator(seed: 17)
    for chunkLength in [512, 33] {
      let engine = try rig.engine(sequenceCount: 3, maximumChunkLength: chunkLength)
      let trunk = EngineRig.tokens(150, seed: 3)
      var open: [(sequence: TokenSequence, request: SequenceRequest)] = []
      for number in 0..<6 {
        let own = EngineRig.tokens(Int.random(in: 1...60, using: &generator), seed: UInt64(number))
        let asked = request(
          Array(trunk.prefix([150, 130, 0][number % 3])) + own,
          limit: Int.random(in: 1...9, using: &generator))
        open.append((try engine.open(asked, whenFull: .queue), asked))
      }
      open[1].sequence.cancel()
      for (number, (sequence, asked)) in open.enumerated() where number != 1 {
        #expect(EngineRig.take(sequence).tokens == (try rig.alone(asked).tokens), "\(number)")
        sequence.cancel()
      }
      engine.stop()
    }
  }

  @Test(arguments: families)
  func `Broken off in any part of a sweep, a session reads anew`(family: String) throws {
    let rig = try makeRig(family)
    let tokens = EngineRig.tokens(60, seed: 4)
    let (prompt, decoding) = (Array(tokens.prefix(50)), Array(tokens.suffix(10)))
    func makeSession(_ flag: CancellationFlag) throws -> Session {
      try Session(
        rig.model.source, rig.model.configuration,
        rig.request(sequenceCount: 1, maximumChunkLength: 16), cancellation: flag)
    }
    let expected = try logitBits(
      try makeSession(CancellationFlag()), prompt: prompt, decoding: decoding)
    let blockCount = rig.model.configuration.layers.reduce(0) { $0 + $1.blocks.count }
    for part in 1...blockCount {
      let flag = CancellationFlag()
      let session = try makeSession(flag)
      _ = try session.prefill(prompt)
      var count = 0
      session.onDecodePart = {
        count += 1
        if count == part { flag.raise() }
      }
      #expect(throws: RuntimeError.self) { try session.decode(decoding[0]) }
      session.onDecodePart = nil
      flag.lower()
      let position = try session.truncate(to: 50)
      let left = (prompt).dropFirst(position)
      if !left.isEmpty { _ = try session.prefill(Array(left)) }
      for (index, token) in decoding.enumerated() {
        #expect(Array(try session.decode(token)).map(\.bitPattern) == expected[index + 1])
      }
    }
  }

  /// What a token of a model that does not attend takes does not grow with what came before it.
  @Test func `A model that does not attend has no keys and values`() throws {
    let rig = try makeRig("mamba2")
    let model = rig.model.configuration
    let shapes = [100, 100_000].map { KeyValueShape(model, contextLength: $0) }
    #expect(shapes.allSatisfy { $0.layerCount == 0 && $0.retainedByteCount == 0 })
    #expect(shapes[0].stateByteCount > 0 && shapes[0].stateByteCount == shapes[1].stateByteCount)
    for shape in shapes {
      let plan = try #require(
        KeyValuePlan(shape, sequenceCount: 2, budgetByteCount: 0, chunkLength: 64))
      #expect(plan.byteCount == 0 && !plan.hasTier)
    }
  }
}
