import KVCache
import Kernels
import Runtime
import Synchronization
import TensorBasics
import TestSupport
import Testing

/// Drafts that several tokens a sweep are verified of: the answer is the one without any, whoever makes them.
@Suite struct DraftTests {
  /// Proposes what is known to follow, some of it changed, and then anything: a line, or a tree that may have what is right
  /// in any of its branches.
  private final class Oracle: Drafter {
    private let whole: [Int32]
    private var generator: SeededGenerator

    init(_ whole: [Int32], seed: UInt64) {
      self.whole = whole
      generator = SeededGenerator(seed: seed)
    }

    func propose(after context: DraftContext, into draft: inout Draft) {
      draft.isForced = true
      let isTree = Int.random(in: 0..<3, using: &generator) > 0
      var nodes = [(node: -1, depth: 0)]
      for _ in 0..<Int.random(in: 0...12, using: &generator) {
        let (parent, depth) =
          nodes[isTree ? Int.random(in: 0..<nodes.count, using: &generator) : nodes.count - 1]
        let place = context.path.count + depth
        let isRight = place < whole.count && Int.random(in: 0..<6, using: &generator) > 0
        let token = isRight ? whole[place] : Int32.random(in: 0..<320, using: &generator)
        guard let node = draft.append(token, after: parent, grade: 0, rank: 0) else { continue }
        nodes.append((node, depth + 1))
      }
    }
  }

  private static func oracle(_ whole: [Int32], seed: UInt64) -> DraftChoice {
    DraftChoice { _, _ in Oracle(whole, seed: seed) }
  }

  private static let families = [
    "llama", "gemma3", "llama window", "qwen2moe", "llama relu", "qwen3next", "qwen35",
    "granitehybrid", "mamba2", "nemotron_h", "lfm2", "falcon-h1", "gla", "based",
  ]

  @Test(arguments: families, KeyValueType.allCases)
  func `Answers with drafts are those without, in batches and alone`(
    family: String, type: KeyValueType
  ) throws {
    var generator = SeededGenerator(seed: 0xD4)
    let rig = try EngineRig.of(family)
    rig.contextLength = 400
    rig.keyValues.type = type
    rig.draftRowCount = 12
    for round in 0..<3 {
      var requests: [SequenceRequest] = []
      var expected: [EngineRig.Outcome] = []
      for number in 0..<6 {
        var request = EngineRig.randomRequest(longest: 300, mostTokens: 40, using: &generator)
        if number % 2 == 1 { try request.constrain(using: &generator) }
        let outcome = try rig.alone(request)
        request.draft = Self.oracle(request.tokens + outcome.tokens, seed: generator.next())
        requests.append(request)
        expected.append(outcome)
      }
      let engine = try rig.engine(
        sequenceCount: [1, 2, 6][round], maximumChunkLength: [13, 512, 40][round])
      let open = try requests.map { try engine.open($0, whenFull: .queue) }
      for (number, sequence) in open.enumerated() {
        var found = sequence.outcome(stops: requests[number].stops)
        sequence.cancel()
        found.stop = nil
        #expect(found == expected[number], "\(family), \(type), round \(round), \(number)")
      }
      let drafts = engine.statistics().drafts
      #expect(drafts.draftedCount > 0 && drafts.acceptedCount > 0)
      #expect(drafts.acceptedCount < drafts.draftedCount)
    }
  }

  @Test func `An answer says how many drafts were verified for it`() throws {
    let rig = try EngineRig()
    var request = SequenceRequest(
      tokens: EngineRig.tokens(20, seed: 1), limit: 40, ignoresEnd: true)
    let whole = request.tokens + (try rig.alone(request)).tokens
    request.draft = Self.oracle(whole, seed: 2)
    let engine = try rig.engine(sequenceCount: 1)
    let sequence = try engine.open(request)
    var drafts = DraftCounts()
    while let event = sequence.next() {
      if case .finished(let finish) = event { drafts = finish.usage.drafts }
    }
    #expect(drafts.acceptedCount > 0 && drafts == engine.statistics().drafts)
  }

