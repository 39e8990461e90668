import BlockIO
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// What a decoded token asks of the drive, counted: the plan, the merging of reads and what stays in memory
/// decide it and nothing else, so a change is a change of one of these. (That a token allocates nothing is
/// `AllocationTests`.)
@Suite struct CountTests {
  struct Count: Sendable, CustomStringConvertible {
    let family: String
    let isImage: Bool
    /// Memory beyond the smallest that works.
    let spareByteCount: Int
    let requests: Int
    let bytes: Int

    var description: String {
      "\(family), \(isImage ? "image" : "GGUF"), \(spareByteCount) to spare"
    }
  }

  /// Of opening the model, a prompt and eight tokens, after which nothing is read ahead. All experts of qwen3moe
  /// find room: which of them leaves depends on whether one read in vain has come. The router of olmoe names none early.
  static let counts = [
    Count(family: "llama", isImage: true, spareByteCount: 0, requests: 440, bytes: 37_027_840),
    Count(family: "llama", isImage: false, spareByteCount: 0, requests: 447, bytes: 36_858_144),
    Count(
      family: "gemma3", isImage: true, spareByteCount: 64 << 10, requests: 432, bytes: 36_503_552),
    Count(
      family: "qwen3", isImage: false, spareByteCount: 1 << 20, requests: 423, bytes: 33_000_384),
    Count(
      family: "qwen3moe", isImage: true, spareByteCount: 4 << 20, requests: 54, bytes: 2_076_672),
    Count(
      family: "olmoe", isImage: false, spareByteCount: 64 << 10, requests: 606, bytes: 12_289_664),
  ]

  @Test(arguments: counts)
  func `A prompt and eight tokens ask for so many reads and bytes`(count: Count) throws {
    var model = TinyFamilies.model(count.family)
    model.layerCount = 6
    (model.hiddenSize, model.feedForwardLength) = (256, 768)
    model.tiesOutput = false
    let gguf = model.gguf(seed: 12).bytes()
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let path = folder.write(
      "model", count.isImage ? try ImageBuilder.image(of: gguf) : gguf)
    let session = try makeSession(
      path, contextLength: 64, promptLength: 4,
      // Experts of several rows are computed as they arrive, which decides what leaves for the others: these
      // come token by token (and `ExpertRowsTests` counts the others' reads).
      RunShape(
        backend: .pread, maximumChunkLength: model.experts == nil ? 512 : 1,
        spareByteCount: count.spareByteCount))
    _ = try session.prefill([1, 2, 3, 4])
    for token in 0..<8 { _ = try session.decode(Int32(20 + token), continues: token < 7) }
    let statistics = session.stream.source.device.statistics
    #expect(session.stream.source.device.inFlight == 0)
    #expect(statistics.requests == count.requests)
    #expect(statistics.bytesRead == count.bytes)
  }
}
