import BlockIO
import Glibc
import KVCache
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing

/// What tokens after a prompt attend over, as policies choose it.
@Suite struct KeyValuePolicyTests {
  private struct Fixture {
    let file: TemporaryFile
    let model: TinyModel
    let type: KeyValueType
    let prompt: [Int32]
    let decoding: [Int32]

    init(_ family: String, type: KeyValueType = .f16, promptLength: Int = 1200) {
      var model = TinyFamilies.model(family)
      if family == "gemma3" { model.slidingWindow = 300 }
      self.model = model
      self.type = type
      file = TemporaryFile(model.gguf(seed: 3).bytes())
      var generator = SeededGenerator(seed: 7)
      let tokens = (0..<promptLength + 140).map { _ in
        Int32(generator.next() % UInt64(model.vocabularyCount))
      }
      prompt = Array(tokens[..<promptLength])
      decoding = Array(tokens[promptLength...])
    }

    /// - Parameter spare: pages of keys and values beyond the least; nil = all in memory.
    func session(
      _ policy: KeyValuePolicyChoice, spare: Int? = nil, _ shape: RunShape = RunShape()
    ) throws -> Session {
      var shape = shape
      shape.keyValues.type = type
      shape.keyValues.policy = policy
      let length = prompt.count + decoding.count + 400
      if let spare {
        let pages = KeyValueShape(
          layerCount: model.layerCount, keyValueHeadCount: model.keyValueHeadCount,
          headDim: model.headDim, contextLength: length, type: type)
        shape.keyValues.budgetByteCount =
          KeyValuePlan.minimumByteCount(pages, chunkLength: 1) + spare * pages.pageStride
      }
      return try makeSession(
        file.path, contextLength: length, promptLength: prompt.count, shape)
    }

    func bits(_ session: Session) throws -> [[UInt32]] {
      try logitBits(session, prompt: prompt, decoding: decoding)
    }
  }

  private static let narrow: [KeyValuePolicyChoice] = [
    .recent(sinks: 0, recent: 256), .recent(sinks: 128, recent: 256), .top(share: 0.25),
    .snapKV(positions: 384),
  ]

  @Test(arguments: ["llama", "gemma3"], [KeyValueType.f16, .q8])
  func `Every policy without bounds gives the bits of full attention`(
    family: String, type: KeyValueType
  ) throws {
    let fixture = Fixture(family, type: type)
    defer { extendLifetime(fixture) }
    let expected = try fixture.bits(fixture.session(.full))
    let unlimited: [KeyValuePolicyChoice] = [
      .recent(sinks: 0, recent: 1 << 30), .recent(sinks: 1 << 20, recent: 0), .top(share: 1),
      .snapKV(positions: 1 << 30),
    ]
    for policy in unlimited {
      for spare in [nil, 4] as [Int?] {
        let session = try fixture.session(policy, spare: spare)
        #expect(try fixture.bits(session) == expected, "\(policy), \(spare ?? -1)")
        #expect(session.keyValues.statistics.skippedBlockCount == 0)
      }
    }
  }

  @Test(arguments: ["llama", "gemma3"], [KeyValueType.f16, .q4])
  func `A policy gives the same bits wherever pages lie`(
    family: String, type: KeyValueType
  ) throws {
    let fixture = Fixture(family, type: type)
    defer { extendLifetime(fixture) }
    var generator = SeededGenerator(seed: 11)
    for policy in Self.narrow {
      let expected = try fixture.bits(fixture.session(policy))
      for spare in [0, 5, 30] {
        var shape = RunShape(
          backend: [.auto, .uring, .pread, .mmap].randomElement(using: &generator) ?? .auto,
          threadCount: Int.random(in: 1...3, using: &generator),
          maximumChunkLength: [64, 128, 200, 512].randomElement(using: &generator) ?? 64)
        shape.keyValues.backend = shape.backend
        let session = try fixture.session(policy, spare: spare, shape)
        #expect(try fixture.bits(session) == expected, "\(policy), \(spare), \(shape)")
      }
    }
  }

