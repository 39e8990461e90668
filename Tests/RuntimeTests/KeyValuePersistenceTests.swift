import BlockIO
import Glibc
import KVCache
import Kernels
import ModelFormat
import Runtime
import Synchronization
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Runs that share a store of keys and values, on drives that fail.
@Suite final class KeyValuePersistenceTests {
  private let folder = TemporaryFolder()
  private let store = TemporaryFolder()
  private let cache = TemporaryFolder()
  private let records: WeightRecords
  private let bytes: [UInt8]
  private var model: LanguageModel
  private let prompt = (0..<700).map { Int32($0 * 37 % 256 + 1) }

  init() throws {
    var tiny = TinyModel()
    tiny.contextLength = 4096
    bytes = tiny.gguf(seed: 1).bytes()
    let path = folder.write("model", bytes)
    records = WeightRecords(folder: cache.path + "/checksums")
    model = try LanguageModel(ModelSource.open(path, records: records))
  }

  /// Opens a file of the folder, as another process would.
  private func open(_ name: String) throws {
    model = try LanguageModel(ModelSource.open("\(folder.path)/\(name)", records: records))
  }

  private struct Outcome {
    var tokens: [Int32]
    var reusedTokenCount: Int
    var warnings: [String]
  }

  /// Answers the prompt as a process of its own would.
  private func answer(
    _ prompt: [Int32]? = nil, tokenCount: Int = 12, in store: TemporaryFolder? = nil,
    hooks: DeviceHooks = DeviceHooks(), backend: StorageBackend = .auto,
    keyValueBudget: Int? = nil, threadCount: Int = 1,
    limit: Int = 1 << 30, type: KeyValueType = .f16, policy: KeyValuePolicyChoice = .full,
    sampling: SamplingOptions = SamplingOptions(temperature: 0),
    directory: KeyValueDirectory? = nil, during work: () -> Void = {}
  ) throws -> Outcome {
    let (prompt, store) = (prompt ?? self.prompt, store ?? self.store)
    var warnings: [String] = []
    var request = MemoryPlan.Request(
      budgetByteCount: 8 << 30, contextLength: prompt.count + tokenCount,
      promptLength: prompt.count,
      threadCount: threadCount)
    request.assumedProcessByteCount = 0
    request.keyValues.budgetByteCount = keyValueBudget
    request.keyValues.hooks = hooks
    request.keyValues.backend = backend
    request.keyValues.type = type
    request.keyValues.policy = policy
    let persistence = try KeyValuePersistence(
      directory ?? KeyValueDirectory(path: store.path, byteLimit: limit), model, prompt: prompt,
      for: &request, warn: { warnings.append($0) })
    let session = try Session(model.source, model.configuration, request)
    persistence.resume(session)
    session.keyValues.pool.onWarning = { warnings.append($0) }
    var generator = TextGenerator(session: session, tokenizer: model.tokenizer)
    generator.onLostPrefix = { persistence.removePrefix(because: $0) }
    let options = GenerationOptions(
      prompt: prompt, maximumTokenCount: tokenCount, sampling: sampling, ignoresEnd: true)
    let result = try generator.generate(options) { _ in }
    work()
    persistence.store(prompt + result.tokens, of: session)
    return Outcome(
      tokens: result.tokens, reusedTokenCount: result.reusedTokenCount, warnings: warnings)
  }

  @Test("Reused keys and values give the tokens that computed ones do, however memory is divided")
  func reuse() throws {
    let expected = try answer()
    #expect(expected.reusedTokenCount == 0 && expected.warnings.isEmpty)
    for (budget, threadCount) in [(nil, 1), (nil, 2), (1 << 20, 1), (300 << 10, 2)] {
      let again = try answer(keyValueBudget: budget, threadCount: threadCount)
      #expect(again.tokens == expected.tokens && again.warnings.isEmpty)
      #expect(again.reusedTokenCount == 699)
    }
    #expect(store.entries.count == 1)
  }

