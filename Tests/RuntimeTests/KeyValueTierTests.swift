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

/// Keys and values beyond memory: the same bits, and errors that say where.
@Suite struct KeyValueTierTests {
  /// A tiny model whose pages take 16 KiB as f16, and less in fewer bits.
  private struct Fixture {
    let file: TemporaryFile
    let model: TinyModel
    let type: KeyValueType

    init(
      _ family: String, seed: UInt64 = 1, window: Int? = nil, type: KeyValueType = .f16
    ) {
      self.type = type
      var model = TinyFamilies.model(family)
      if let window { model.slidingWindow = window }
      self.model = model
      file = TemporaryFile(model.gguf(seed: seed).bytes())
    }

    func tokens(_ count: Int, seed: UInt64 = 7) -> [Int32] {
      var generator = SeededGenerator(seed: seed)
      return (0..<count).map { _ in
        Int32(generator.next() % UInt64(model.vocabularyCount))
      }
    }

    func session(
      contextLength: Int, promptLength: Int, _ shape: RunShape = RunShape()
    ) throws -> Session {
      var shape = shape
      shape.keyValues.type = type
      return try makeSession(
        file.path, contextLength: contextLength, promptLength: promptLength, shape)
    }

    /// Logits after a prompt and after tokens decoded from there.
    func bits(_ prompt: [Int32], _ decoding: [Int32], _ shape: RunShape) throws -> [[UInt32]] {
      let session = try session(
        contextLength: prompt.count + decoding.count, promptLength: prompt.count, shape)
      return try logitBits(session, prompt: prompt, decoding: decoding)
    }

    /// The least memory for keys and values.
    func budget(contextLength: Int, promptLength: Int) throws -> Int {
      let session = try session(contextLength: contextLength, promptLength: promptLength)
      return KeyValuePlan.minimumByteCount(session.plan.keyValues.shape, chunkLength: 1)
    }

    /// Bytes from a page to the next.
    var pageStride: Int {
      KeyValueShape(
        layerCount: 1, keyValueHeadCount: model.keyValueHeadCount, headDim: model.headDim,
        contextLength: 1, type: type
      ).pageStride
    }
  }

  private static let familiesOfTypes =
    (TinyFamilies.names + TinyFamilies.expertNames).map { (KeyValueType.f16, $0) }
    + ["llama", "llama window", "gemma3", "qwen2moe"].flatMap { [(.q8, $0), (.q4, $0)] }

  @Test(arguments: familiesOfTypes)
  func `The same bits whatever stays in memory`(type: KeyValueType, family: String) throws {
    for (seed, window) in [(UInt64(1), nil), (2, 300)] {
      let hasWindow = family == "gemma3" || family == "llama window"
      if window != nil, !hasWindow { continue }
      let fixture = Fixture(family, seed: seed, window: window, type: type)
      defer { extendLifetime(fixture) }
      var generator = SeededGenerator(seed: seed)
      let prompt = fixture.tokens(Int.random(in: 900...1300, using: &generator))
      let decoding = fixture.tokens(140, seed: 8)
      let expected = try fixture.bits(prompt, decoding, RunShape())
      let least = try fixture.budget(
        contextLength: prompt.count + decoding.count, promptLength: prompt.count)
      for spare in [0, Int.random(in: 1...8, using: &generator), 16] {
        var shape = RunShape(
          backend: [.auto, .uring, .pread, .mmap].randomElement(using: &generator) ?? .auto,
          threadCount: Int.random(in: 1...3, using: &generator),
          maximumChunkLength: [1, 37, 128, 200, 512].randomElement(using: &generator) ?? 1)
        if spare == 0 { shape.maximumChunkLength = 256 }
        shape.keyValues.budgetByteCount = least + spare * fixture.pageStride
        shape.keyValues.backend = shape.backend
        shape.keyValues.hooks.directOpenErrno =
          [0, EINVAL, EOPNOTSUPP].randomElement(using: &generator) ?? 0
        let found = try fixture.bits(prompt, decoding, shape)
        #expect(found == expected, "\(type), \(family), window \(window ?? 0), \(spare), \(shape)")
      }
    }
  }

  @Test(arguments: KeyValueType.allCases)
  func `Figures of what was moved`(type: KeyValueType) throws {
    let fixture = Fixture("llama", type: type)
    defer { extendLifetime(fixture) }
    var shape = RunShape()
    shape.keyValues.budgetByteCount = try fixture.budget(contextLength: 1500, promptLength: 1000)
    let session = try fixture.session(contextLength: 1500, promptLength: 1000, shape)
    _ = try session.prefill(fixture.tokens(1024))
    let before = session.keyValues.statistics
    for token in fixture.tokens(4) { _ = try session.decode(token) }
    let after = session.keyValues.statistics
    #expect(session.plan.keyValues.byteCount <= shape.keyValues.budgetByteCount ?? 0)
    #expect(after.pageCount == 16 && after.residentPageCount < 8)
    #expect(after.bytesWritten <= 16 * fixture.pageStride)
    let missing = after.pageCount - after.residentPageCount
    #expect(after.bytesRead - before.bytesRead >= 3 * missing * fixture.pageStride)
    #expect(after.bytesRead - before.bytesRead <= 6 * missing * fixture.pageStride)
  }

