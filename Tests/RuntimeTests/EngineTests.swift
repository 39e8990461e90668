import Glibc
import Runtime
import TensorBasics
import TestSupport
import Testing
import Tokenization

/// Sequences of an engine bring what they bring alone, whatever others do.
@Suite struct EngineTests {
  private static let families = ["llama", "gemma3", "qwen2moe", "llama relu"]

  @Test(arguments: families)
  func `A sequence's answer is the one it has alone, whoever joins, leaves or is cancelled`(
    family: String
  ) throws {
    var generator = SeededGenerator(seed: 0xE1)
    let rig = try EngineRig(TinyFamilies.model(family))
    var requests: [SequenceRequest] = []
    for number in 0..<20 {
      requests.append(EngineRig.randomRequest(longest: 60, mostTokens: 16, using: &generator))
      if number % 2 == 1 { try requests[number].constrain(using: &generator) }
    }
    let expected = try requests.map { try rig.alone($0) }
    for round in 0..<3 {
      let engine = try rig.engine(
        sequenceCount: [1, 3, 8][round], maximumChunkLength: [7, 512, 20][round])
      var open: [(number: Int, TokenSequence)] = []
      for number in requests.indices {
        open.append((number, try engine.open(requests[number], whenFull: .queue)))
        if Bool.random(using: &generator) { _ = engine.ready(timeout: .milliseconds(1)) }
        // A neighbour that is not wanted for long.
        if Int.random(in: 0..<3, using: &generator) == 0 {
          let neighbour = try engine.open(
            requests.randomElement(using: &generator)!, whenFull: .queue)
          if Bool.random(using: &generator) { _ = neighbour.next(timeout: .milliseconds(2)) }
          if Bool.random(using: &generator) { neighbour.cancel() }
        }
      }
      for (number, sequence) in open {
        var found = sequence.outcome(stops: requests[number].stops)
        sequence.cancel()
        if found.stop != nil { #expect(found.reason == .stop) }
        found.stop = nil
        #expect(found == expected[number], "\(family), round \(round), request \(number)")
      }
    }
  }

  @Test func `A stop string is named, and the text ends before it`() throws {
    let rig = try EngineRig()
    let request = SequenceRequest(
      tokens: [10, 11, 12], limit: 40, sampling: SamplingOptions(temperature: 0), ignoresEnd: true)
    let whole = try rig.alone(request)
    let text = String(decoding: whole.text, as: UTF8.self)
    let stop = String(text.dropFirst(text.count / 2).prefix(2))
    var stopping = request
    stopping.stops = StopStrings(["never there", stop])
    let engine = try rig.engine(sequenceCount: 2)
    let found = try engine.open(stopping).outcome(stops: stopping.stops)
    #expect(found.stop == stop && found.reason == .stop)
    #expect(whole.text.starts(with: found.text))
    #expect(whole.text.dropFirst(found.text.count).starts(with: stop.utf8))
    #expect(whole.tokens.starts(with: found.tokens))
  }

  @Test func `Log-probabilities come with the tokens that were drawn`() throws {
    let rig = try EngineRig()
    let engine = try rig.engine(sequenceCount: 1)
    let sequence = try engine.open(
      SequenceRequest(
        tokens: [10, 11, 12], limit: 8, sampling: SamplingOptions(temperature: 2, topK: 0, seed: 5),
        ignoresEnd: true, logProbabilityCount: 3))
    var count = 0
    while let event = sequence.next() {
      guard case .token(let id, let position, let list) = event else { continue }
      #expect(position == 3 + count)
      #expect((3...4).contains(list.count) && list.contains { $0.token == id })
      #expect(list[0].logProbability >= list[1].logProbability && list[0].logProbability < 0)
      count += 1
    }
    #expect(count == 8)
  }

  // MARK: - Turns

  @Test(arguments: [1, 5, 512])
  func `A turn that is appended is a longer prompt, of which the beginning is read once`(
    chunk: Int
  ) throws {
    var generator = SeededGenerator(seed: 0xE2)
    let rig = try EngineRig()
    let engine = try rig.engine(sequenceCount: 2, maximumChunkLength: chunk)
    let neighbour = try engine.open(
      SequenceRequest(tokens: [1, 2, 3], limit: 80, ignoresEnd: true))
    for _ in 0..<6 {
      var request = EngineRig.randomRequest(longest: 20, mostTokens: 6, using: &generator)
      request.stops = []
      var path = request.tokens
      let sequence = try engine.open(request)
      var found = sequence.outcome()
      for turn in 0..<3 {
        #expect(found.tokens == (try rig.alone(request)).tokens)
        path += found.tokens
        #expect(sequence.contextCount == path.count)
        let more: [Int32] = (0..<[4, 0, 9][turn]).map { _ in
          Int32.random(in: 0..<320, using: &generator)
        }
        path += more
        (request.tokens, request.limit) = (path, [3, 5, 1][turn])
        let held = path.count - more.count
        try sequence.append(more, limit: request.limit)
        found = EngineRig.Outcome()
        var usage: TokenSequence.Usage?
        while let event = sequence.next() {
          if case .token(let id, _, _) = event { found.tokens.append(id) }
          if case .finished(let finish) = event { usage = finish.usage }
        }
        #expect(usage?.promptTokenCount == path.count)
        // The last token that was drawn was not read.
        #expect((usage?.reusedTokenCount ?? 0) >= held - 1)
        #expect(usage?.answerTokenCount == found.tokens.count)
      }
      #expect(found.tokens == (try rig.alone(request)).tokens)
    }
    neighbour.cancel()
  }

  @Test func `What was cut off was never there, and a fork is read twice`() throws {
    var generator = SeededGenerator(seed: 0xE3)
    let rig = try EngineRig()
    let engine = try rig.engine(sequenceCount: 3)
    for _ in 0..<8 {
      var request = EngineRig.randomRequest(longest: 30, mostTokens: 8, using: &generator)
      request.stops = []
      let sequence = try engine.open(request)
      let path = request.tokens + sequence.outcome().tokens
      let (cut, forked) = (
        Int.random(in: 0...path.count, using: &generator),
        Int.random(in: 0...path.count, using: &generator)
      )
      let fork = try sequence.fork(at: forked, stream: 9)
      try sequence.truncate(to: cut)
      #expect(sequence.contextCount == cut && fork.contextCount == forked)
      let more: [Int32] = [5, 6, 7]
      try fork.append(more, limit: 6)
      try sequence.append(more, limit: 6)
      (request.tokens, request.limit) = (path[..<cut] + more, 6)
      #expect(sequence.outcome().tokens == (try rig.alone(request)).tokens)
      request.tokens = path[..<forked] + more
      request.sampling.stream = 9
      #expect(fork.outcome().tokens == (try rig.alone(request)).tokens)
    }
  }

  @Test func `A prompt that was read without an answer can be continued by many`() throws {
    let rig = try EngineRig()
    let engine = try rig.engine(sequenceCount: 5)
    var request = SequenceRequest(
      tokens: [9, 8, 7, 6, 5], limit: 0, sampling: SamplingOptions(temperature: 1.2, topK: 0),
      ignoresEnd: true)
    let root = try engine.open(request)
    #expect(root.outcome() == EngineRig.Outcome(reason: .length))
    let forks = try (1...4).map { try root.fork(stream: UInt32($0)) }
    for fork in forks { try fork.append([], limit: 10) }
    var answers: Set<[Int32]> = []
    for (index, fork) in forks.enumerated() {
      request.sampling.stream = UInt32(index + 1)
      request.limit = 10
      let found = fork.outcome().tokens
      #expect(found == (try rig.alone(request)).tokens)
      answers.insert(found)
    }
    #expect(answers.count > 1)
  }

  @Test func `Turns are refused where they cannot begin`() throws {
    let rig = try EngineRig()
    let engine = try rig.engine(sequenceCount: 2)
    func error(_ work: () throws -> Void) -> String {
      do { try work() } catch { return "\(error)" }
      return "none"
    }
    #expect(error { _ = try engine.open(SequenceRequest(tokens: [])) }.contains("empty"))
    #expect(error { _ = try engine.open(SequenceRequest(tokens: [1, 99_999])) }.contains("99999"))
    #expect(
      error {
        _ = try engine.open(SequenceRequest(tokens: Array(repeating: 1, count: 97)))
      }.contains("97 tokens do not fit"))
    let sequence = try engine.open(SequenceRequest(tokens: [1, 2, 3], limit: 4, ignoresEnd: true))
    #expect(error { try sequence.append([4], limit: 1) }.contains("still answering"))
    _ = sequence.outcome()
    #expect(sequence.next() == nil)
    #expect(error { try sequence.truncate(to: 8) }.contains("position 8"))
    #expect(error { _ = try sequence.fork(at: -1, stream: 0) }.contains("position -1"))
    let fork = try sequence.fork(stream: 0)
    #expect(error { _ = try sequence.fork(stream: 0) }.contains("all 2 sequences"))
    #expect(error { _ = try engine.open(SequenceRequest(tokens: [1])) }.contains("all 2 sequences"))
    try fork.truncate(to: 0)
    #expect(error { try fork.append([], limit: 1) }.contains("empty"))
    fork.cancel()
    #expect(error { try fork.append([1], limit: 1) }.contains("context is gone"))
    engine.stop()
    #expect(error { try sequence.append([1], limit: 1) }.contains("stopped"))
    #expect(error { _ = try engine.open(SequenceRequest(tokens: [1])) }.contains("stopped"))
  }

