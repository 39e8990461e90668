import KVCache
import Kernels
import Runtime
import TensorBasics
import TestSupport
import Testing

/// Models whose layers have states: a sequence answers as it does alone, whatever happens to it and to the others.
@Suite struct StateTests {
  private let rig: EngineRig

  init() throws {
    rig = try EngineRig(TinyFamilies.model("qwen3next"))
    rig.contextLength = 400
  }

  private func request(_ tokens: [Int32], limit: Int = 8) -> SequenceRequest {
    SequenceRequest(
      tokens: tokens, limit: limit, sampling: SamplingOptions(temperature: 1, seed: 5),
      ignoresEnd: true)
  }

  @Test func `Choices of one prompt read it once`() throws {
    let prompt = EngineRig.tokens(300, seed: 1)
    // Rows are counted.
    rig.draftRowCount = 0
    let engine = try rig.engine(sequenceCount: 4, maximumChunkLength: 64)
    let requests = (0..<4).map { number in
      var request = request(prompt)
      request.sampling.stream = UInt32(number)
      return request
    }
    let open = try requests.map { try engine.open($0, whenFull: .queue) }
    for (sequence, request) in zip(open, requests) {
      #expect(EngineRig.take(sequence).tokens == (try rig.alone(request).tokens))
    }
    #expect(engine.statistics().rowCount <= 300 + 3 + 4 * 8)
    engine.stop()
  }

  @Test(arguments: KeyValueType.allCases)
  func `Whoever leaves, is cut or goes on, the others answer as they do alone`(
    type: KeyValueType
  ) throws {
    var generator = SeededGenerator(seed: 92)
    rig.keyValues.type = type
    let shape = KeyValueShape(rig.model.configuration, contextLength: 400, type: type)
    let trunk = EngineRig.tokens(250, seed: 93)
    for round in 0..<3 {
      // In memory, and spilled.
      rig.keyValues.budgetByteCount =
        round == 1
        ? KeyValuePlan.minimumByteCount(shape, sequenceCount: 3, chunkLength: 100) : nil
      let engine = try rig.engine(sequenceCount: 3, maximumChunkLength: [512, 100, 33][round])
      var open: [(sequence: TokenSequence, request: SequenceRequest, isCancelled: Bool)] = []
      for number in 0..<9 {
        let begin = trunk.prefix([250, 130, 33, 0].randomElement(using: &generator)!)
        let own = EngineRig.tokens(Int.random(in: 1...60, using: &generator), seed: UInt64(number))
        let request = request(
          Array(begin) + own, limit: Int.random(in: 1...9, using: &generator))
        let sequence = try engine.open(request, whenFull: .queue)
        let isCancelled = Int.random(in: 0..<3, using: &generator) == 0
        open.append((sequence, request, isCancelled))
        if isCancelled {
          if Bool.random(using: &generator) { _ = sequence.next(timeout: .milliseconds(3)) }
          sequence.cancel()
        }
      }
      for (sequence, request, isCancelled) in open where !isCancelled {
        #expect(EngineRig.take(sequence).tokens == (try rig.alone(request).tokens))
        sequence.cancel()
      }
      engine.stop()
      #expect(engine.takeWarnings().isEmpty)
    }
  }

  @Test func `A conversation goes on at its end, and elsewhere is read anew`() throws {
    let engine = try rig.engine(sequenceCount: 1)
    func ask(_ tokens: [Int32]) throws -> (tokens: [Int32], reused: Int) {
      let sequence = try engine.open(request(tokens), whenFull: .queue)
      defer { sequence.cancel() }
      return EngineRig.take(sequence)
    }
    var path = EngineRig.tokens(200, seed: 2)
    for turn in 0..<3 {
      let found = try ask(path)
      #expect(found.tokens == (try rig.alone(request(path)).tokens))
      // The token that was drawn last is read with the next turn.
      #expect(found.reused == (turn == 0 ? 0 : path.count - 11))
      path += found.tokens + EngineRig.tokens(10, seed: 20 + UInt64(turn))
    }
    let other = Array(path.prefix(150)) + EngineRig.tokens(40, seed: 30)
    let found = try ask(other)
    #expect(found.tokens == (try rig.alone(request(other)).tokens) && found.reused == 0)
    engine.stop()
  }