  /// Each token's noise belongs to its position, wherever a run begins.
  @Test(arguments: KeyValueType.allCases)
  func `A drawn answer that was resumed is that of a run that never stopped`(
    type: KeyValueType
  ) throws {
    let empty = TemporaryFolder()
    var sampling = SamplingOptions(
      temperature: 50, topK: 100, topP: 1, minP: 0, repetitionPenalty: 1.2, seed: 9)
    let whole = try answer(tokenCount: 60, in: empty, type: type, sampling: sampling)
    #expect(Set(whole.tokens).count > 20 && whole.reusedTokenCount == 0)
    for cut in [1, 43] {
      let own = TemporaryFolder()
      let first = try answer(tokenCount: cut, in: own, type: type, sampling: sampling)
      let rest = try answer(
        prompt + first.tokens, tokenCount: 60 - cut, in: own, keyValueBudget: 1 << 20,
        threadCount: 2, type: type, sampling: sampling)
      #expect(rest.reusedTokenCount >= 640, "\(cut)")
      #expect(first.tokens + rest.tokens == whole.tokens, "\(cut)")
    }
    sampling.stream = 1
    let other = try answer(tokenCount: 60, in: empty, type: type, sampling: sampling)
    #expect(other.tokens != whole.tokens)
  }

  /// longrope chooses its frequencies by the length of the context, here 712 and 714 positions.
  @Test func `Contexts with other frequencies share no keys`() throws {
    var tiny = TinyModel(architecture: "phi3")
    tiny.contextLength = 4096
    tiny.shortContextLength = 713
    folder.write("longrope", tiny.gguf(seed: 1).bytes())
    try open("longrope")
    #expect(try answer(tokenCount: 12).reusedTokenCount == 0)
    #expect(try answer(tokenCount: 13).reusedTokenCount == 699)
    let fresh = try answer(tokenCount: 14, in: TemporaryFolder())
    let long = try answer(tokenCount: 14)
    #expect(long.reusedTokenCount == 0 && long.tokens == fresh.tokens)
    #expect(try answer(tokenCount: 15).reusedTokenCount == 699)
  }

  /// The model with eight rows of its embedding table, or the end of another tensor, changed.
  private func edited(_ tensor: String) throws -> [UInt8] {
    let table = try TensorTable(model.source.description.tensors)
    let record = try #require(table[tensor])
    var edited = bytes
    if record.rowCount == 1 {
      edited[record.offset + record.byteCount - 1] ^= 1
    } else {
      let rowByteCount = record.byteCount / record.rowCount
      for row in 1..<9 {
        let (own, other) = (record.offset + row * rowByteCount, record.offset)
        edited.replaceSubrange(
          own..<own + rowByteCount, with: bytes[other..<other + rowByteCount])
      }
    }
    return edited
  }

  private enum Edit: CaseIterable { case inPlace, byRename, inPlaceWhenKnown, byRenameWhenKnown }

  @Test(
    "A file that was edited uses nothing that was kept before, and answers as without a store",
    arguments: ["token_embd.weight", "output_norm.weight", "blk.1.ffn_down.weight"], Edit.allCases)
  private func edits(tensor: String, edit: Edit) throws {
    let before = try answer()
    let isKnown = edit == .inPlaceWhenKnown || edit == .byRenameWhenKnown
    if isKnown { _ = try model.source.computeIdentity() }
    let (path, edited) = (folder.path + "/model", try edited(tensor))
    var status = stat()
    stat(path, &status)
    switch edit {
    case .inPlace, .inPlaceWhenKnown:
      let file = Glibc.open(path, O_WRONLY)
      #expect(pwrite(file, edited, edited.count, 0) == edited.count)
      futimens(file, [status.st_atim, status.st_mtim])
      close(file)
    case .byRename, .byRenameWhenKnown:
      folder.write("new", edited)
      rename(folder.path + "/new", path)
    }
    try open("model")
    let empty = TemporaryFolder()
    let expected = try answer(in: empty)
    let outcome = try answer()
    #expect(outcome.tokens == expected.tokens && outcome.reusedTokenCount == 0)
    #expect(try answer().reusedTokenCount == 699)
    if isKnown { _ = try model.source.computeIdentity() }
    #expect(try answer().tokens == expected.tokens)
    // The first file once more is a third one, until it is read.
    folder.write("first", bytes)
    try open("first")
    #expect(try answer().reusedTokenCount == 0)
    _ = try model.source.computeIdentity()
    let again = try answer()
    #expect(again.reusedTokenCount == 699 && again.tokens == before.tokens)
  }

