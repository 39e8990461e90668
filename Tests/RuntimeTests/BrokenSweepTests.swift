import Glibc
import KVCache
import ModelFormat
import Runtime
import Synchronization
import TensorBasics
import TestSupport
import Testing

/// Sweeps that verify drafts and are broken off anywhere, between the last layer and the draws too: of what they added, only
/// what is certain is kept.
@Suite struct BrokenSweepTests {
  /// Proposes what follows, with one that does not, and tells somebody each time.
  private final class Watched: Drafter {
    private let whole: [Int32]
    private let onProposal: @Sendable () -> Void

    init(_ whole: [Int32], onProposal: @escaping @Sendable () -> Void) {
      (self.whole, self.onProposal) = (whole, onProposal)
    }

    func propose(after context: DraftContext, into draft: inout Draft) {
      onProposal()
      draft.isForced = true
      for token in whole.dropFirst(context.path.count).prefix(4) { draft.append(token, grade: 0) }
      draft.append(7, grade: 0)
    }
  }

  /// Counts parts of the decoder from the first sweep with drafts on.
  private final class PartCounter: Sendable {
    private let count = Atomic(-1)

    func begin() { _ = count.compareExchange(expected: -1, desired: 0, ordering: .relaxed) }

    /// The part's number, the first is 1; 0 before that.
    func next() -> Int {
      count.load(ordering: .relaxed) < 0 ? 0 : count.add(1, ordering: .relaxed).newValue
    }
  }

  private let folder = TemporaryFolder()
  private let rig: EngineRig
  private let request: SequenceRequest
  private let whole: [Int32]

  init() throws {
    rig = try EngineRig(TinyModel())
    rig.contextLength = 400
    var request = SequenceRequest(
      tokens: EngineRig.tokens(250, seed: 5), limit: 20, ignoresEnd: true)
    request.sampling.temperature = 0
    self.request = request
    whole = request.tokens + (try rig.alone(request)).tokens
  }

  /// Answers, and stores what was computed; after `partCount` parts of the first sweep with drafts it is told to stop.
  private func answer(
    _ rig: EngineRig, _ whole: [Int32], breakingOffAfter partCount: Int?
  ) throws -> GenerationResult {
    let (counter, cancellation) = (PartCounter(), CancellationFlag())
    var plan = rig.request(sequenceCount: 1)
    let persistence = try KeyValuePersistence(
      KeyValueDirectory(path: folder.path, byteLimit: 1 << 30), rig.model, prompt: request.tokens,
      for: &plan, warn: { Issue.record("\($0)") })
    let session = try Session(
      rig.model.source, rig.model.configuration, plan, cancellation: cancellation)
    persistence.resume(session)
    session.onDecodePart = { if counter.next() == partCount { cancellation.raise() } }
    var options = GenerationOptions(
      prompt: request.tokens, maximumTokenCount: request.limit, sampling: request.sampling,
      ignoresEnd: true)
    options.draft = DraftChoice { _, _ in
      Watched(whole) { counter.begin() }
    }
    let result = try TextGenerator(session: session, tokenizer: rig.model.tokenizer)
      .generate(options) { _ in }
    persistence.store(request.tokens + result.tokens, of: session)
    #expect(session.keyValues.positionCount <= request.tokens.count + result.tokens.count)
    return result
  }

  @Test func `A run that stops in any part of a sweep with drafts stores what is certain`() throws {
    var (partCount, reusedCounts) = (1, [Int]())
    while true {
      KeyValueDirectory.clear(folder.path)
      let broken = try answer(rig, whole, breakingOffAfter: partCount)
      guard broken.wasInterrupted else { break }
      #expect((request.tokens + broken.tokens) == Array(whole.prefix(250 + broken.tokens.count)))
      let next = try answer(rig, whole, breakingOffAfter: nil)
      reusedCounts.append(next.reusedTokenCount)
      #expect(request.tokens + next.tokens == whole, "part \(partCount)")
      partCount += 1
    }
    // In the middle of the layers the page group that is being filled is lost, after them it is not.
    #expect(reusedCounts.count > 2 && reusedCounts.allSatisfy { $0 >= 128 })
    #expect(reusedCounts.last == 249)
  }

  @Test(arguments: ["qwen3next", "granitehybrid", "lfm2", "falcon-h1"])
  func `A run with states that stops in any part of a sweep with drafts stores states of before`(
    family: String
  ) throws {
    let rig = try EngineRig(TinyFamilies.model(family))
    rig.contextLength = 400
    let whole = request.tokens + (try rig.alone(request)).tokens
    var partCount = 1
    while true {
      KeyValueDirectory.clear(folder.path)
      let broken = try answer(rig, whole, breakingOffAfter: partCount)
      guard broken.wasInterrupted else { break }
      #expect((request.tokens + broken.tokens) == Array(whole.prefix(250 + broken.tokens.count)))
      let next = try answer(rig, whole, breakingOffAfter: nil)
      #expect(next.reusedTokenCount == 128 && request.tokens + next.tokens == whole)
      partCount += 1
    }
    #expect(partCount > 10)
  }