  /// Pages that left memory for one phase are there again in the next.
  @Test(arguments: narrow)
  func `A prompt may follow an answer`(policy: KeyValuePolicyChoice) throws {
    let fixture = Fixture("llama")
    defer { extendLifetime(fixture) }
    func bits(spare: Int?) throws -> [[UInt32]] {
      let session = try fixture.session(policy, spare: spare)
      var rows = try fixture.bits(session)
      rows += try logitBits(
        session, prompt: Array(fixture.prompt[..<300]), decoding: Array(fixture.decoding[..<20]))
      session.reset()
      return rows + (try fixture.bits(session))
    }
    let expected = try bits(spare: nil)
    #expect(expected.first == expected[fixture.decoding.count + 1 + 21])
    for spare in [0, 6] { #expect(try bits(spare: spare) == expected, "\(spare)") }
  }

  @Test func `What is left out is counted and not read`() throws {
    let fixture = Fixture("llama", promptLength: 1280)
    defer { extendLifetime(fixture) }
    let (layers, heads) = (fixture.model.layerCount, fixture.model.keyValueHeadCount)
    let full = try fixture.session(.full, spare: 0)
    let recent = try fixture.session(.recent(sinks: 128, recent: 256), spare: 0)
    let top = try fixture.session(.top(share: 0.2), spare: 0)
    for session in [full, recent, top] {
      _ = try session.prefill(fixture.prompt)
      let before = session.keyValues.statistics
      for token in fixture.decoding[..<20] { _ = try session.decode(token) }
      let after = session.keyValues.statistics
      let attended = after.attendedBlockCount - before.attendedBlockCount
      let skipped = after.skippedBlockCount - before.skippedBlockCount
      let bytes = after.bytesRead - before.bytesRead
      #expect(attended + skipped == 20 * 10 * layers * heads)
      if session === full {
        #expect(skipped == 0)
      } else if session === recent {
        // One block at the start and two at the end, of which memory has room for some; the next token's
        // are read ahead.
        #expect(attended == 20 * 3 * layers * heads)
        #expect(bytes <= (attended + attended / 10) * 512 * fixture.model.headDim)
      } else {
        // Each query head names two of the ten.
        #expect(attended >= 20 * 2 * layers * heads && attended < 20 * 10 * layers * heads)
        #expect(bytes <= (attended + attended / 10) * 512 * fixture.model.headDim)
      }
    }
  }

  @Test(arguments: [KeyValuePolicyChoice.top(share: 0.25), .snapKV(positions: 384)])
  func `A bit that flips in a block read by itself`(policy: KeyValuePolicyChoice) throws {
    let fixture = Fixture("llama")
    let folder = TemporaryFolder()
    defer { extendLifetime((fixture, folder)) }
    var shape = RunShape()
    shape.keyValues.files.own = .init(path: folder.path + "/own")
    let session = try fixture.session(policy, spare: 0, shape)
    _ = try session.prefill(fixture.prompt)
    _ = try session.decode(fixture.decoding[0])
    #expect(session.keyValues.finish(after: 0) == fixture.prompt.count / 128)
    // Of the second head of every page, so that whoever reads the first alone goes on.
    let stride = session.keyValues.shape.pageStride
    let descriptor = open(folder.path + "/own", O_RDWR)
    defer { close(descriptor) }
    for page in 0..<fixture.prompt.count / 128 * fixture.model.layerCount {
      let place = 4096 + page * stride + stride / 2 + 77
      var byte: UInt8 = 0
      #expect(pread(descriptor, &byte, 1, place) == 1)
      byte ^= 4
      #expect(pwrite(descriptor, &byte, 1, place) == 1)
    }
    do throws(RuntimeError) {
      for token in fixture.decoding[1...] { _ = try session.decode(token) }
      Issue.record("logits from damaged keys and values")
    } catch {
      guard case .keyValues(.damaged(let path, _, _)) = error else {
        Issue.record("\(error)")
        return
      }
      #expect(path == folder.path + "/own")
    }
  }

  @Test func `A prompt's important block stays with SnapKV`() throws {
    let shape = KeyValueShape(
      layerCount: 1, keyValueHeadCount: 1, headDim: 16, contextLength: 1280)
    let policy = try #require(
      try KeyValuePolicyChoice.snapKV(positions: 256).makePolicy(shape, queryHeadCount: 1))
    // Ten blocks, all queries look at the fourth.
    var maxima = [Float](repeating: 0, count: 10)
    maxima[3] = 5
    let sums = [Float](repeating: 1, count: 10)
    maxima.withUnsafeBufferPointer { maxima in
      sums.withUnsafeBufferPointer { sums in
        policy.observe(
          BlockWeights(
            pageGroups: 0..<10, keyValueHeadCount: 1, queryCount: 1, isFirst: true,
            maxima: maxima.baseAddress!, sums: sums.baseAddress!), layer: 0)
      }
    }
    let planned = PlannedBlocks(shape)
    policy.plan(layer: 0, queries: nil, into: planned.plan(pageGroups: 0..<10))
    #expect(planned.pageGroups == [3])
    // What follows the prompt is always attended over.
    let later = PlannedBlocks(shape)
    policy.plan(layer: 0, queries: nil, into: later.plan(pageGroups: 0..<12))
    #expect(later.pageGroups == [3, 10, 11])
  }

  @Test func `Policies are read by name`() {
    #expect(KeyValuePolicyChoice("full") == .full)
    #expect(KeyValuePolicyChoice("window=4096") == .recent(sinks: 0, recent: 4096))
    #expect(KeyValuePolicyChoice("sinks=4+1020") == .recent(sinks: 4, recent: 1020))
    #expect(KeyValuePolicyChoice("top=1/8") == .top(share: 0.125))
    #expect(KeyValuePolicyChoice("top=0.5") == .top(share: 0.5))
    #expect(KeyValuePolicyChoice("snapkv=1024") == .snapKV(positions: 1024))
    for text in [
      "", "all", "window", "window=", "window=-1", "window=99999999999999999999", "sinks=4",
      "sinks=4+", "top=0", "top=2", "top=1/0", "top=nan", "top=1/2/3", "snapkv=x", "full=1",
    ] {
      #expect(KeyValuePolicyChoice(text) == nil, "\(text)")
    }
  }
}

/// A plan of one layer that a test reads.
private final class PlannedBlocks {
  private let memory: UnsafeMutableBufferPointer<Bool>
  private let shape: KeyValueShape

  init(_ shape: KeyValueShape) {
    self.shape = shape
    memory = .allocate(capacity: 64)
    memory.initialize(repeating: false)
  }

  deinit { memory.deallocate() }

  func plan(pageGroups: Range<Int>) -> BlockPlan {
    BlockPlan(
      pageGroups: pageGroups, keyValueHeadCount: 1, isPlanned: memory.baseAddress!, stride: 1)
  }

  var pageGroups: [Int] { memory.indices.filter { memory[$0] } }
}
