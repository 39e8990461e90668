import Runtime
import TensorBasics
import TestSupport
import Testing

/// Clients and priorities: who waits for whom, and that nobody's answer depends on it.
@Suite struct EngineTurnTests {
  /// A sequence that holds its place for as long as it is there.
  private static let endless = SequenceRequest(tokens: [1], limit: 60000, ignoresEnd: true)

  /// When each sequence got its place, for which all of them waited; each leaves when it is answered.
  private func beginnings(_ sequences: [TokenSequence]) -> [Int] {
    var result = [Int](repeating: 0, count: sequences.count)
    let numbers = Dictionary(
      uniqueKeysWithValues: sequences.enumerated().map { ($0.element.id, $0.offset) })
    var openCount = sequences.count
    while openCount > 0 {
      for id in sequences[0].engine.ready() {
        guard let number = numbers[id] else { continue }
        while let event = sequences[number].next(timeout: .zero) {
          guard case .finished(let finish) = event else { continue }
          result[number] = finish.usage.beginNanoseconds ?? 0
          sequences[number].cancel()
          openCount -= 1
        }
      }
    }
    return result
  }

  private func request(_ client: String, priority: Int = 0) -> SequenceRequest {
    var request = SequenceRequest(tokens: [3, 4, 5], limit: 4, ignoresEnd: true)
    (request.client, request.priority) = (client, priority)
    return request
  }

  @Test func `A client with many requests does not keep another's from a place`() throws {
    let rig = try EngineRig()
    rig.contextLength = 1 << 16
    // Rows are counted.
    rig.draftRowCount = 0
    let engine = try rig.engine(sequenceCount: 1)
    let holder = try engine.open(Self.endless)
    var sequences: [TokenSequence] = []
    for _ in 0..<40 { sequences.append(try engine.open(request("many"), whenFull: .queue)) }
    sequences.append(try engine.open(request("one"), whenFull: .queue))
    let clients = engine.statistics().clients
    #expect(clients.map(\.name) == ["", "many", "one"])
    #expect(clients.map(\.queuedCount) == [0, 40, 1] && clients.map(\.openCount) == [1, 0, 0])
    holder.cancel()
    let begun = beginnings(sequences)
    #expect(begun[..<40].count { $0 < begun[40] } <= 1)
    let after = engine.statistics().clients
    #expect(after.allSatisfy { $0.openCount + $0.queuedCount == 0 })
    // Three tokens of a prompt, and three of four answered are read.
    #expect(after.first { $0.name == "many" }?.rowCount == 40 * 6)
  }

  @Test func `What stands back gets its place after the others`() throws {
    let rig = try EngineRig()
    rig.contextLength = 1 << 16
    let engine = try rig.engine(sequenceCount: 1)
    let holder = try engine.open(Self.endless)
    let sequences = try [5, 1, 9, 0, 1].map {
      try engine.open(request("a", priority: $0), whenFull: .queue)
    }
    holder.cancel()
    let begun = beginnings(sequences)
    #expect(begun.indices.sorted { begun[$0] < begun[$1] } == [3, 1, 4, 0, 2])
  }

  @Test func `A long prompt does not keep another client's short one from being read`() throws {
    let rig = try EngineRig()
    rig.contextLength = 60020
    let engine = try rig.engine(sequenceCount: 3, maximumChunkLength: 16)
    let long = try (0..<2).map { number in
      var request = SequenceRequest(
        tokens: EngineRig.tokens(60000, seed: UInt64(number)), limit: 1, ignoresEnd: true)
      request.client = "long"
      return try engine.open(request)
    }
    var short = SequenceRequest(tokens: EngineRig.tokens(40, seed: 9), limit: 1, ignoresEnd: true)
    short.client = "short"
    #expect(EngineRig.take(try engine.open(short)).tokens.count == 1)
    for sequence in long {
      while let event = sequence.next(timeout: .zero) {
        if case .token = event { Issue.record("the long prompt was read first") }
      }
      sequence.cancel()
    }
  }

  @Test func `Who waits for the reading of one that stands back does not stand back with it`()
    throws
  {
    let rig = try EngineRig()
    rig.contextLength = 60020
    let engine = try rig.engine(sequenceCount: 3, maximumChunkLength: 16)
    func open(_ client: String, _ tokens: [Int32], priority: Int = 0) throws -> TokenSequence {
      var request = SequenceRequest(tokens: tokens, limit: 1, ignoresEnd: true)
      (request.client, request.priority) = (client, priority)
      return try engine.open(request)
    }
    let long = try open("a", EngineRig.tokens(60000, seed: 1))
    let tokens = EngineRig.tokens(60000, seed: 2)
    let back = try open("b", tokens, priority: 9)
    let follower = try open("c", tokens.prefix(100) + [7])
    #expect(EngineRig.take(follower).tokens.count == 1)
    var done = 0
    while let event = long.next(timeout: .zero) {
      if case .reading(let count, _, _) = event { done = count }
    }
    // Alone, the one that stands back is read after some 37,000 rows.
    #expect(done < 30000)
    for sequence in [long, back, follower] { sequence.cancel() }
  }

  @Test func `Answers do not depend on clients and priorities`() throws {
    var generator = SeededGenerator(seed: 0x5E)
    let rig = try EngineRig()
    var requests: [SequenceRequest] = []
    for number in 0..<24 {
      requests.append(EngineRig.randomRequest(longest: 60, mostTokens: 16, using: &generator))
      if number % 3 == 0 { try requests[number].constrain(using: &generator) }
    }
    let expected = try requests.map { try rig.alone($0) }
    for sequenceCount in [1, 3] {
      let engine = try rig.engine(sequenceCount: sequenceCount, maximumChunkLength: 7)
      let threads = try requests.indices.map { number in
        var request = requests[number]
        request.client = ["", "a", "b"].randomElement(using: &generator)!
        request.priority = Int.random(in: 0...9, using: &generator)
        let sequence = try engine.open(request, whenFull: .queue)
        return try TestThread {
          var found = sequence.outcome(stops: request.stops)
          sequence.cancel()
          found.stop = nil
          #expect(found == expected[number], "request \(number)")
        }
      }
      for thread in threads { thread.join() }
    }
  }
}