  @Test("A copy uses what was kept when the checksums of both are known, and not before")
  func copies() throws {
    let expected = try answer()
    folder.write("copy", bytes)
    try open("copy")
    _ = try model.source.computeIdentity()
    #expect(try answer().reusedTokenCount == 0, "of the first file nothing is known yet")
    for name in store.entries { unlink("\(store.path)/\(name)") }
    try open("model")
    #expect(try answer().tokens == expected.tokens)
    // What was kept of the very file goes on being used when its checksums are known, also by the copy.
    model.source.learnIdentity(within: 10_000)
    #expect(try model.source.knownIdentity() != nil)
    try open("model")
    #expect(try answer().reusedTokenCount == 699)
    let longer = prompt + expected.tokens + prompt
    #expect(try answer(longer).reusedTokenCount > 699)
    try open("copy")
    let copied = try answer(longer)
    #expect(copied.reusedTokenCount == longer.count - 1)
    #expect(copied.tokens == (try answer(longer, in: TemporaryFolder())).tokens)
  }

  @Test("Of a file that is changed during a run nothing is kept") func changedMeanwhile() throws {
    let path = folder.path + "/model"
    let outcome = try answer(during: { chmod(path, 0o600) })
    #expect(outcome.warnings.count == 1 && outcome.warnings[0].contains("was changed meanwhile"))
    #expect(store.entries.isEmpty)
  }

  @Test("Entries of each type are its own, and reused to the last token but one") func types()
    throws
  {
    for type in KeyValueType.allCases {
      let expected = try answer(type: type)
      #expect(expected.reusedTokenCount == 0, "\(type)")
      for (budget, threadCount) in [(nil, 2), (200 << 10, 1)] {
        let again = try answer(keyValueBudget: budget, threadCount: threadCount, type: type)
        #expect(again.tokens == expected.tokens && again.warnings.isEmpty, "\(type)")
        #expect(again.reusedTokenCount == 699, "\(type)")
      }
    }
    #expect(store.entries.count == 3)
  }

  @Test(
    "Of a run whose policy leaves blocks out only the prompt is kept",
    arguments: [KeyValuePolicyChoice.recent(sinks: 0, recent: 128), .top(share: 0.25)],
    [nil, 400 << 10])
  func policies(policy: KeyValuePolicyChoice, budget: Int?) throws {
    // The answer completes the page group that the prompt leaves in part, or it does not.
    for (tokenCount, kept) in [(200, 640), (12, 700)] {
      let (own, empty) = (TemporaryFolder(), TemporaryFolder())
      let approximate = try answer(
        tokenCount: tokenCount, in: own, keyValueBudget: budget, policy: policy)
      let longer = prompt + approximate.tokens
      let expected = try answer(longer, in: empty)
      let outcome = try answer(longer, in: own)
      #expect(outcome.reusedTokenCount == kept && outcome.tokens == expected.tokens)
      #expect(approximate.warnings.isEmpty && outcome.warnings.isEmpty)
    }
  }

  @Test("A full drive costs one warning, and the run goes on", arguments: [ENOSPC, EIO])
  func fullDrive(errorNumber: Int32) throws {
    let expected = try answer()
    KeyValueDirectory.removeAll(in: store.path)
    for place in [0, 40_000, 100_000] {
      var hooks = DeviceHooks()
      hooks.writeErrno = { $0 >= place ? errorNumber : 0 }
      let outcome = try answer(hooks: hooks)
      #expect(outcome.tokens == expected.tokens)
      #expect(outcome.warnings.count == 1, "\(outcome.warnings)")
      #expect(store.entries.isEmpty)
    }
  }

  @Test("What a drive has no room for is not begun again until it has", arguments: [ENOSPC, EIO])
  func shortage(errorNumber: Int32) throws {
    var hooks = DeviceHooks()
    hooks.writeErrno = { $0 >= 40_000 ? errorNumber : 0 }
    let directory = try KeyValueDirectory(path: store.path, byteLimit: 1 << 30)
    let noted = try answer(hooks: hooks, directory: directory)
    #expect(noted.warnings.count == 1, "\(noted.warnings)")
    #expect((directory.shortageByteCount >= 40_000) == (errorNumber == ENOSPC))
    // No drive has so much room.
    directory.note(
      failure: BlockIOError(.write, offset: 1 << 60, reason: .system(errno: errorNumber)))
    let again = try answer(hooks: hooks, directory: directory)
    #expect(again.tokens == noted.tokens)
    #expect(again.warnings.count == (errorNumber == ENOSPC ? 0 : 1), "\(again.warnings)")
    #expect(directory.hasSpace() == (errorNumber != ENOSPC))
    // There is room again.
    let other = try KeyValueDirectory(path: store.path, byteLimit: 1 << 30)
    other.note(failure: BlockIOError(.write, offset: 4096, reason: .system(errno: errorNumber)))
    #expect(try answer(directory: other).warnings.isEmpty)
    #expect(other.shortageByteCount == 0 && store.entries.count == 1)
  }

