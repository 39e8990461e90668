import BlockIO
import CAllocationCount
import Glibc
import KVCache
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// The decode loop allocates nothing: each case runs in a process of its own, in which every
/// allocation of every thread is counted.
@Suite(.enabled(if: allocation_count_is_available(), "a sanitizer has its own allocator"))
struct AllocationTests {
  @Test func `The count sees allocations`() {
    let before = allocation_count()
    let array = [Int](repeating: 1, count: 1000 + Int(before & 1))
    #expect(array.count >= 1000 && allocation_count() > before)
  }

  @Test func `Decoding in memory allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.report(image: true, isStreamed: false) }
    Self.expectNone(result)
  }

  @Test func `Decoding an image from the drive allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.report(image: true, isStreamed: true) }
    Self.expectNone(result)
  }

  @Test func `Decoding an image of which every read is verified allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.report(image: true, isStreamed: true, verification: .always) }
    Self.expectNone(result)
  }

  @Test func `Decoding a GGUF from the drive allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.report(image: false, isStreamed: true) }
    Self.expectNone(result)
  }

  @Test func `Decoding with pread threads allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.report(image: true, isStreamed: true, backend: .pread) }
    Self.expectNone(result)
  }

  @Test func `Decoding through a mapping allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.report(image: false, isStreamed: true, backend: .mmap) }
    Self.expectNone(result)
  }

  @Test func `Decoding a striped image allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.report(image: true, isStreamed: true, drives: .striped) }
    Self.expectNone(result)
  }

  @Test func `Decoding from a mirror allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.report(image: true, isStreamed: true, drives: .mirrored) }
    Self.expectNone(result)
  }

  /// Where the model lies.
  private enum Drives {
    case one
    case striped
    case mirrored
  }

  @Test func `Decoding experts from the drive allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.report(image: true, isStreamed: true, architecture: "qwen2moe") }
    Self.expectNone(result)
  }

  @Test func `Decoding with keys and values on the drive allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.report(image: true, isStreamed: false, backend: .uring, keyValuesRead: .f16) }
    Self.expectNone(result)
  }

  @Test func `Decoding with keys and values read by threads allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.report(image: true, isStreamed: false, backend: .pread, keyValuesRead: .f16) }
    Self.expectNone(result)
  }

  @Test func `Decoding with quantised keys and values allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.report(image: true, isStreamed: false, keyValuesRead: .q4) }
    Self.expectNone(result)
  }

  @Test func `Decoding several sequences in memory allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.reportSequences(architecture: "gemma3", isStreamed: false) }
    Self.expectNone(result)
  }

  @Test func `Decoding several sequences from the drive allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.reportSequences(architecture: "qwen3", isStreamed: true) }
    Self.expectNone(result)
  }

  @Test func `Decoding several sequences with quantised keys and values allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.reportSequences(architecture: "phi3", isStreamed: false, type: .q4) }
    Self.expectNone(result)
  }

  @Test func `Decoding several sequences over experts allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.reportSequences(architecture: "qwen2moe", isStreamed: true, bundling: .experts) }
    Self.expectNone(result)
  }

  @Test func `Decoding several sequences over neurons allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.reportSequences(architecture: "llama", isStreamed: true, bundling: .neurons) }
    Self.expectNone(result)
  }

  @Test func `Verifying drafts in memory allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.reportSequences(architecture: "gemma3", isStreamed: false, draftCount: 7) }
    Self.expectNone(result)
  }

  @Test func `Verifying drafts with quantised keys and values allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.reportSequences(architecture: "phi3", isStreamed: false, type: .q4, draftCount: 19) }
    Self.expectNone(result)
  }

  @Test(arguments: ["qwen35", "granitehybrid"])
  func `Verifying drafts by layers with states allocates nothing`(architecture: String) async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { [architecture] in
      Self.reportSequences(architecture: architecture, isStreamed: false, draftCount: 7)
    }
    Self.expectNone(result)
  }

  @Test(arguments: [false, true])
  func `Answers with drafts allocate as much however long they are`(isOfModel: Bool) async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { [isOfModel] in Self.reportAnswers(draftedByModel: isOfModel) }
    Self.expectNone(result)
  }

  @Test func `Drawing tokens allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { print("allocations: \(Self.allocationsOfDraws());") }
    Self.expectNone(result)
  }

  /// Allocations of twenty draws with each kind of filter after the first.
  private static func allocationsOfDraws() -> Int {
    var generator = SeededGenerator(seed: 1)
    let logits = (0..<50_000).map { _ in Float(generator.nextUnit() * 20) }
    let history = (0..<100).map { Int32($0 * 7) }
    let filters: [(Float, Int, Float, Float, Float)] = [
      (0, 0, 1, 0, 1), (1, 0, 1, 0, 1), (1, 0, 0.9, 0, 1), (1, 40, 0.95, 0.05, 1.1),
      (1, 20_000, 1, 0, 1), (1, 0, 1, 0.05, 1.1),
    ]
    var samplers = filters.map {
      Sampler(
        options: SamplingOptions(
          temperature: $0.0, topK: $0.1, topP: $0.2, minP: $0.3, repetitionPenalty: $0.4),
        vocabularyCount: logits.count)
    }
    var before = 0
    for position in 0...20 {
      for index in samplers.indices {
        _ = samplers[index].draw(logits.span, history: history.span, position: position)
      }
      if position == 0 { before = allocation_count() }
    }
    return allocation_count() - before
  }

  /// Expects the process to have printed that it allocated nothing.
  private static func expectNone(_ result: ExitTest.Result?) {
    let output = String(decoding: result?.standardOutputContent ?? [], as: UTF8.self)
    #expect(output.contains("allocations: 0;"), "\(output)")
  }

  /// Prints what ``check(image:isStreamed:backend:drives:)`` counts, or its error.
  private static func report(
    image: Bool, isStreamed: Bool, backend: StorageBackend = .auto, drives: Drives = .one,
    architecture: String = "gemma3", keyValuesRead: KeyValueType? = nil,
    verification: Verification = .first
  ) {
    do {
      let count = try check(
        image: image, isStreamed: isStreamed, backend: backend, drives: drives,
        architecture: architecture, keyValuesRead: keyValuesRead, verification: verification)
      print("allocations: \(count);")
    } catch { print("\(error)") }
  }

  /// Allocations of fifty tokens after the first.
  private static func check(
    image: Bool, isStreamed: Bool, backend: StorageBackend, drives: Drives, architecture: String,
    keyValuesRead: KeyValueType?, verification: Verification
  ) throws -> Int {
    var tiny = TinyModel(architecture: architecture)
    tiny.hiddenSize = 256
    tiny.feedForwardLength = 512
    tiny.headDim = 64
    tiny.matrixTypes = [.q8_0, .q4_K, .f16]
    let gguf = tiny.gguf(seed: 5).bytes()
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let source = try source(
      image ? try ImageBuilder.image(of: gguf) : gguf, on: drives, in: folder, backend: backend)
    guard let configuration = source.description.configuration else { exit(2) }
    var request = MemoryPlan.Request(
      budgetByteCount: isStreamed ? 1 : 1 << 30, contextLength: 128, promptLength: 4,
      threadCount: 2)
    request.assumedProcessByteCount = 0
    request.verification = verification
    if let keyValuesRead {
      request.contextLength = 800
      request.keyValues.backend = backend
      request.keyValues.budgetByteCount = KeyValuePlan.minimumByteCount(
        KeyValueShape(configuration, contextLength: 800, type: keyValuesRead), chunkLength: 4)
      request.keyValues.type = keyValuesRead
    }
    if isStreamed {
      do { _ = try Session(source, configuration, request) } catch {
        guard case .budgetTooSmall(_, let minimum, _) = error else { exit(2) }
        request.budgetByteCount = minimum.bytes
      }
    }
    let session = try Session(source, configuration, request)
    guard
      session.plan.residency.isFullyPinned != isStreamed || session.plan.expertSlotCount > 0
    else { exit(3) }
    _ = try session.prefill(
      keyValuesRead != nil ? (0..<620).map { Int32($0 % 300) } : [1, 2, 3, 4])
    guard session.keyValues.plan.hasTier == (keyValuesRead != nil) else { exit(4) }
    var generator = SeededGenerator(seed: 1)
    func decode() throws { _ = try session.decode(Int32(generator.next() % 300)) }
    try decode()
    let before = allocation_count()
    for _ in 0..<50 { try decode() }
    return allocation_count() - before
  }

  /// Has all that another proposes verified, whatever that takes.
  private final class Forcing: Drafter {
    private let drafter: any Drafter
    init(_ drafter: any Drafter) { self.drafter = drafter }

    var recycles: Bool { drafter.recycles }
    var stepCount: Int { drafter.stepCount }

    func workAhead(_ draft: inout Draft) throws(RuntimeError) -> Bool {
      try drafter.workAhead(&draft)
    }

    func propose(
      after context: DraftContext, into draft: inout Draft
    ) throws(RuntimeError) {
      try drafter.propose(after: context, into: &draft)
      draft.isForced = true
    }
  }

  /// Prints what an answer of 150 tokens allocates more than one of 20, or its error.
  private static func reportAnswers(draftedByModel: Bool) {
    do {
      let rig = try EngineRig(TinyModel())
      rig.contextLength = 300
      let session = try Session(
        rig.model.source, rig.model.configuration, rig.request(sequenceCount: 1))
      let generator = TextGenerator(session: session, tokenizer: rig.model.tokenizer)
      var smaller = TinyModel()
      smaller.layerCount -= 1
      let file = TemporaryFile(smaller.gguf(seed: 3).bytes())
      defer { extendLifetime(file) }
      let draft =
        draftedByModel
        ? DraftChoice.model(
          try DraftModel(
            LanguageModel.open(file.path), for: rig.model, rig.request(sequenceCount: 1)))
        : .lookup
      guard let makeDrafter = draft.makeDrafter else { exit(2) }
      func allocations(_ tokenCount: Int) throws -> Int {
        session.reset()
        var options = GenerationOptions(
          prompt: (0..<100).map { $0 * 7 % 40 }, maximumTokenCount: tokenCount, ignoresEnd: true)
        options.sampling.temperature = 0
        options.draft = DraftChoice { Forcing(makeDrafter($0, $1)) }
        let before = allocation_count()
        let drafts = try generator.generate(options) { _ in }.drafts
        let count = allocation_count() - before
        guard drafts.draftedCount > 0 else { exit(5) }
        return count
      }
      // Lists grow to what trees need, whose shapes follow from what drafting takes.
      for _ in 0..<3 { _ = try allocations(150) }
      let differences = try (0..<3).map { _ in
        let short = try allocations(20)
        return try allocations(150) - short
      }
      print("allocations: \(differences.min() ?? -1); \(differences)")
    } catch { print("\(error)") }
  }

  /// Prints the sum of what ``check(sequenceCount:architecture:isStreamed:type:bundling:draftCount:)`` counts, or its
  /// error.
  ///
  /// - Parameters:
  ///   - bundling: that of the model's image; nil = the model is a GGUF file.
  ///   - draftCount: most drafts that a sweep verifies of each sequence.
  private static func reportSequences(
    architecture: String, isStreamed: Bool, type: KeyValueType = .f16, bundling: Bundling? = nil,
    draftCount: Int = 0
  ) {
    do {
      let counts = try [2, 12, 64].map {
        try check(
          sequenceCount: $0, architecture: architecture, isStreamed: isStreamed, type: type,
          bundling: bundling, draftCount: draftCount)
      }
      print("allocations: \(counts.reduce(0, +)); \(counts)")
    } catch { print("\(error)") }
  }

  /// Allocations of 133 steps with a token of each sequence, after and until all complete a page; with drafts after
  /// each token, all of which are rejected.
  private static func check(
    sequenceCount: Int, architecture: String, isStreamed: Bool, type: KeyValueType,
    bundling: Bundling?, draftCount: Int
  ) throws -> Int {
    var tiny = TinyModel(architecture: architecture)
    tiny.hiddenSize = 256
    tiny.feedForwardLength = 512
    tiny.headDim = 64
    tiny.matrixTypes = bundling == .neurons ? [.q8_0] : [.q8_0, .q4_K, .f16]
    if bundling == .neurons { tiny.hiddenActivation = "relu" }
    let gguf = tiny.gguf(seed: 5).bytes()
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let source = try source(
      bundling == nil ? gguf : try ImageBuilder.image(of: gguf, bundling: bundling), on: .one,
      in: folder, backend: .auto)
    guard let configuration = source.description.configuration else { exit(2) }
    var request = MemoryPlan.Request(
      budgetByteCount: isStreamed ? 1 : 1 << 30, contextLength: 300, promptLength: 120,
      threadCount: 2)
    request.assumedProcessByteCount = 0
    request.sequenceCount = sequenceCount
    request.keyValues.type = type
    request.draftRowCount = draftCount
    if isStreamed {
      do { _ = try EngineCore(source, configuration, request) } catch {
        guard case .budgetTooSmall(_, let minimum, _) = error else { exit(2) }
        request.budgetByteCount = minimum.bytes
      }
    }
    let core = try EngineCore(source, configuration, request)
    guard core.plan.residency.isFullyPinned != isStreamed || bundling != nil else { exit(3) }
    let prompt = (0..<120).map { Int32($0 * 7 % 300) }
    var caches: [KeyValueStore] = []
    for _ in 0..<sequenceCount {
      caches.append(try core.openSequence())
      for first in stride(from: 0, to: prompt.count, by: core.plan.chunkLength) {
        core.batch.removeAll()
        prompt[first..<min(first + core.plan.chunkLength, prompt.count)].withUnsafeBufferPointer {
          core.batch.append($0, at: first, .read, in: caches.last!, logitCount: 1)
        }
        try core.step(continues: true) { _, _ in }
      }
    }
    let tokens = (0..<sequenceCount + 20).map { Int32($0 * 3 % 300) }
    var verifiedCount = 0
    for position in 120..<132 {
      verifiedCount += try decode(tokens, in: caches, at: position, core)
    }
    let before = allocation_count()
    for position in 132..<265 {
      verifiedCount += try decode(tokens, in: caches, at: position, core)
    }
    let count = allocation_count() - before
    guard draftCount == 0 || verifiedCount > 100 else { exit(4) }
    return count
  }

  /// A token of each sequence, and after it as many drafts as there is room for, all of which are rejected.
  ///
  /// - Returns: how many drafts were verified.
  private static func decode(
    _ tokens: [Int32], in caches: [KeyValueStore], at position: Int, _ core: EngineCore
  ) throws -> Int {
    core.batch.removeAll()
    var verifiedCount = 0
    for (number, cache) in caches.enumerated() {
      let room = core.batch.rowCapacity - core.batch.rowCount - (caches.count - number)
      let most = core.draftRoom(of: cache)
      let drafts = max(0, min(room, most.count - verifiedCount, most.depth))
      verifiedCount += drafts
      tokens[number...number + drafts].withUnsafeBufferPointer {
        core.batch.append(
          $0, at: position, .answer, in: cache, logitCount: $0.count, draftCount: drafts)
      }
    }
    try core.step(continues: true) { _, _ in }
    for span in core.batch.spans.indices where core.batch.spans[span].draftCount > 0 {
      core.batch.keepDrafts(ofSpan: span, branch: nil, to: position + 1)
    }
    return verifiedCount
  }

  /// A model of `bytes`, opened from files in `folder`.
  private static func source(
    _ bytes: [UInt8], on drives: Drives, in folder: TemporaryFolder, backend: StorageBackend
  ) throws -> ModelSource {
    switch drives {
    case .one:
      return try ModelSource.open(folder.write("model", bytes), backend: backend)
    case .striped:
      let members = StripeBuilder.members(of: bytes, unitByteCount: 4096, paths: ["a", "b"])
      folder.write("a", members[0])
      return try ModelSource.open(folder.write("b", members[1]), backend: backend)
    case .mirrored:
      return try ModelSource.open(
        folder.write("a", bytes), mirrors: [folder.write("b", bytes)], backend: backend)
    }
  }
}