  // MARK: - Places

  @Test func `Whoever waits for a place gets it in order, and is told how many are before`() throws
  {
    let rig = try EngineRig()
    let engine = try rig.engine(sequenceCount: 1)
    let request = SequenceRequest(tokens: [1, 2, 3], limit: 3, ignoresEnd: true)
    let first = try engine.open(request)
    var waiting = try (0..<5).map { _ in try engine.open(request, whenFull: .queue) }
    for (index, sequence) in waiting.enumerated() {
      guard case .queued(index)? = sequence.next(timeout: .zero) else {
        Issue.record("number \(index) is not told")
        continue
      }
    }
    waiting.remove(at: 1).cancel()
    _ = first.outcome()
    first.cancel()
    for (index, sequence) in waiting.enumerated() {
      #expect(engine.statistics().queuedCount <= 4 - index)
      #expect(sequence.outcome().tokens.count == 3)
      // It keeps its place until it is cancelled or dropped.
      for later in waiting[(index + 1)...] {
        while case .event(let event) = later.pull(timeout: .zero) {
          guard case .queued = event else {
            Issue.record("\(event) before its turn")
            continue
          }
        }
      }
      sequence.cancel()
    }
    #expect(engine.statistics().queuedCount == 0)
  }

  @Test func `Two engines answer at the same time in one process`() throws {
    let rigs = [try EngineRig(), try EngineRig(TinyFamilies.model("gemma3"))]
    let request = SequenceRequest(
      tokens: [10, 20, 30], limit: 30, sampling: SamplingOptions(temperature: 0), ignoresEnd: true)
    let engines = try rigs.map { try $0.engine(sequenceCount: 2) }
    let sequences = try engines.map { try $0.open(request) }
    for (rig, sequence) in zip(rigs, sequences) {
      #expect(sequence.outcome() == (try rig.alone(request)))
    }
  }