  @Test(arguments: KeyValueType.allCases)
  func `A session forgets and begins again`(type: KeyValueType) throws {
    let fixture = Fixture("llama", type: type)
    defer { extendLifetime(fixture) }
    let (prompt, decoding) = (fixture.tokens(700), fixture.tokens(20, seed: 3))
    let expected = try fixture.bits(prompt, decoding, RunShape())
    var shape = RunShape()
    shape.keyValues.budgetByteCount = try fixture.budget(contextLength: 800, promptLength: 700)
    let session = try fixture.session(contextLength: 800, promptLength: 700, shape)
    for _ in 0..<3 {
      #expect(try logitBits(session, prompt: prompt, decoding: decoding) == expected)
      session.reset()
    }
  }

  /// Page groups that one session wrote are another's prefix, with and without room for them.
  @Test(arguments: KeyValueType.allCases, ["llama", "gemma3"])
  func `A prefix from files that another session wrote`(
    type: KeyValueType, family: String
  ) throws {
    let fixture = Fixture(family, window: family == "gemma3" ? 200 : nil, type: type)
    let folder = TemporaryFolder()
    defer { extendLifetime((fixture, folder)) }
    let (prompt, decoding) = (fixture.tokens(900), fixture.tokens(20, seed: 3))
    let expected = try fixture.bits(prompt, decoding, RunShape())
    let least = try fixture.budget(contextLength: 1000, promptLength: 900)
    for budget in [nil, least, least + 10 * fixture.pageStride] {
      var shape = RunShape()
      shape.keyValues.budgetByteCount = budget
      shape.keyValues.files.own = .init(path: folder.path + "/own", dataOffset: 8192)
      let writer = try fixture.session(contextLength: 1000, promptLength: 900, shape)
      #expect(try logitBits(writer, prompt: prompt, decoding: decoding) == expected)
      #expect(writer.keyValues.finish(after: 0) == 7)
      let checksums = writer.keyValues.pageChecksums(ofPageGroups: 0..<7)
      for secondBudget in [nil, least] {
        var shape = RunShape(maximumChunkLength: 100)
        shape.keyValues.budgetByteCount = secondBudget
        let layers = fixture.model.layerCount
        shape.keyValues.files.prefix.parts = [
          .init(
            path: folder.path + "/own", dataOffset: 8192, firstPageGroup: 0, pageGroupCount: 2,
            checksums: Array(checksums[..<(2 * layers)])),
          .init(
            path: folder.path + "/own", dataOffset: 8192, firstPageGroup: 2, pageGroupCount: 4,
            checksums: Array(checksums[(2 * layers)..<(6 * layers)])),
        ]
        let reader = try fixture.session(contextLength: 1000, promptLength: 900, shape)
        #expect(reader.position == 768)
        let found = try logitBits(reader, prompt: Array(prompt[768...]), decoding: decoding)
        #expect(found == expected, "budgets \(budget ?? 0) and \(secondBudget ?? 0)")
      }
    }
  }

  @Test func `A prefix that does not fit is refused`() throws {
    let fixture = Fixture("llama")
    defer { extendLifetime(fixture) }
    func open(_ part: KeyValueStore.Prefix.Part) throws {
      var shape = RunShape()
      shape.keyValues.files.prefix.parts = [part]
      _ = try fixture.session(contextLength: 512, promptLength: 100, shape)
    }
    let path = fixture.file.path
    for part: KeyValueStore.Prefix.Part in [
      .init(path: path, dataOffset: 0, firstPageGroup: 0, pageGroupCount: 1, checksums: [1]),
      .init(path: path, dataOffset: 12, firstPageGroup: 0, pageGroupCount: 1, checksums: [1, 2]),
      .init(path: path, dataOffset: 0, firstPageGroup: -1, pageGroupCount: 1, checksums: [1, 2]),
      .init(path: path, dataOffset: 0, firstPageGroup: .max, pageGroupCount: 1, checksums: [1, 2]),
      .init(path: path, dataOffset: 0, firstPageGroup: 0, pageGroupCount: .max, checksums: [1, 2]),
      .init(
        path: path, dataOffset: -4096, firstPageGroup: 0, pageGroupCount: 1, checksums: [1, 2]),
      .init(
        path: path, dataOffset: 0, firstPageGroup: 0, pageGroupCount: 4,
        checksums: Array(repeating: 1, count: 8)),
    ] {
      #expect(throws: RuntimeError.self) { try open(part) }
    }
  }

  // MARK: Faults

