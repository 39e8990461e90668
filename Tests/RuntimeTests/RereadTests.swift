import BlockIO
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Bits that are wrong only when something is read again: found where every read is verified.
@Suite struct RereadTests {
  /// What is read more than once.
  enum Source: String, CaseIterable {
    case runs, partlyPinnedRuns, experts, neurons, singleNeurons

    func image() throws -> [UInt8] {
      if self == .experts {
        var model = TinyFamilies.model("qwen2moe")
        model.hiddenSize = 256
        model.experts?.feedForwardLength = 256
        return try ImageBuilder.image(of: model.gguf(seed: 9).bytes())
      }
      var model = TinyModel.wide()
      model.matrixTypes = self == .singleNeurons ? [.f16] : [.q8_0]
      let bundling: Bundling? =
        switch self {
        case .neurons: .neurons
        case .singleNeurons: .singleNeurons
        default: nil
        }
      return try ImageBuilder.image(of: model.gguf(seed: 9).bytes(), bundling: bundling)
    }
  }

  private static let prompt = (0..<9).map { Int32($0 * 37 % 300) }
  private static let decoding = (0..<8).map { Int32($0 * 53 % 300) }

  private func run(
    _ path: String, _ source: Source, _ verification: Verification, backend: StorageBackend,
    flipping: (alarm: Int, bit: Int)? = nil
  ) throws -> (bits: [[UInt32]], rereadCount: Int, flipped: ReadRequest?) {
    let device = FaultyDevice(
      try openDevice(paths: [path], backend: backend, queueDepth: 32), paths: [path])
    let shape = RunShape(
      threadCount: 2, maximumChunkLength: 4,
      spareByteCount: source == .partlyPinnedRuns ? 200 << 10 : 0, verification: verification)
    let session = try makeSession(
      ModelSource(path: path, description: try ModelSource.describe(path), device: device),
      contextLength: 32, promptLength: 9, shape)
    // Vectors have been read by now, each time that a budget was tried.
    var (seen, rereads): (Set<Int>, Int) = ([], 0)
    var flipped: ReadRequest?
    device.onRead = { _, request in
      guard !seen.insert(request.offset).inserted else { return nil }
      rereads += 1
      guard let flipping, rereads == flipping.alarm else { return nil }
      flipped = request
      return .flippedBit(flipping.bit % (8 * request.destination.count))
    }
    do {
      let bits = try logitBits(session, prompt: Self.prompt, decoding: Self.decoding)
      return (bits, rereads, flipped)
    } catch {
      throw Found(error: error, flipped: flipped)
    }
  }

  private struct Found: Error {
    let error: any Error
    let flipped: ReadRequest?
  }

  @Test(arguments: Source.allCases)
  func `A bit that flips when something is read again is found, with its place`(
    source: Source
  ) throws {
    let file = TemporaryFile(try source.image())
    defer { extendLifetime(file) }
    let clean = try run(file.path, source, .always, backend: .auto)
    let plain = try run(file.path, source, .first, backend: .auto)
    #expect(clean.bits == plain.bits)
    #expect(clean.rereadCount > 10, "\(clean.rereadCount)")
    var generator = SeededGenerator(seed: 5)
    var (found, missed) = (0, 0)
    for _ in 0..<24 {
      let flipping = (
        alarm: Int.random(in: 1...clean.rereadCount, using: &generator),
        bit: Int.random(in: 0..<1 << 30, using: &generator)
      )
      let backend: StorageBackend = [.uring, .pread, .mmap].randomElement(using: &generator)!
      do {
        // A bit of padding, or of what was read ahead and not used, is the only one that may pass.
        let always = try run(file.path, source, .always, backend: backend, flipping: flipping)
        #expect(always.bits == clean.bits, "\(source), \(backend), \(flipping)")
      } catch let error as Found {
        found += 1
        guard case .loader(.format(let cause))? = error.error as? RuntimeError,
          let offset = cause.offset, let flipped = error.flipped
        else {
          Issue.record("\(error.error)")
          continue
        }
        #expect(cause.kind == .checksumMismatch && cause.path == file.path)
        let range = flipped.offset..<flipped.offset + flipped.destination.count
        #expect(range.contains(offset), "\(cause) for \(range)")
        #expect(cause.description.contains("tensor '") || cause.description.contains("neurons"))
      }
      // What was read ahead and dropped is verified when it is read again: then it is found here too.
      let first = try? run(file.path, source, .first, backend: backend, flipping: flipping)
      if let first, first.bits != clean.bits { missed += 1 }
    }
    #expect(found >= 8, "\(found)")
    #expect(missed > 0, "without it such bits show as other text")
  }

  @Test func `A file without checksums is refused, with what would help`() throws {
    let file = TemporaryFile(TinyModel().gguf(seed: 1).bytes())
    defer { extendLifetime(file) }
    let error = #expect(throws: RuntimeError.self) {
      _ = try makeSession(
        file.path, contextLength: 16, promptLength: 4, RunShape(verification: .always))
    }
    guard case .loader(.notVerifiable(let path, _))? = error else {
      Issue.record("\(error.map(\.description) ?? "")")
      return
    }
    #expect(path == file.path && error!.description.contains("flashinfer-convert"))
  }

  @Test func `Experts that do not lie in bundles are refused, with what would help`() throws {
    var model = TinyFamilies.model("qwen2moe")
    model.hiddenSize = 256
    let file = TemporaryFile(
      try ImageBuilder.image(of: model.gguf(seed: 1).bytes(), bundling: Bundling.none))
    defer { extendLifetime(file) }
    let error = #expect(throws: RuntimeError.self) {
      _ = try makeSession(
        file.path, contextLength: 16, promptLength: 4, RunShape(verification: .always))
    }
    #expect(error?.description.contains("--bundle experts") == true)
  }
}