  @Test(arguments: ["full", "window=130", "sinks=100+140", "snapkv=140", "top=1/2"])
  func `With drafts policies plan what they plan without`(policy: String) throws {
    var generator = SeededGenerator(seed: 0xD5)
    let rig = try EngineRig(TinyModel())
    rig.contextLength = 700
    rig.keyValues.policy = try #require(KeyValuePolicyChoice(policy))
    for _ in 0..<4 {
      var request = EngineRig.randomRequest(longest: 560, mostTokens: 120, using: &generator)
      (request.stops, request.ignoresEnd) = ([], true)
      let outcome = try rig.alone(request)
      request.draft = Self.oracle(request.tokens + outcome.tokens, seed: generator.next())
      let engine = try rig.engine(sequenceCount: 2)
      var found = try engine.open(request).outcome()
      found.stop = nil
      #expect(found == outcome, "\(policy)")
      #expect((engine.statistics().drafts.draftedCount > 0) == (policy != "top=1/2"))
    }
  }

  @Test(arguments: ["llama", "qwen3next", "granitehybrid", "mamba2", "lfm2", "gla", "based"])
  func `A session's answer and what its context holds are those without drafts`(
    family: String
  ) throws {
    var generator = SeededGenerator(seed: 0xD6)
    let rig = try EngineRig.of(family)
    rig.contextLength = 300
    let model = rig.model
    let session = try Session(
      model.source, model.configuration, rig.request(sequenceCount: 1))
    for _ in 0..<12 {
      let request = EngineRig.randomRequest(longest: 200, mostTokens: 60, using: &generator)
      let outcome = try rig.alone(request)
      var options = GenerationOptions(
        prompt: request.tokens, maximumTokenCount: request.limit, sampling: request.sampling,
        ignoresEnd: request.ignoresEnd)
      options.stops = request.stops
      options.draft = Self.oracle(request.tokens + outcome.tokens, seed: generator.next())
      session.reset()
      let result = try TextGenerator(session: session, tokenizer: model.tokenizer)
        .generate(options) { _ in }
      #expect(result.tokens == outcome.tokens && result.text == outcome.text)
      #expect(result.finishReason == outcome.reason)
      // The last token that was drawn was not read.
      #expect(session.position == request.tokens.count + result.sampledTokenCount - 1)
      #expect(result.sweepCount + result.drafts.acceptedCount >= result.sampledTokenCount)
    }
  }

  // MARK: - Draft models

  private static func draftModel(
    _ tiny: TinyModel, for rig: EngineRig, sequenceCount: Int
  ) throws -> (TemporaryFile, DraftModel) {
    let file = TemporaryFile(tiny.gguf(seed: 3).bytes())
    let model = try LanguageModel.open(file.path)
    return (
      file, try DraftModel(model, for: rig.model, rig.request(sequenceCount: sequenceCount))
    )
  }

  @Test(arguments: ["llama", "qwen35"], [0, 0.8] as [Float])
  func `A draft model changes no answer`(family: String, temperature: Float) throws {
    var generator = SeededGenerator(seed: 0xD8)
    // The one that drafts has the same first layers where they attend.
    var tiny = TinyFamilies.model(family)
    tiny.layerCount = 3
    let rig = try EngineRig(tiny)
    rig.contextLength = 300
    rig.draftRowCount = 9
    tiny = TinyModel()
    tiny.layerCount = family == "llama" ? 2 : 1
    let (file, drafter) = try Self.draftModel(tiny, for: rig, sequenceCount: 2)
    defer { extendLifetime(file) }
    #expect(drafter.byteCount > 0)
    let engine = try Engine(
      try LanguageModel.open(rig.path), rig.request(sequenceCount: 2),
      draft: .model(drafter))
    for _ in 0..<5 {
      var requests: [SequenceRequest] = []
      for _ in 0..<3 {
        var request = EngineRig.randomRequest(longest: 150, mostTokens: 60, using: &generator)
        request.sampling.temperature = temperature
        requests.append(request)
      }
      try rig.expectAnswersAlone(to: requests, of: engine)
    }
    #expect(engine.statistics().drafts.draftedCount > 0)
    #expect(engine.takeWarnings().isEmpty)
  }

