import Runtime
import TensorBasics
import TestSupport
import Testing

/// Pooled hidden states: as the textbook has them, and the same bits whatever is computed beside them.
@Suite struct PoolingTests {
  private static func request(_ tokens: [Int32], _ pooling: Pooling) -> SequenceRequest {
    var request = SequenceRequest(tokens: tokens, limit: 0)
    request.pooling = pooling
    return request
  }

  /// The vector that a turn ends with.
  private static func vector(_ sequence: TokenSequence) -> [Float]? {
    while let event = sequence.next() {
      switch event {
      case .finished(let finish): return finish.embedding
      case .failed(let error): Issue.record("\(error)")
      case .queued, .reading, .token: break
      }
    }
    return nil
  }

  @Test(arguments: TinyFamilies.names + TinyFamilies.expertNames)
  func `Vectors are those of the f64 graph`(family: String) throws {
    var tiny = TinyFamilies.model(family)
    (tiny.matrixTypes, tiny.tableType) = ([.f32], .f32)
    let rig = try EngineRig(tiny)
    rig.contextLength = 24
    let tokens = EngineRig.tokens(24, seed: 5)
    let states = try NaiveDecoder.reading(rig.path).hiddenStates(tokens)
    let means = states[0].indices.map { index in
      states.reduce(0) { $0 + $1[index] } / Double(states.count)
    }
    let engine = try rig.engine(sequenceCount: 1, maximumChunkLength: 9)
    defer { engine.stop() }
    for (pooling, expected) in [(Pooling.mean, means), (.last, states[23])] {
      let sequence = try engine.open(Self.request(tokens, pooling), whenFull: .queue)
      let vector = try #require(Self.vector(sequence))
      let length = expected.reduce(0) { $0 + $1 * $1 }.squareRoot()
      let error = zip(vector, expected).reduce(0) { sum, pair in
        let difference = Double(pair.0) - pair.1
        return sum + difference * difference
      }.squareRoot()
      #expect(
        vector.count == expected.count && error < 5e-3 * length, "\(family): \(error / length)")
    }
  }

  @Test(arguments: [1, 2])
  func `A vector has the same bits in any batch and chunks`(seed: UInt64) throws {
    let rig = try EngineRig(seed: seed)
    let inputs = (0..<6).map { EngineRig.tokens(1 + 17 * $0, seed: seed + UInt64($0)) }
    let alone = try rig.engine(sequenceCount: 1, maximumChunkLength: 96)
    var expected: [[UInt32]] = []
    for (number, tokens) in inputs.enumerated() {
      let pooling = Pooling.allCases[number % 2]
      let sequence = try alone.open(Self.request(tokens, pooling), whenFull: .queue)
      expected.append(try #require(Self.vector(sequence)).map(\.bitPattern))
    }
    alone.stop()
    #expect(Set(expected).count == inputs.count)
    for (chunkLength, threadCount) in [(1, 1), (7, 2), (32, 3), (nil, 2)] as [(Int?, Int)] {
      rig.threadCount = threadCount
      let folder = TemporaryFolder()
      let engine = try rig.engine(
        sequenceCount: 5, maximumChunkLength: chunkLength, store: Engine.Store(path: folder.path))
      defer { engine.stop() }
      for _ in 0..<2 {
        var generator = SeededGenerator(seed: seed)
        let others = try (0..<3).map { number in
          // One of them reads what is pooled, so that there would be something to take over.
          var other = EngineRig.randomRequest(longest: 40, mostTokens: 30, using: &generator)
          if number == 0 { other.tokens = inputs[5] }
          return try engine.open(other, whenFull: .queue)
        }
        let pooled = try inputs.enumerated().map { number, tokens in
          try engine.open(
            Self.request(tokens, Pooling.allCases[number % 2]), whenFull: .queue)
        }
        for (number, sequence) in pooled.enumerated() {
          // Its place is for those that wait.
          let vector = Self.vector(sequence)
          sequence.cancel()
          #expect(vector?.map(\.bitPattern) == expected[number], "input \(number), seed \(seed)")
        }
        for other in others { other.cancel() }
      }
    }
  }

  @Test func `Turns have vectors of what they add, and answers that pooling does not change`()
    throws
  {
    let rig = try EngineRig()
    let engine = try rig.engine(sequenceCount: 2)
    defer { engine.stop() }
    var request = SequenceRequest(
      tokens: EngineRig.tokens(20, seed: 1), limit: 9, sampling: SamplingOptions(seed: 4),
      ignoresEnd: true)
    let plain = try engine.open(request)
    let expected = plain.outcome()
    plain.cancel()
    request.pooling = .mean
    let sequence = try engine.open(request)
    var (tokens, vectors) = ([Int32](), [[Float]?]())
    while let event = sequence.next() {
      if case .token(let id, _, _) = event { tokens.append(id) }
      if case .finished(let finish) = event { vectors.append(finish.embedding) }
    }
    #expect(tokens == expected.tokens)
    let first = try engine.open(Self.request(request.tokens, .mean))
    #expect(Self.vector(first) == vectors[0] && vectors[0] != nil)
    first.cancel()
    let more = EngineRig.tokens(5, seed: 2)
    try sequence.append(more, limit: 0)
    let second = try #require(Self.vector(sequence))
    // The mean of all is that of both parts and of the answer between them.
    let all = try engine.open(Self.request(request.tokens + tokens + more, .mean))
    let whole = try #require(Self.vector(all))
    all.cancel()
    let answered = try engine.open(Self.request(request.tokens + tokens, .mean))
    let before = try #require(Self.vector(answered))
    let (readCount, addedCount) = (Double(request.tokens.count + tokens.count), Double(more.count))
    for index in whole.indices {
      let sum = Double(before[index]) * readCount + Double(second[index]) * addedCount
      #expect(abs(sum / (readCount + addedCount) - Double(whole[index])) < 1e-4)
    }
  }
}