  // MARK: - Events

  @Test func `Tasks take events as they come, and a task that is cancelled stops`() async throws {
    let rig = try EngineRig()
    let engine = try rig.engine(sequenceCount: 4)
    var request = SequenceRequest(
      tokens: [10, 20, 30], limit: 30, sampling: SamplingOptions(temperature: 0), ignoresEnd: true)
    let expected = try rig.alone(request).tokens
    await withTaskGroup(of: [Int32].self) { group in
      for _ in 0..<4 {
        guard let sequence = try? engine.open(request) else { continue }
        group.addTask {
          var tokens: [Int32] = []
          for await event in sequence.events {
            if case .token(let id, _, _) = event { tokens.append(id) }
          }
          return tokens
        }
      }
      for await tokens in group { #expect(tokens == expected) }
    }
    request.limit = 0
    let idle = try engine.open(request, whenFull: .queue)
    let blocker = (0..<3).compactMap { _ in try? engine.open(request, whenFull: .queue) }
    let queued = try engine.open(request, whenFull: .queue)
    let task = Task { for await _ in queued.events {} }
    task.cancel()
    await task.value
    extendLifetime((idle, blocker))
  }

  @Test func `Who waits for any sequence is told which has news`() throws {
    let rig = try EngineRig()
    let engine = try rig.engine(sequenceCount: 3)
    #expect(engine.ready(timeout: .milliseconds(1)).isEmpty)
    let request = SequenceRequest(tokens: [1, 2, 3], limit: 5, ignoresEnd: true)
    var open: [UInt64: TokenSequence] = [:]
    for _ in 0..<3 {
      let sequence = try engine.open(request)
      open[sequence.id] = sequence
    }
    var endCount = 0
    while endCount < 3 {
      for id in engine.ready() {
        while case .event(let event)? = open[id]?.pull(timeout: .zero) {
          if case .finished = event { endCount += 1 }
        }
      }
    }
    #expect(engine.ready(timeout: .zero).isEmpty)
    #expect(engine.statistics().drawnCount == 15)
  }
}
