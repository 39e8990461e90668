import KVCache
import Kernels
import Runtime
import TensorBasics
import TestSupport
import Testing

/// Sequences whose prompts begin alike: the beginning is read once, and each answers as it does alone.
@Suite struct EngineSharingTests {
  @Test(arguments: KeyValueType.allCases)
  func `Choices of one prompt read it once`(type: KeyValueType) throws {
    let rig = try EngineRig()
    rig.contextLength = 500
    rig.keyValues.type = type
    // Rows are counted.
    rig.draftRowCount = 0
    let prompt = EngineRig.tokens(300, seed: 1)
    let requests = (0..<4).map { number in
      SequenceRequest(
        tokens: prompt, limit: 8,
        sampling: SamplingOptions(temperature: 1, seed: 5, stream: UInt32(number)),
        ignoresEnd: true)
    }
    let engine = try rig.engine(sequenceCount: 4, maximumChunkLength: 64)
    let open = try requests.map { try engine.open($0, whenFull: .queue) }
    for (sequence, request) in zip(open, requests) {
      let found = EngineRig.take(sequence)
      #expect(found.tokens == (try rig.alone(request).tokens))
    }
    // Quantised page groups are shared whole: of 300 tokens 256.
    let most = 300 + 3 * (type == .f16 ? 1 : 44) + 4 * 8
    #expect(engine.statistics().rowCount <= most, "\(engine.statistics().rowCount) rows")
    engine.stop()
  }

  @Test(arguments: ["llama", "gemma3", "qwen2moe"], KeyValueType.allCases)
  func `Whoever leaves, is cut or goes on, the others answer as they do alone`(
    family: String, type: KeyValueType
  ) throws {
    var generator = SeededGenerator(seed: 90)
    let rig = try EngineRig(TinyFamilies.model(family))
    rig.contextLength = 700
    rig.keyValues.type = type
    let shape = KeyValueShape(
      rig.model.configuration, contextLength: rig.contextLength, type: type)
    let folder = TemporaryFolder()
    let trunk = EngineRig.tokens(500, seed: 91)
    for round in 0..<4 {
      // In memory, and spilled; without a store, and with one.
      rig.keyValues.budgetByteCount =
        round % 2 == 1
        ? KeyValuePlan.minimumByteCount(shape, sequenceCount: 4, chunkLength: 100) : nil
      let engine = try rig.engine(
        sequenceCount: 4, maximumChunkLength: [512, 100, 33, 100][round],
        store: round < 2 ? nil : Engine.Store(path: folder.path, byteLimit: 1 << 30))
      var open: [(sequence: TokenSequence, request: SequenceRequest, isCancelled: Bool)] = []
      for number in 0..<9 {
        let begin = trunk.prefix([500, 400, 130, 33, 0].randomElement(using: &generator)!)
        let own = EngineRig.tokens(Int.random(in: 1...120, using: &generator), seed: UInt64(number))
        var request = SequenceRequest(
          tokens: Array(begin) + own, limit: Int.random(in: 1...9, using: &generator),
          sampling: SamplingOptions(temperature: 1, seed: UInt64(number)), ignoresEnd: true)
        if Bool.random(using: &generator) {
          request.contextLimit = request.tokens.count + request.limit
        }
        let sequence = try engine.open(request, whenFull: .queue)
        let isCancelled = Int.random(in: 0..<4, using: &generator) == 0
        open.append((sequence, request, isCancelled))
        if isCancelled {
          // In the middle of its prompt, or before it.
          if Bool.random(using: &generator) { _ = sequence.next(timeout: .milliseconds(3)) }
          sequence.cancel()
        }
      }
      for (sequence, request, isCancelled) in open where !isCancelled {
        #expect(
          EngineRig.take(sequence).tokens == (try rig.alone(request).tokens),
          "\(family), round \(round)")
        sequence.cancel()
      }
      engine.stop()
      #expect(engine.takeWarnings().isEmpty)
    }
  }
}