  @Test(arguments: [
    "llama", "qwen3next", "qwen35", "granitehybrid", "mamba2", "lfm2", "gla", "based",
  ])
  func `A session goes on from where a sweep with drafts began that was broken off`(
    family: String
  ) throws {
    let rig = try EngineRig.of(family)
    rig.contextLength = 400
    var request = SequenceRequest(
      tokens: EngineRig.tokens(50, seed: 8), limit: 14, ignoresEnd: true)
    request.sampling.temperature = 0
    let answer = try rig.alone(request).tokens
    let whole = request.tokens + answer
    let expected = try logitBits(
      try Session(rig.model.source, rig.model.configuration, rig.request(sequenceCount: 1)),
      prompt: request.tokens, decoding: answer)
    var partCount = 1
    while true {
      let (counter, cancellation) = (PartCounter(), CancellationFlag())
      let session = try Session(
        rig.model.source, rig.model.configuration, rig.request(sequenceCount: 1),
        cancellation: cancellation)
      session.onDecodePart = { [partCount] in
        if counter.next() == partCount { cancellation.raise() }
      }
      var options = GenerationOptions(
        prompt: request.tokens, maximumTokenCount: request.limit, sampling: request.sampling,
        ignoresEnd: true)
      options.draft = DraftChoice { _, _ in Watched(whole) { counter.begin() } }
      let result = try TextGenerator(session: session, tokenizer: rig.model.tokenizer)
        .generate(options) { _ in }
      guard result.wasInterrupted else { break }
      cancellation.lower()
      let position = session.position
      #expect(try session.truncate(to: position) == position, "part \(partCount)")
      for index in position..<whole.count {
        let logits = Array(try session.decode(whole[index])).map(\.bitPattern)
        #expect(logits == expected[index + 1 - request.tokens.count], "part \(partCount)")
      }
      partCount += 1
    }
    // A sweep has more parts than blocks.
    #expect(partCount > rig.model.configuration.layers.reduce(0) { $0 + $1.blocks.count })
  }

  @Test func `Stored keys and values that are damaged amid drafts are computed again`() throws {
    let rig = try EngineRig(TinyModel())
    rig.contextLength = 800
    var request = SequenceRequest(
      tokens: EngineRig.tokens(700, seed: 6), limit: 20, ignoresEnd: true)
    request.sampling.temperature = 0
    let whole = request.tokens + (try rig.alone(request)).tokens
    let store = Engine.Store(path: folder.path, byteLimit: 1 << 30)
    _ = try rig.engine(sequenceCount: 1, store: store).open(request).outcome()
    let name = try #require(folder.entries.first { $0.hasSuffix(".kv") })
    let path = folder.path + "/" + name
    // Pages are read again in each sweep.
    rig.keyValues.budgetByteCount = KeyValuePlan.minimumByteCount(
      KeyValueShape(rig.model.configuration, contextLength: 800), chunkLength: 100)
    let engine = try rig.engine(sequenceCount: 1, maximumChunkLength: 100, store: store)
    let proposals = PartCounter()
    proposals.begin()
    request.draft = DraftChoice { _, _ in
      Watched(whole) { if proposals.next() == 3 { Self.damage(path) } }
    }
    let found = EngineRig.take(try engine.open(request))
    #expect(request.tokens + found.tokens == whole)
    let warnings = engine.takeWarnings()
    #expect(warnings.contains { $0.contains("damaged") }, "\(warnings)")
  }

  /// Changes the middle of a file in place.
  private static func damage(_ path: String) {
    guard let file = fopen(path, "r+") else { return }
    defer { fclose(file) }
    fseek(file, 0, SEEK_END)
    let count = ftell(file)
    fseek(file, count / 4, SEEK_SET)
    for _ in 0..<count / 2 { fputc(0x5A, file) }
  }

  @Test(arguments: ["llama", "qwen35"])
  func `Sequences that leave at any moment of a sweep with drafts store what is certain`(
    family: String
  ) throws {
    let rig = try EngineRig(TinyFamilies.model(family))
    rig.contextLength = 400
    let whole = request.tokens + (try rig.alone(request)).tokens
    var generator = SeededGenerator(seed: 0xB5)
    let store = Engine.Store(path: folder.path, byteLimit: 1 << 30)
    let engine = try rig.engine(sequenceCount: 1, store: store)
    for round in 0..<150 {
      let (delay, wanted) = (
        UInt32.random(in: 0...1500, using: &generator), Int.random(in: 1...6, using: &generator)
      )
      var request = request
      request.draft = DraftChoice { _, _ in Watched(whole) {} }
      let sequence = try engine.open(request, whenFull: .queue)
      var tokens: [Int32] = []
      while tokens.count < wanted, let event = sequence.next() {
        if case .token(let id, _, _) = event { tokens.append(id) }
      }
      usleep(delay)
      sequence.cancel()
      #expect(whole[250...].starts(with: tokens), "round \(round)")
    }
    #expect(try engine.open(request, whenFull: .queue).outcome().tokens == Array(whole[250...]))
    #expect(engine.takeWarnings().isEmpty)
  }
}

extension KeyValueDirectory {
  fileprivate static func clear(_ path: String) {
    _ = try? KeyValueDirectory(openingExisting: path).removeAll()
  }
}