  @Test(
    arguments: ["qwen3next", "qwen35", "granitehybrid", "lfm2", "falcon-h1"],
    KeyValueType.allCases)
  func `A session goes on in another process where states were kept`(
    family: String, type: KeyValueType
  ) throws {
    let rig = try EngineRig(TinyFamilies.model(family))
    rig.contextLength = 1200
    rig.keyValues.type = type
    let folder = TemporaryFolder()
    func answer(_ tokens: [Int32], chunk: Int = 512) throws -> (tokens: [Int32], reused: Int) {
      var plan = rig.request(sequenceCount: 1, maximumChunkLength: chunk)
      let persistence = try KeyValuePersistence(
        KeyValueDirectory(path: folder.path, byteLimit: 1 << 30), rig.model, prompt: tokens,
        for: &plan, warn: { Issue.record("\($0)") })
      let session = try Session(rig.model.source, rig.model.configuration, plan)
      persistence.resume(session)
      let request = request(tokens)
      let result = try TextGenerator(session: session, tokenizer: rig.model.tokenizer).generate(
        GenerationOptions(
          prompt: tokens, maximumTokenCount: request.limit, sampling: request.sampling,
          ignoresEnd: true)
      ) { _ in }
      persistence.store(tokens + result.tokens, of: session)
      #expect(result.tokens == (try rig.alone(request).tokens), "\(tokens.count) tokens")
      return (result.tokens, result.reusedTokenCount)
    }
    let prompt = EngineRig.tokens(700, seed: 9)
    let first = try answer(prompt)
    #expect(first.reused == 0)
    // The last page group that ends before the prompt does.
    #expect(try answer(prompt, chunk: 100).reused == 640)
    // The end of the turn, without the token that was drawn last.
    let other = prompt + first.tokens + EngineRig.tokens(30, seed: 10)
    #expect(try answer(other).reused == 707)
    for (length, reused) in [(600, 512), (400, 256), (255, 128), (129, 128), (100, 0)] {
      let begin = Array(prompt.prefix(length))
      #expect(try answer(begin + EngineRig.tokens(40, seed: 11)).reused == reused, "\(length)")
    }
  }

  @Test func `States take memory, and drafts of them are lines`() throws {
    let core = try EngineCore(
      rig.model.source, rig.model.configuration, rig.request(sequenceCount: 1))
    let room = core.draftRoom(of: try core.openSequence())
    #expect(room.count > 0 && room.branchCount == 0)
    #expect(core.plan.stateByteCount > 0)
  }

  @Test func `A session is broken off in any part of a sweep, and read anew`() throws {
    let tokens = EngineRig.tokens(60, seed: 4)
    let (prompt, decoding) = (Array(tokens.prefix(50)), Array(tokens.suffix(10)))
    func makeSession(_ flag: CancellationFlag) throws -> Session {
      try Session(
        rig.model.source, rig.model.configuration,
        rig.request(sequenceCount: 1, maximumChunkLength: 16), cancellation: flag)
    }
    let expected = try logitBits(
      try makeSession(CancellationFlag()), prompt: prompt, decoding: decoding)
    // Three layers of two blocks: after the last, the sweep has ended but for its logits.
    for part in 1...7 {
      let flag = CancellationFlag()
      let session = try makeSession(flag)
      _ = try session.prefill(prompt)
      _ = try session.decode(decoding[0])
      var count = 0
      session.onDecodePart = {
        count += 1
        if count == part { flag.raise() }
      }
      #expect(throws: RuntimeError.self) { try session.decode(decoding[1]) }
      session.onDecodePart = nil
      flag.lower()
      let position = try session.truncate(to: 51)
      // Before the prompt's last token there is a copy of states.
      #expect(position == 49 || position == 51, "part \(part)")
      let left = (prompt + [decoding[0]]).dropFirst(position)
      if !left.isEmpty { _ = try session.prefill(Array(left)) }
      for (index, token) in decoding.enumerated().dropFirst() {
        #expect(Array(try session.decode(token)).map(\.bitPattern) == expected[index + 1])
      }
    }
  }

  @Test(arguments: [1, 3], KeyValueType.allCases)
  func `The same prompt is read from before its last token on, whoever read it`(
    sequenceCount: Int, type: KeyValueType
  ) throws {
    rig.keyValues.type = type
    let engine = try rig.engine(sequenceCount: sequenceCount, maximumChunkLength: 64)
    let prompt = EngineRig.tokens(200, seed: 15)
    var first: TokenSequence?
    for number in 0..<4 as Range<UInt32> {
      var next = request(prompt, limit: 5)
      next.sampling.stream = number
      let sequence = try engine.open(next, whenFull: .queue)
      let found = EngineRig.take(sequence)
      #expect(found.tokens == (try rig.alone(next).tokens))
      #expect(found.reused == (number == 0 ? 0 : 199), "\(number)")
      // The first stays where there is room: a sequence that is open, or one that has left.
      if number == 0, sequenceCount > 1 { first = sequence } else { sequence.cancel() }
    }
    first?.cancel()
    engine.stop()
  }

  @Test func `Forks and cuts answer as what was never cut`() throws {
    let engine = try rig.engine(sequenceCount: 3)
    let prompt = EngineRig.tokens(120, seed: 6)
    let first = try engine.open(request(prompt), whenFull: .queue)
    let answer = EngineRig.take(first).tokens
    #expect(answer == (try rig.alone(request(prompt)).tokens))
    for (number, position) in [128, 127, 60, 0].enumerated() {
      let more = EngineRig.tokens(9, seed: 70 + UInt64(number))
      let stream = UInt32(number + 1)
      let fork = try first.fork(at: position, stream: stream)
      try fork.append(more, limit: 5)
      let whole = Array((prompt + answer).prefix(position)) + more
      var alone = request(whole, limit: 5)
      alone.sampling.stream = stream
      #expect(EngineRig.take(fork).tokens == (try rig.alone(alone).tokens), "at \(position)")
      fork.cancel()
    }
    engine.stop()
  }
}
