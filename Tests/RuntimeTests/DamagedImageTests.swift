import BlockIO
import Glibc
import ModelFormat
import Runtime
import Synchronization
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// What happens to a file or drive while it is in use never shows as wrong text.
@Suite struct DamagedImageTests {
  private static let prompt: [Int32] = [1, 2, 3, 4, 5]
  private static let decoding: [Int32] = [6, 7, 8]

  private func image(tiesOutput: Bool, hasExperts: Bool = false) throws -> [UInt8] {
    var model = hasExperts ? TinyModel.withExperts("qwen2moe") : TinyModel()
    model.tiesOutput = tiesOutput
    model.vocabularyCount = 700
    model.hiddenSize = 256
    return try ImageBuilder.image(of: model.gguf(seed: 3).bytes())
  }

  private func bits(_ path: String, _ shape: RunShape) throws -> [[UInt32]] {
    let session = try makeSession(
      path, contextLength: 16, promptLength: Self.prompt.count, shape)
    return try logitBits(session, prompt: Self.prompt, decoding: Self.decoding)
  }

  /// Every extent with a flipped bit, under budgets that pin all, some and nothing: an error with the
  /// extent's offset, or the logits of the intact image where no byte of the extent was needed.
  @Test(arguments: [true, false], [true, false])
  func `A flipped bit is found before anything is computed from it`(
    tiesOutput: Bool, hasExperts: Bool
  ) throws {
    let intact = try image(tiesOutput: tiesOutput, hasExperts: hasExperts)
    let file = TemporaryFile(intact)
    defer { extendLifetime(file) }
    let expected = try bits(file.path, RunShape())
    let extents = try ModelSource.describe(file.path).extents
    var generator = SeededGenerator(seed: 4)
    var found = 0
    for extent in extents {
      var bytes = intact
      let place = extent.offset + Int.random(in: 0..<extent.byteCount, using: &generator)
      bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      let damaged = TemporaryFile(bytes)
      defer { extendLifetime(damaged) }
      for spare in [nil, 0, 1 << 15] as [Int?] {
        do {
          let backend: StorageBackend = [.uring, .pread, .mmap].randomElement(using: &generator)!
          let logits = try bits(
            damaged.path, RunShape(backend: backend, spareByteCount: spare))
          #expect(logits == expected, "extent at \(extent.offset), spare \(spare ?? -1)")
        } catch let error as RuntimeError {
          guard case .loader(.format(let cause)) = error else {
            Issue.record("\(error)")
            continue
          }
          #expect(cause.kind == .checksumMismatch && cause.offset == extent.offset, "\(error)")
          found += 1
        }
      }
    }
    // Rows of the embedding table, and experts, that no token needed are the only bytes not read.
    #expect(found >= extents.count, "\(found) of \(3 * extents.count)")
  }

  @Test func `A file changed in place ends the run`() throws {
    let file = TemporaryFile(try image(tiesOutput: true))
    defer { extendLifetime(file) }
    let session = try makeSession(
      file.path, contextLength: 16, promptLength: 5, RunShape(spareByteCount: 0))
    _ = try session.prefill(Self.prompt)
    let descriptor = open(file.path, O_WRONLY)
    usleep(20_000)  // file times advance in ticks
    _ = pwrite(descriptor, [0], 1, 40_000)
    close(descriptor)
    #expect {
      _ = try session.decode(6)
    } throws: { error in
      guard case .loader(.io(let cause)) = error as? RuntimeError else { return false }
      return cause.reason == .modified && cause.path == file.path
    }
  }

  @Test func `A file replaced by another is noticed once, and the run goes on as it was`() throws {
    let file = TemporaryFile(try image(tiesOutput: true))
    defer { extendLifetime(file) }
    let expected = try bits(file.path, RunShape())
    let session = try makeSession(
      file.path, contextLength: 16, promptLength: 5, RunShape(spareByteCount: 0))
    var notices: [BlockIOError] = []
    session.stream.onReplacement = { notices.append($0) }
    var found = [Array(try session.prefill(Self.prompt)).map(\.bitPattern)]
    #expect(notices.isEmpty)
    let other = TemporaryFile(try image(tiesOutput: false))
    rename(other.path, file.path)
    for token in Self.decoding { found.append(Array(try session.decode(token)).map(\.bitPattern)) }
    #expect(found == expected)
    #expect(notices.map(\.reason) == [.replaced])
  }

  /// A read that takes 2.5 seconds: what is waited for is said, and the result is what it always is.
  @Test func `A stalled drive says what is waited for`() throws {
    let file = TemporaryFile(try image(tiesOutput: true))
    defer { extendLifetime(file) }
    let expected = try bits(file.path, RunShape())
    let slow = Atomic<Bool>(false)
    var hooks = DeviceHooks()
    hooks.filterResult = { attempt in
      if slow.compareExchange(expected: true, desired: false, ordering: .relaxed).exchanged {
        usleep(2_500_000)
      }
      return attempt.result
    }
    let description = try ModelSource.describe(file.path)
    let device = try openDevice(
      paths: [file.path], backend: .pread, queueDepth: 8, hooks: hooks)
    let session = try Session(
      ModelSource(path: file.path, description: description, device: device),
      try #require(description.configuration),
      MemoryPlan.Request(
        budgetByteCount: 1 << 30, contextLength: 16, promptLength: 5, threadCount: 1))
    var stalls: [Stall] = []
    session.stream.onStall = { stalls.append($0) }
    slow.store(true, ordering: .relaxed)
    let found = try logitBits(session, prompt: Self.prompt, decoding: Self.decoding)
    #expect(found == expected)
    let stall = try #require(stalls.first)
    #expect(stall.path == file.path && stall.seconds >= 2 && stall.readsInFlight >= 1)
    #expect(stall.description.contains(stall.tensorName))
  }
}
