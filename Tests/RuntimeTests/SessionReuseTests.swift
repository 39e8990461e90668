import BlockIO
import Glibc
import KVCache
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// A session after a step that threw: what was interrupted can be begun again, with the bits of a session
/// that never was; what failed is not gone on with.
@Suite struct SessionReuseTests {
  /// Every way in which weights are brought and kept.
  enum Delivery: String, CaseIterable {
    case pinnedGGUF, streamedGGUF, partlyPinnedGGUF, streamedImage
    case expertsGGUF, expertsImage, fewExpertsGGUF
    case neurons, singleNeurons, fewNeurons

    var spareByteCount: Int? {
      switch self {
      case .pinnedGGUF, .expertsGGUF, .neurons, .singleNeurons: nil
      case .partlyPinnedGGUF: 200 << 10
      case .expertsImage: 96 << 10
      case .streamedGGUF, .streamedImage, .fewExpertsGGUF, .fewNeurons: 0
      }
    }

    func file() throws -> [UInt8] {
      switch self {
      case .pinnedGGUF, .streamedGGUF, .partlyPinnedGGUF: return model.gguf(seed: 7).bytes()
      case .streamedImage: return try ImageBuilder.image(of: model.gguf(seed: 7).bytes())
      case .expertsGGUF, .fewExpertsGGUF:
        return TinyFamilies.model("qwen2moe").gguf(seed: 7).bytes()
      case .expertsImage:
        return try ImageBuilder.image(of: TinyFamilies.model("qwen2moe").gguf(seed: 7).bytes())
      case .neurons, .fewNeurons:
        return try ImageBuilder.image(of: model.gguf(seed: 7).bytes(), bundling: .neurons)
      case .singleNeurons:
        var model = model
        model.matrixTypes = [.f16]
        return try ImageBuilder.image(of: model.gguf(seed: 7).bytes(), bundling: .singleNeurons)
      }
    }

    private var model: TinyModel { .wide() }
  }

  private static let prompt = (0..<9).map { Int32($0 * 37 % 300) }
  private static let decoding = (0..<5).map { Int32($0 * 53 % 300) }

  /// An open model whose reads a test can spoil.
  private struct Rig {
    let source: ModelSource
    let device: FaultyDevice
    let cancellation = CancellationFlag()

    init(_ path: String, _ backend: StorageBackend) throws {
      let description = try ModelSource.describe(path)
      device = FaultyDevice(
        try openDevice(paths: [path], backend: backend, queueDepth: 32), paths: [path])
      source = ModelSource(path: path, description: description, device: device)
    }

    func session(_ delivery: Delivery, threadCount: Int = 2) throws -> Session {
      try makeSession(
        source, contextLength: 32, promptLength: 9,
        RunShape(
          threadCount: threadCount, maximumChunkLength: 4, spareByteCount: delivery.spareByteCount),
        cancellation: cancellation)
    }
  }

  private func bits(_ session: Session) throws -> [[UInt32]] {
    try logitBits(session, prompt: Self.prompt, decoding: Self.decoding)
  }

  /// Runs a session that is expected to be stopped; whether it was.
  private func isInterrupted(_ session: Session) throws -> Bool {
    do { _ = try bits(session) } catch {
      guard case .interrupted? = error as? RuntimeError else { throw error }
      return true
    }
    return false
  }

  @Test(arguments: Delivery.allCases)
  func `A session that was cancelled at any read and reset computes what a new one does`(
    delivery: Delivery
  ) throws {
    let file = TemporaryFile(try delivery.file())
    defer { extendLifetime(file) }
    var generator = SeededGenerator(seed: 1)
    let clean = try Rig(file.path, .auto)
    let expected = try bits(try clean.session(delivery))
    let readCount = clean.device.readCount
    var interrupted = 0
    for round in 0..<24 {
      let backend: StorageBackend = [.uring, .pread, .mmap].randomElement(using: &generator)!
      let rig = try Rig(file.path, backend)
      let session = try rig.session(delivery)
      for _ in 0..<Int.random(in: 1...4, using: &generator) {
        let alarm = rig.device.readCount + Int.random(in: 0..<readCount, using: &generator)
        rig.device.onRead = { number, _ in
          if number == alarm { rig.cancellation.raise() }
          return nil
        }
        if try isInterrupted(session) { interrupted += 1 }
        rig.cancellation.lower()
        session.reset()
      }
      rig.device.onRead = nil
      #expect(try bits(session) == expected, "\(delivery), \(backend), round \(round)")
    }
    #expect(interrupted >= 12, "\(interrupted)")
  }

  /// Cancelled while the workers compute, which no read marks: by a thread, after a seeded time.
  @Test(arguments: [Delivery.pinnedGGUF, .partlyPinnedGGUF, .expertsGGUF, .neurons])
  func `A session that was cancelled amid products and reset computes what a new one does`(
    delivery: Delivery
  ) throws {
    let file = TemporaryFile(try delivery.file())
    defer { extendLifetime(file) }
    var generator = SeededGenerator(seed: 2)
    let clean = try Rig(file.path, .auto).session(delivery)
    let start = monotonicNanoseconds()
    let expected = try logitBits(clean, prompt: Self.prompt, decoding: [])
    let duration = monotonicNanoseconds() - start
    var interrupted = 0
    for round in 0..<100 {
      let rig = try Rig(file.path, .auto)
      let session = try rig.session(delivery)
      // Rows are interleaved by the first sweep of a session, one of three.
      let alarm = Alarm(
        rig.cancellation, nanoseconds: Int.random(in: 0..<duration * 2 / 3, using: &generator))
      if try isInterrupted(session) { interrupted += 1 }
      alarm.wait()
      rig.cancellation.lower()
      session.reset()
      let found = try logitBits(session, prompt: Self.prompt, decoding: [])
      #expect(found == expected, "\(delivery), round \(round)")
    }
    #expect(interrupted >= 20, "\(interrupted)")
  }