  /// EIO or a full drive, from the n-th write on: what fits memory goes on, the rest ends in an error.
  @Test(arguments: [EIO, ENOSPC])
  func `A drive that takes no more`(errno: Int32) throws {
    let fixture = Fixture("llama")
    defer { extendLifetime(fixture) }
    let prompt = fixture.tokens(1000)
    for healthyCount in [0, 3, 8] {
      var shape = RunShape(maximumChunkLength: 128)
      shape.keyValues.budgetByteCount = try fixture.budget(
        contextLength: 1100, promptLength: 1000)
      let counter = Counter()
      shape.keyValues.hooks.writeErrno = { _ in counter.next() < healthyCount ? 0 : errno }
      let session = try fixture.session(contextLength: 1100, promptLength: 1000, shape)
      let warnings = Counter()
      session.keyValues.pool.onWarning = { _ in _ = warnings.next() }
      do throws(RuntimeError) {
        _ = try session.prefill(prompt)
        Issue.record("pages went nowhere")
      } catch {
        guard case .keyValues(.noRoom(let cause)) = error else {
          Issue.record("\(error)")
          continue
        }
        #expect(cause.errno == errno)
      }
      #expect(warnings.count == 1)
    }
    // With all pages in memory a file that fails is a warning.
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    var shape = RunShape()
    shape.keyValues.files.own = .init(path: folder.path + "/own")
    shape.keyValues.hooks.writeErrno = { $0 < 200_000 ? 0 : errno }
    let expected = try fixture.bits(prompt, [1, 2], RunShape())
    let session = try fixture.session(contextLength: 1002, promptLength: 1000, shape)
    let warnings = Counter()
    session.keyValues.pool.onWarning = { _ in _ = warnings.next() }
    #expect(try logitBits(session, prompt: prompt, decoding: [1, 2]) == expected)
    #expect(session.keyValues.finish(after: 0) < 7 && warnings.count == 1)
  }

  /// EIO (5) or a file that ends early (0), from the n-th read on.
  @Test(arguments: [StorageBackend.uring, .pread, .mmap], [-5, 0])
  func `A drive that cannot be read`(backend: StorageBackend, result: Int) throws {
    let fixture = Fixture("llama")
    defer { extendLifetime(fixture) }
    for healthyCount in [0, 5, 20] {
      var shape = RunShape(maximumChunkLength: 128)
      shape.keyValues.backend = backend
      shape.keyValues.budgetByteCount = try fixture.budget(
        contextLength: 1100, promptLength: 1000)
      let counter = Counter()
      shape.keyValues.hooks.filterResult = {
        counter.next() < healthyCount ? $0.result : result
      }
      let session = try fixture.session(contextLength: 1100, promptLength: 1000, shape)
      do throws(RuntimeError) {
        _ = try session.prefill(fixture.tokens(1000))
        for token in fixture.tokens(20) { _ = try session.decode(token) }
        Issue.record("logits without keys and values")
      } catch {
        guard case .keyValues(.io(let cause, let layer)) = error else {
          Issue.record("\(error)")
          continue
        }
        #expect(cause.path != nil && cause.offset != nil && layer != nil, "\(error)")
        #expect(result == 0 ? cause.reason == .truncated : cause.errno == EIO, "\(error)")
      }
    }
  }

  @Test func `A bit that flips in a file`() throws {
    let fixture = Fixture("llama")
    let folder = TemporaryFolder()
    defer { extendLifetime((fixture, folder)) }
    let prompt = fixture.tokens(600)
    var shape = RunShape()
    shape.keyValues.files.own = .init(path: folder.path + "/own")
    let writer = try fixture.session(contextLength: 610, promptLength: 600, shape)
    _ = try writer.prefill(prompt)
    #expect(writer.keyValues.finish(after: 0) == 4)
    let checksums = writer.keyValues.pageChecksums(ofPageGroups: 0..<4)
    var bytes = folder.read("own")
    bytes[4096 + 3 * fixture.pageStride + 77] ^= 4
    folder.write("own", bytes)
    var second = RunShape()
    second.keyValues.files.prefix.parts = [
      .init(
        path: folder.path + "/own", dataOffset: 4096, firstPageGroup: 0, pageGroupCount: 4,
        checksums: checksums)
    ]
    let reader = try fixture.session(contextLength: 610, promptLength: 600, second)
    do throws(RuntimeError) {
      _ = try reader.prefill(Array(prompt[512...]))
      Issue.record("logits from damaged keys and values")
    } catch {
      guard case .keyValues(.damaged(_, let offset, let layer)) = error else {
        Issue.record("\(error)")
        return
      }
      #expect(offset == 4096 + 3 * fixture.pageStride && layer == 1)
    }
  }
}

/// Counts calls from any thread.
private final class Counter: Sendable {
  private let value = Atomic<Int>(0)

  func next() -> Int { value.add(1, ordering: .relaxed).oldValue }

  var count: Int { value.load(ordering: .relaxed) }
}