  @Test func `Draft models of other vocabularies, larger or beyond the budget are refused`() throws
  {
    let rig = try EngineRig(TinyModel())
    func refusal(_ change: (inout TinyModel) -> Void, budget: Int = 8 << 30) -> String {
      var tiny = TinyModel()
      tiny.layerCount = 1
      change(&tiny)
      let file = TemporaryFile(tiny.gguf(seed: 3).bytes())
      var request = rig.request(sequenceCount: 1)
      request.budgetByteCount = budget
      do {
        _ = try DraftModel(LanguageModel.open(file.path), for: rig.model, request)
        return "none"
      } catch { return "\(error)" }
    }
    #expect(refusal { _ in } == "none")
    #expect(refusal { $0.vocabularyCount = 300 }.contains("its vocabulary has 300 tokens"))
    #expect(refusal { $0.layerCount = 4 }.contains("must be the smaller"))
    #expect(
      refusal { $0 = TinyFamilies.model("qwen35") }.contains("some of its layers have states"))
    #expect(refusal({ _ in }, budget: 1 << 20).contains("is too small"))
  }

  // MARK: - Lookup

  @Test func `Lookup continues the longest match of the context's end, of equal ones the latest`() {
    var generator = SeededGenerator(seed: 0xD7)
    for _ in 0..<200 {
      let drafter = LookupDrafter(contextLength: 400)
      var path: [Int32] = []
      for _ in 0..<12 {
        for _ in 0..<Int.random(in: 1...25, using: &generator) {
          path.append(Int32.random(in: 0..<3, using: &generator))
        }
        var draft = Draft()
        drafter.propose(
          after: DraftContext(path: path, answerStart: 0, sampling: SamplingOptions()),
          into: &draft)
        let (expected, length) = Self.naiveLookup(path)
        #expect(draft.tokens.first == expected.first)
        var rows = DraftRows()
        draft.layOut(count: Draft.capacity, branchCount: Draft.capacity, into: &rows)
        var (row, depth) = (0, 0)
        while depth < expected.count, let next = rows.child(ofRow: row, expected[depth]) {
          (row, depth) = (next, depth + 1)
        }
        // The surer it is, the less of the tree goes to other matches.
        let least = [0, 3, 5, 8, 8, 8, 18, 18][min(length, 7)]
        #expect(length == 0 || depth >= least, "\(depth) of \(length)")
      }
    }
  }

  /// Matches of at most 32 tokens among the 48 latest places where the last two tokens occurred.
  private static func naiveLookup(_ path: [Int32]) -> (tokens: [Int32], matchLength: Int) {
    guard path.count > 1 else { return ([], 0) }
    let places = (2..<path.count).reversed().filter { path[..<$0].suffix(2) == path.suffix(2) }
    func length(_ end: Int) -> Int {
      var length = 0
      while length < min(end, 32), path[end - 1 - length] == path[path.count - 1 - length] {
        length += 1
      }
      return length
    }
    var best: (end: Int, length: Int)?
    for end in places.prefix(48) where length(end) > best?.length ?? 1 { best = (end, length(end)) }
    if best == nil, let end = (1..<path.count).last(where: { path[$0 - 1] == path.last }) {
      best = (end, 1)
    }
    guard let best else { return ([], 0) }
    var whole = path
    for index in 0..<Draft.capacity { whole.append(whole[best.end + index]) }
    return (Array(whole[path.count...]), best.length)
  }

  @Test func `What the model took for likely after the same tokens is proposed`() {
    var generator = SeededGenerator(seed: 0xDA)
    for _ in 0..<50 {
      let memory = DraftMemory(vocabularyCount: 1000)
      var known: [ArraySlice<Int32>: [Int32]] = [:]
      for last in 0..<40 as Range<Int32> {
        var logits = (0..<1000).map { _ in Float.random(in: -9...0, using: &generator) }
        let tokens = (0..<40).shuffled(using: &generator).prefix(4).map { Int32($0) }
        for (rank, token) in tokens.enumerated() { logits[Int(token)] = 12 - Float(rank) }
        let before = Int32.random(in: 0..<40, using: &generator)
        let row = logits.withUnsafeBufferPointer {
          TokenSuccessors.Row($0, after: before, last)
        }
        memory.successors.note(row)
        known[[before, last][...]] = tokens
        known[[last]] = tokens
      }
      let path = (0..<2).map { _ in Int32.random(in: 0..<40, using: &generator) }
      var draft = Draft()
      LookupDrafter(contextLength: 10, memory: memory).propose(
        after: DraftContext(path: path, answerStart: 0, sampling: SamplingOptions()), into: &draft)
      var rows = DraftRows()
      draft.layOut(count: Draft.capacity, branchCount: Draft.capacity, into: &rows)
      #expect(draft.tokens.first == known[path[1...]]?.first)
      for row in 0...rows.tokens.count {
        let whole = path + rows.path(toRow: row)
        let likely = known[whole.suffix(2)] ?? known[whole.suffix(1)] ?? []
        // Of what follows a node that is likely itself, the likeliest is there.
        if row == 0 || rows.depth(ofRow: row) == 1 && rows.tokens[row - 1] == draft.tokens[0] {
          #expect(rows.child(ofRow: row, likely[0]) != nil)
          #expect(row > 0 || likely.allSatisfy { rows.child(ofRow: row, $0) != nil })
        }
      }
    }
  }

  @Test func `The likeliest tokens of logits are those that sorting finds`() {
    var generator = SeededGenerator(seed: 0xDB)
    for count in [1, 3, 15, 16, 17, 320, 1001] {
      for _ in 0..<40 {
        let logits = (0..<count).map { _ in
          Bool.random(using: &generator)
            ? Float(Int.random(in: -3...3, using: &generator))
            : Float.random(in: -9...9, using: &generator)
        }
        let order = logits.indices.sorted { (logits[$1], $0) < (logits[$0], $1) }
        let row = logits.withUnsafeBufferPointer { TokenSuccessors.Row($0, after: -1, 0) }
        let found = (0..<TokenSuccessors.width).compactMap { row[$0].map { Int($0.token) } }
        #expect(found == Array(order.prefix(TokenSuccessors.width)))
      }
    }
  }

  @Test func `What followed in earlier answers is found, until it is overwritten`() throws {
    let memory = DraftMemory(vocabularyCount: 400, historyCapacity: 64)
    let drafter = LookupDrafter(contextLength: 100, memory: memory)
    func proposed(_ path: [Int32]) -> [Int32] {
      var draft = Draft()
      drafter.propose(
        after: DraftContext(path: path, answerStart: 0, sampling: SamplingOptions()), into: &draft)
      return draft.tokens
    }
    // After a match of two tokens, seven are likely enough to be reached.
    let answer = (100..<120).map { Int32($0) }
    memory.history.append(answer)
    #expect(proposed([1, 105, 106]) == Array(107..<114))
    // The end of an answer is none of the next.
    memory.history.append((200..<220).map { Int32($0) })
    #expect(proposed([1, 105, 106]) == Array(107..<114))
    #expect(proposed([1, 117, 118]) == [119])
    #expect(proposed([1, 105, 106, 5, 218, 219]) == [])
    for first in stride(from: 300, to: 360, by: 20) {
      memory.history.append((first..<first + 20).map { Int32($0) })
    }
    let period: [Int32] = [5, 218, 219, 105, 106]
    let repeated = (0..<7).map { period[$0 % period.count] }
    #expect(proposed([1, 105, 106] + period) == repeated)
  }

  @Test func `Rows of a tree are its likeliest nodes, the deepest line first`() {
    var generator = SeededGenerator(seed: 0xD9)
    for _ in 0..<500 {
      var draft = Draft()
      var paths: [[Int32]] = [[]]
      var nodes = [-1]
      for _ in 0..<Int.random(in: 0...20, using: &generator) {
        let parent = Int.random(in: 0..<nodes.count, using: &generator)
        let token = Int32.random(in: 0..<4, using: &generator)
        guard
          let node = draft.append(
            token, after: nodes[parent], grade: Int.random(in: 0..<10, using: &generator),
            rank: Int.random(in: 0..<4, using: &generator))
        else { continue }
        guard !nodes.contains(node) else { continue }
        nodes.append(node)
        paths.append(paths[parent] + [token])
      }
      let count = Int.random(in: 0...20, using: &generator)
      let branchCount = Int.random(in: 0...8, using: &generator)
      var rows = DraftRows()
      draft.layOut(count: count, branchCount: branchCount, into: &rows)
      let found = (0..<rows.tokens.count).map { rows.path(toRow: $0 + 1) }
      #expect(Set(found).count == found.count && Set(found).isSubset(of: paths))
      #expect(rows.branches.count <= branchCount)
      let best = draft.best(count).map { paths[nodes.firstIndex(of: $0) ?? 0] }
      #expect(rows.lineCount == best.map(\.count).max() ?? 0)
      #expect(Set(found).isSubset(of: best))
      if branchCount == 8, rows.branches.count < 8 { #expect(Set(found) == Set(best)) }
      for row in 1..<max(1, rows.tokens.count + 1) {
        let parent = rows.parent(ofRow: row)
        #expect(rows.child(ofRow: parent, rows.tokens[row - 1]) == row)
        #expect(rows.depth(ofRow: row) == rows.path(toRow: row).count)
      }
    }
  }

  // MARK: - Values that are not finite

  @Test(arguments: ["llama", "qwen35", "granitehybrid", "lfm2", "falcon-h1"])
  func `A draft whose values are not finite costs a sweep, and not the answer`(
    family: String
  ) throws {
    var tiny = TinyFamilies.model(family)
    (tiny.matrixTypes, tiny.tiesOutput) = ([.f16], false)
    var file = tiny.gguf(seed: 3)
    let table = try #require(file.tensors.firstIndex { $0.name == "token_embd.weight" })
    // Token 300 is poisoned, no other.
    let poison: Int32 = 300
    let rowByteCount = file.tensors[table].data.count / tiny.vocabularyCount
    let place = Int(poison) * rowByteCount
    file.tensors[table].data.replaceSubrange(place..<place + 2, with: [0x00, 0x7C])
    let rig = try EngineRig(bytes: file.bytes())
    var request = SequenceRequest(
      tokens: [5, 6, 7], limit: 12, sampling: SamplingOptions(temperature: 0), ignoresEnd: true)
    request.sampling.logitBias = [TokenBias(token: poison, bias: -1e9)]
    let outcome = try rig.alone(request)
    #expect(outcome.error == nil && outcome.tokens.count == 12)
    final class Poisoner: Drafter {
      let token: Int32
      init(_ token: Int32) { self.token = token }
      func propose(after context: DraftContext, into draft: inout Draft) {
        draft.isForced = true
        if context.path.count % 3 == 0 { draft.append(token, grade: 0) }
      }
    }
    request.draft = DraftChoice { _, _ in Poisoner(poison) }
    let engine = try rig.engine(sequenceCount: 2)
    let sequence = try engine.open(request)
    var found = EngineRig.Outcome()
    while let event = sequence.next() {
      if case .token(let id, _, _) = event { found.tokens.append(id) }
      if case .finished(let finish) = event { found.reason = finish.reason }
    }
    #expect(found.tokens == outcome.tokens && found.reason == outcome.reason)
    // Rows of the sweeps that failed, and no prompt read twice.
    #expect(engine.statistics().rowCount <= 3 + 3 * 12)
  }
}