  @Test(arguments: Delivery.allCases)
  func `A session whose drive failed throws that error from then on`(delivery: Delivery) throws {
    let file = TemporaryFile(try delivery.file())
    defer { extendLifetime(file) }
    var generator = SeededGenerator(seed: 3)
    let clean = try Rig(file.path, .auto)
    let whole = try clean.session(delivery)
    let start = clean.device.readCount
    let expected = try bits(whole)
    let readCount = clean.device.readCount - start
    for _ in 0..<12 {
      let rig = try Rig(file.path, .auto)
      let session = try rig.session(delivery)
      // What was read ahead after the last token may never be taken.
      let failing = rig.device.readCount + Int.random(in: 0..<readCount / 2, using: &generator)
      rig.device.onRead = { number, _ in number == failing ? .error(EIO) : nil }
      let first = #expect(throws: RuntimeError.self) { try bits(session) }
      guard case .loader(.io(let cause))? = first else {
        Issue.record("\(first.map(\.description) ?? "no error")")
        continue
      }
      #expect(cause.errno == EIO && cause.path == file.path && cause.offset != nil)
      for step in 0..<4 {
        if step == 2 { session.reset() }
        let later = #expect(throws: RuntimeError.self) {
          switch step {
          case 0: _ = try session.decode(1)
          case 1: try session.score([1, 2]) { _, _ in }
          case 2: _ = try session.prefill([1])
          default: try session.loadExpertUsage()
          }
        }
        #expect(later?.description == first?.description)
      }
      let reads = rig.device.readCount
      #expect(throws: RuntimeError.self) { _ = try session.decode(1) }
      #expect(rig.device.readCount == reads, "a drive that failed is asked for nothing more")
    }
    #expect(try bits(try Rig(file.path, .auto).session(delivery)) == expected)
  }

  @Test func `A context that was broken off takes no further token before it is reset`() throws {
    let file = TemporaryFile(try Delivery.streamedGGUF.file())
    defer { extendLifetime(file) }
    let rig = try Rig(file.path, .auto)
    let session = try rig.session(.streamedGGUF)
    _ = try session.prefill(Self.prompt)
    rig.cancellation.raise()
    #expect(try isInterrupted(session))
    rig.cancellation.lower()
    for _ in 0..<2 {
      #expect {
        _ = try session.decode(1)
      } throws: { error in
        guard case .keyValues(.contextAborted)? = error as? RuntimeError else { return false }
        return true
      }
    }
    // A flag that is still up ends the next step too, and only that.
    session.reset()
    rig.cancellation.raise()
    #expect(try isInterrupted(session))
    rig.cancellation.lower()
    session.reset()
    #expect(try bits(session) == bits(try Rig(file.path, .auto).session(.streamedGGUF)))
  }

  @Test func `What is recorded of experts has no half tokens after a cancel`() throws {
    let file = TemporaryFile(try Delivery.fewExpertsGGUF.file())
    defer { extendLifetime(file) }
    let rig = try Rig(file.path, .auto)
    let session = try rig.session(.fewExpertsGGUF)
    session.recordExperts(tokenCount: 64)
    for round in 0..<12 {
      let alarm = rig.device.readCount + 12 + round
      rig.device.onRead = { number, _ in
        if number == alarm { rig.cancellation.raise() }
        return nil
      }
      _ = try isInterrupted(session)
      rig.cancellation.lower()
      session.reset()
    }
    rig.device.onRead = nil
    let before = try #require(session.expertTrace).tokenCount
    _ = try bits(session)
    let trace = try #require(session.expertTrace)
    let other = try Rig(file.path, .auto).session(.fewExpertsGGUF)
    other.recordExperts(tokenCount: 64)
    _ = try bits(other)
    let expected = try #require(other.expertTrace)
    #expect(trace.tokenCount == before + expected.tokenCount)
    for token in 0..<expected.tokenCount {
      for layer in 0..<expected.layerCount {
        #expect(trace[before + token, layer].elementsEqual(expected[token, layer]))
      }
    }
  }
}

/// Raises a flag from a thread of its own, some time after it was made.
private final class Alarm: Sendable {
  private let thread: pthread_t

  init(_ flag: CancellationFlag, nanoseconds: Int) {
    let start = Unmanaged.passRetained(Start(flag: flag, nanoseconds: nanoseconds))
    var thread = pthread_t()
    let result = pthread_create(
      &thread, nil,
      {
        let start = Unmanaged<Start>.fromOpaque($0!).takeRetainedValue()
        let end = monotonicNanoseconds() + start.nanoseconds
        while monotonicNanoseconds() < end { sched_yield() }
        start.flag.raise()
        return nil
      }, start.toOpaque())
    precondition(result == 0, "no thread")
    self.thread = thread
  }

  func wait() { pthread_join(thread, nil) }

  private final class Start: Sendable {
    let flag: CancellationFlag
    let nanoseconds: Int

    init(flag: CancellationFlag, nanoseconds: Int) {
      self.flag = flag
      self.nanoseconds = nanoseconds
    }
  }
}
