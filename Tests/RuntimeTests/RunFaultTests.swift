import BlockIO
import Glibc
import KVCache
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Whole runs, from opening the model to the last token, each of which brings the logits' bits.
enum WholeRuns {
  enum Kind: String, Codable, CaseIterable {
    /// Weights come from the drive for every token.
    case streamedGGUF, streamedImage
    /// Keys and values exceed their memory.
    case tier
    /// Keys and values are stored for the next run, or taken from the store.
    case storing, reusing
  }

  /// What a kind of run needs on the drive.
  final class Place {
    let kind: Kind
    let backend: StorageBackend
    let folder = TemporaryFolder()
    let store = TemporaryFolder()
    let path: String
    private let keyValueByteCount: Int?
    private var directory: KeyValueDirectory?

    init(_ kind: Kind, _ backend: StorageBackend) throws {
      self.kind = kind
      self.backend = backend
      var tiny = TinyModel()
      tiny.contextLength = 2048
      let gguf = tiny.gguf(seed: 1).bytes()
      path = folder.write(
        "model", kind == .streamedImage ? try ImageBuilder.image(of: gguf) : gguf)
      if kind == .tier {
        let session = try makeSession(
          path, contextLength: 700, promptLength: 690, RunShape(backend: backend))
        keyValueByteCount = KeyValuePlan.minimumByteCount(
          session.plan.keyValues.shape, chunkLength: 1)
      } else {
        keyValueByteCount = nil
      }
    }

    /// Runs, and returns the bits of all logits, or the tokens.
    func run() throws -> [[UInt32]] {
      switch kind {
      case .streamedGGUF, .streamedImage:
        let shape = RunShape(backend: backend, threadCount: 2, spareByteCount: 0)
        let session = try makeSession(open(), contextLength: 16, promptLength: 4, shape)
        return try logitBits(session, prompt: [1, 2, 3, 4], decoding: [5, 6, 7])
      case .tier:
        var shape = RunShape(backend: backend, maximumChunkLength: 128)
        shape.keyValues.budgetByteCount = keyValueByteCount
        shape.keyValues.backend = backend
        shape.keyValues.folder = store.path
        let session = try makeSession(open(), contextLength: 700, promptLength: 690, shape)
        return try logitBits(
          session, prompt: (0..<690).map { $0 * 37 % 256 + 1 }, decoding: [5, 6, 7])
      case .storing:
        for name in store.entries { unlink("\(store.path)/\(name)") }
        return try answer()
      case .reusing: return try answer()
      }
    }

    private func open() throws -> ModelSource {
      try ModelSource.open(path, backend: backend, records: WeightRecords(folder: nil))
    }

    private func answer() throws -> [[UInt32]] {
      let model = try LanguageModel(open())
      let prompt = (0..<300).map { Int32($0 * 37 % 256 + 1) }
      var request = MemoryPlan.Request(
        budgetByteCount: 8 << 30, contextLength: 310, promptLength: prompt.count, threadCount: 1)
      request.assumedProcessByteCount = 0
      request.keyValues.backend = backend
      let persistence = try KeyValuePersistence(
        KeyValueDirectory(path: store.path, byteLimit: 1 << 30), model, prompt: prompt,
        for: &request, warn: { _ in })
      let session = try Session(model.source, model.configuration, request)
      persistence.resume(session)
      var generator = TextGenerator(session: session, tokenizer: model.tokenizer)
      generator.onLostPrefix = { persistence.removePrefix(because: $0) }
      var options = GenerationOptions(prompt: prompt, maximumTokenCount: 4, ignoresEnd: true)
      options.sampling.temperature = 0
      let tokens = try generator.generate(options) { _ in }.tokens
      persistence.store(prompt + tokens, of: session)
      return [tokens.map(UInt32.init(bitPattern:))]
    }

    /// What must not be left: files under way, and entries that are not whole.
    func residue() -> [String] {
      let damaged = try? KeyValueDirectory(openingExisting: store.path).items().compactMap(
        \.problem)
      return folder.entries + store.entries.filter { !$0.hasSuffix(".kv") } + (damaged ?? [])
    }

    func findings(_ sweep: FaultSweep, isFitting: (any Error, FaultSweep.Trial) -> Bool) throws {
      let findings = try sweep.findings(isFitting: isFitting, residue: residue, run)
      #expect(findings.isEmpty, "\(kind), \(backend):\n\(findings.joined(separator: "\n"))")
    }
  }
}

private let rings: [FaultPlan.Call] = [
  .makeRing, .registerFiles, .registerMemory, .submitReads, .awaitReads, .completeRead,
]

@Suite struct SystemCallFaultRunTests {
  @Test(arguments: WholeRuns.Kind.allCases, ["uring", "pread"])
  func `Whatever system call fails once, a run has the same bits or says why`(
    kind: WholeRuns.Kind, backend: String
  ) async {
    await #expect(processExitsWith: .success) { [kind, backend] in
      let backend = try #require(StorageBackend(rawValue: backend))
      var calls: [FaultPlan.Call] = [.open, .inspect, .adjust]
      calls += backend == .uring ? rings + [.read] : [.read, .startThread]
      switch kind {
      case .streamedGGUF, .streamedImage: break
      case .tier: calls += [.openUnnamed, .truncate, .write]
      case .storing: calls += [.truncate, .write, .sync, .rename, .lock]
      case .reusing: calls += [.truncate, .lock]
      }
      let place = try WholeRuns.Place(kind, backend)
      var sweep = FaultSweep(calls)
      sweep.trialLimit = kind == .tier ? 40 : 100
      try place.findings(sweep, isFitting: FaultSweep.namesErrno)
    }
  }
}

@Suite struct AllocationFaultRunTests {
  @Test(arguments: WholeRuns.Kind.allCases, ["uring", "pread", "mmap"])
  func `Whatever memory is refused once, a run says so, and the next one has its bits`(
    kind: WholeRuns.Kind, backend: String
  ) async {
    await #expect(processExitsWith: .success) { [kind, backend] in
      let backend = try #require(StorageBackend(rawValue: backend))
      let place = try WholeRuns.Place(kind, backend)
      try place.findings(FaultSweep([.allocate])) { error, _ in
        switch error {
        case RuntimeError.allocation, LoaderError.allocation, RuntimeError.loader(.allocation): true
        case LoaderError.io(let error), RuntimeError.loader(.io(let error)):
          error.operation == .allocate
        default: false
        }
      }
    }
  }
}