  @Test("An entry that cannot be read is computed again, and kept again") func unreadable() throws {
    let expected = try answer()
    var hooks = DeviceHooks()
    let prefixIsRead = Atomic(0)
    hooks.filterResult = { attempt in
      // The first file is the entry; its replacement has the same place in the next run.
      guard attempt.fileIndex == 0, prefixIsRead.load(ordering: .relaxed) == 0 else {
        return attempt.result
      }
      return attempt.offset > 30_000 ? -Int(EIO) : attempt.result
    }
    let outcome = try answer(hooks: hooks)
    #expect(outcome.tokens == expected.tokens && outcome.reusedTokenCount == 0)
    #expect(outcome.warnings.count == 1)
    prefixIsRead.store(1, ordering: .relaxed)
    #expect(try answer(hooks: hooks).reusedTokenCount == 699)
  }

  @Test("Pages that are being read when another fails are not in the way of those computed anew")
  func slowReads() throws {
    let expected = try answer()
    var hooks = DeviceHooks()
    let readCount = Atomic(0)
    hooks.filterResult = { attempt in
      guard attempt.fileIndex == 0 else { return attempt.result }
      if readCount.wrappingAdd(1, ordering: .relaxed).oldValue == 0 { return -Int(EIO) }
      // Longer than the first layer's products take, so that its pages are asked for before.
      usleep(300_000)
      return attempt.result
    }
    let outcome = try answer(hooks: hooks, backend: .pread)
    #expect(outcome.tokens == expected.tokens && outcome.reusedTokenCount == 0)
    #expect(readCount.load(ordering: .relaxed) > 1)
  }

  @Test("Flipped bits anywhere never change the answer") func flippedBits() throws {
    let expected = try answer()
    let name = try #require(store.entries.first)
    let intact = store.read(name)
    var generator = SeededGenerator(seed: 3)
    for _ in 0..<40 {
      var bytes = intact
      let place = Int.random(in: bytes.indices, using: &generator)
      bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      store.write(name, bytes)
      let outcome = try answer(keyValueBudget: Bool.random(using: &generator) ? nil : 300 << 10)
      #expect(outcome.tokens == expected.tokens, "byte \(place)")
      // Without its page group in part, or without the entry.
      #expect([699, 640, 0].contains(outcome.reusedTokenCount))
    }
  }

  @Test("Runs that use one store at the same time answer alike") func together() async throws {
    let expected = try answer().tokens
    KeyValueDirectory.removeAll(in: store.path)
    let (path, modelPath, prompt) = (store.path, model.source.path, prompt)
    await withTaskGroup(of: [Int32].self) { group in
      for seed in 0..<4 {
        group.addTask {
          (try? Self.answers(modelPath, store: path, prompt, seed: UInt64(seed))) ?? []
        }
      }
      for await tokens in group { #expect(tokens == expected) }
    }
  }

  /// Answers several times, with deletions in between.
  private static func answers(
    _ path: String, store: String, _ prompt: [Int32], seed: UInt64
  ) throws -> [Int32] {
    var generator = SeededGenerator(seed: seed)
    var tokens: [Int32] = []
    for _ in 0..<6 {
      let model = try LanguageModel(ModelSource.open(path))
      var request = MemoryPlan.Request(
        budgetByteCount: 8 << 30, contextLength: prompt.count + 12, promptLength: prompt.count,
        threadCount: 1)
      request.assumedProcessByteCount = 0
      let persistence = try KeyValuePersistence(
        KeyValueDirectory(path: store, byteLimit: 1 << 20), model, prompt: prompt,
        for: &request, warn: { _ in })
      let session = try Session(model.source, model.configuration, request)
      persistence.resume(session)
      var options = GenerationOptions(prompt: prompt, maximumTokenCount: 12, ignoresEnd: true)
      options.sampling.temperature = 0
      let result = try TextGenerator(session: session, tokenizer: model.tokenizer)
        .generate(options) { _ in }
      guard tokens.isEmpty || tokens == result.tokens else { return [] }
      tokens = result.tokens
      persistence.store(prompt + tokens, of: session)
      if Bool.random(using: &generator) { KeyValueDirectory.removeAll(in: store) }
    }
    return tokens
  }
}

extension KeyValueDirectory {
  /// Empties the store at `path`.
  fileprivate static func removeAll(in path: String) {
    _ = try? KeyValueDirectory(openingExisting: path).removeAll()
  }
}
