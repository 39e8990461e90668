import BlockIO
import Runtime
import Synchronization
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Drafters that work while sweeps wait for the drive.
@Suite struct DraftAheadTests {
  /// A draft model with the first layers of the rig's model.
  private static func drafter(
    for rig: EngineRig
  ) throws -> (file: TemporaryFile, drafter: ModelDrafter) {
    var tiny = TinyModel()
    tiny.layerCount = 2
    let file = TemporaryFile(tiny.gguf(seed: 3).bytes())
    let model = try DraftModel(
      LanguageModel.open(file.path), for: rig.model, rig.request(sequenceCount: 2))
    return (file, ModelDrafter(model, contextLength: rig.contextLength, memory: nil))
  }

  /// The tokens up to the deepest node.
  private static func deepestPath(_ draft: Draft) -> [Int32] {
    var rows = DraftRows()
    var draft = draft
    draft.layOut(count: .max, branchCount: 0, into: &rows)
    return rows.tokens
  }

  /// Its first proposal that is not empty: of a prompt it reads so much at a time.
  private static func proposal(
    of drafter: ModelDrafter, after context: DraftContext
  ) throws -> Draft {
    for _ in 0..<20 {
      var draft = Draft()
      try drafter.propose(after: context, into: &draft)
      if !draft.tokens.isEmpty { return draft }
    }
    return Draft()
  }

  @Test(arguments: [0, 0.9] as [Float])
  func `What was worked ahead for is proposed without reading it again`(
    temperature: Float
  ) throws {
    var tiny = TinyModel()
    tiny.layerCount = 3
    let rig = try EngineRig(tiny)
    rig.contextLength = 300
    var spared = 0
    for round in 0..<8 as Range<UInt64> {
      let (file, drafter) = try Self.drafter(for: rig)
      let (otherFile, other) = try Self.drafter(for: rig)
      defer { extendLifetime((file, otherFile)) }
      var context = DraftContext(
        path: EngineRig.tokens(40, seed: round), answerStart: 30,
        sampling: SamplingOptions(temperature: temperature, seed: round))
      for _ in 0..<4 {
        var draft = try Self.proposal(of: drafter, after: context)
        let same = try Self.proposal(of: other, after: context)
        #expect(draft.tokens.first == same.tokens.first)
        let proposedCount = draft.tokens.count
        var partCount = 0
        while try drafter.workAhead(&draft) { partCount += 1 }
        #expect(partCount <= draft.tokens.count && draft.tokens.count >= proposedCount)
        // A part of it turns out right, which ends where it went on.
        context.path += Self.deepestPath(draft).dropLast().prefix(3)
        let before = (drafter.stepCount, other.stepCount)
        let next = try Self.proposal(of: drafter, after: context)
        let expected = try Self.proposal(of: other, after: context)
        #expect(!next.tokens.isEmpty && next.tokens.first == expected.tokens.first)
        spared += other.stepCount - before.1 - (drafter.stepCount - before.0)
      }
    }
    #expect(spared > 0)
  }

  /// Parts of work that were begun.
  private final class Tally: Sendable {
    let count = Atomic(0)
  }

  /// Proposes two tokens, and has some parts of work to do after each proposal, of which one may fail.
  private final class Worker: Drafter {
    let partCount: Int
    let failingPart: Int?
    let tally: Tally
    let fallback: (any Drafter)?
    private var left = 0

    init(partCount: Int, failingPart: Int?, _ tally: Tally, fallback: (any Drafter)?) {
      (self.partCount, self.failingPart, self.tally) = (partCount, failingPart, tally)
      self.fallback = fallback
    }

    func propose(after context: DraftContext, into draft: inout Draft) {
      draft.isForced = true
      for token in [7, 9] as [Int32] { draft.append(token, grade: 0) }
      left = partCount
    }

    func workAhead(_ draft: inout Draft) throws(RuntimeError) -> Bool {
      guard left > 0 else { return false }
      left -= 1
      if tally.count.add(1, ordering: .relaxed).newValue == failingPart {
        throw .badPrompt("this part fails")
      }
      // More than are ever verified.
      for _ in 0..<50 { _ = draft.append(3, after: draft.tokens.count - 1, grade: 0) }
      return true
    }
  }

  @Test(arguments: [nil, 1, 5] as [Int?], [false, true])
  func `Whoever works ahead, or fails in it, changes no answer`(
    failingPart: Int?, hasFallback: Bool
  ) throws {
    var tiny = TinyModel.wide()
    (tiny.layerCount, tiny.matrixTypes) = (12, [.f16])
    let rig = try EngineRig(tiny)
    rig.contextLength = 300
    let device = FaultyDevice(
      try openDevice(paths: [rig.path], backend: .auto, queueDepth: 8), paths: [rig.path])
    device.comesWhenWaitedForOnly = true
    let source = ModelSource(
      path: rig.path, description: try ModelSource.describe(rig.path), device: device)
    let session = try makeSession(
      source, contextLength: 300, promptLength: 40,
      RunShape(threadCount: 2, spareByteCount: 3 << 20),
      draftRowCount: 6)
    #expect(session.plan.residency.streamedByteCount > 0 && session.plan.draftRowCount > 0)
    let request = SequenceRequest(
      tokens: EngineRig.tokens(20, seed: 4), limit: 30, ignoresEnd: true)
    let expected = try rig.alone(request)
    let tally = Tally()
    var options = GenerationOptions(
      prompt: request.tokens, maximumTokenCount: request.limit, sampling: request.sampling,
      ignoresEnd: true)
    let later = Tally()
    options.draft = DraftChoice { _, _ in
      Worker(
        partCount: 3, failingPart: failingPart, tally,
        fallback: hasFallback
          ? Worker(partCount: 1, failingPart: nil, later, fallback: nil) : nil)
    }
    var generator = TextGenerator(session: session, tokenizer: rig.model.tokenizer)
    var failures: [String] = []
    generator.onLostDrafts = { failures.append("\($0)") }
    let result = try generator.generate(options) { _ in }
    #expect(result.tokens == expected.tokens)
    #expect(result.drafts.draftedCount > 0)
    #expect(failures.count == (failingPart == nil ? 0 : 1))
    let doneCount = tally.count.load(ordering: .relaxed)
    #expect(failingPart == nil ? doneCount > 30 : doneCount == failingPart)
    // What is put in the place of one that failed goes on.
    #expect((later.count.load(ordering: .relaxed) > 10) == (hasFallback && failingPart != nil))
  }
}
