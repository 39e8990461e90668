import BlockIO
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// What a session reads of its experts, and what it remembers of them.
@Suite struct ExpertMemoryTests {
  private static let tokens = (0..<12).map { Int32($0 * 7 % 5 + 20) }

  /// The hits among the uses by the first tokens, and the bits of the logits.
  private func run(_ session: Session) throws -> (hits: Int, bits: [[UInt32]]) {
    let bits = try logitBits(session, prompt: [1], decoding: Self.tokens)
    return (session.stream.bundleStatistics.hits, bits)
  }

  @Test(arguments: TinyFamilies.expertNames)
  func `A second run knows what the first one used, and computes the same`(name: String) throws {
    let folder = TemporaryFolder()
    let path = folder.write(
      "model", try ImageBuilder.image(of: TinyFamilies.model(name).gguf(seed: 3).bytes()))
    func session() throws -> Session {
      try makeSession(path, contextLength: 32, promptLength: 1, RunShape())
    }
    let first = try session()
    try first.loadExpertUsage { Issue.record("\($0)") }
    let cold = try run(first)
    #expect(first.stream.bundleStatistics.recalls == 0)
    first.saveExpertUsage { Issue.record("\($0)") }
    #expect(folder.entries == ["model", "model.experts"])
    let second = try session()
    try second.loadExpertUsage { Issue.record("\($0)") }
    let warm = try run(second)
    #expect(warm.bits == cold.bits)
    #expect(second.stream.bundleStatistics.recalls > 0)
    #expect(warm.hits > cold.hits, "\(warm.hits) after \(cold.hits)")
    // Too late: the first token has been.
    try second.loadExpertUsage { Issue.record("\($0)") }
    // A damaged file is as if it were not there.
    folder.write("model.experts", Array(folder.read("model.experts").dropLast(3)))
    var notes: [String] = []
    let third = try session()
    try third.loadExpertUsage { notes.append($0) }
    #expect(notes.count == 1 && notes[0].contains("model.experts"), "\(notes)")
    #expect(try run(third).bits == cold.bits)
    #expect(third.stream.bundleStatistics.recalls == 0)
  }

  /// However few slots there are, what an earlier run used never takes one from what is needed.
  @Test(arguments: [0, 4 << 10, 64 << 10, 256 << 10])
  func `What is remembered changes no bit under any budget`(spare: Int) throws {
    let file = TemporaryFile(TinyFamilies.model("qwen3moe").gguf(seed: 4).bytes())
    defer { extendLifetime(file) }
    var expected: [[UInt32]]?
    for hotness: Float? in [nil, 0, 0.5, 1] {
      let session = try makeSession(
        file.path, contextLength: 32, promptLength: 1, RunShape(spareByteCount: spare))
      if let hotness {
        let count = session.stream.expertUsage.count
        try session.stream.seedBundles([Float](repeating: hotness, count: count))
      }
      let bits = try run(session).bits
      #expect(expected == nil || bits == expected, "\(hotness ?? -1)")
      expected = bits
    }
  }

  @Test(arguments: [0, 64 << 10, 160 << 10])
  func `A token reads its streamed runs, the bundles it misses and its embedding row`(
    spare: Int
  ) throws {
    let image = try ImageBuilder.image(
      of: TinyFamilies.model("qwen3moe").gguf(seed: 5).bytes(), bundling: .experts)
    let file = TemporaryFile(image)
    defer { extendLifetime(file) }
    let session = try makeSession(
      file.path, contextLength: 64, promptLength: 1, RunShape(spareByteCount: spare))
    let stream = session.stream
    _ = try session.prefill([1], continues: false)
    var settling = 16
    while !stream.isSettled, settling > 0 {
      _ = try session.decode(2, continues: false)
      settling -= 1
    }
    try #require(stream.isSettled)
    let tensors = stream.source.description.tensors
    let stride = try #require(tensors.lazy.compactMap(\.stack).first).byteStride
    let streamedRuns = stream.plan.runs.count - stream.plan.pinnedRunCount
    var missed = 0
    for token in Self.tokens {
      let (before, bundles) = (stream.source.device.statistics, stream.bundleStatistics)
      _ = try session.decode(token, continues: false)
      let (after, now) = (stream.source.device.statistics, stream.bundleStatistics)
      // Those that the next layer's router named early are read too.
      let misses =
        (now.uses - now.hits + now.prefetches) - (bundles.uses - bundles.hits + bundles.prefetches)
      missed += misses
      #expect(now.bytesWanted - bundles.bytesWanted == misses * stride)
      let rows =
        after.bytesRead - before.bytesRead - stream.plan.streamedByteCount - misses * stride
      let rowRequests = after.requests - before.requests - streamedRuns - misses
      #expect((0...1).contains(rowRequests), "\(rowRequests) requests for one row")
      #expect(try rows == rowRequests * rowByteCount(token, stream.source), "token \(token)")
    }
    #expect(missed > 0 || spare > 0)
  }

  /// Bytes of the extents around the row group of a token's embedding.
  private func rowByteCount(_ token: Int32, _ source: ModelSource) throws -> Int {
    let table = try #require(
      source.description.tensors.first { $0.name == "token_embd.weight" })
    let unit = table.byteCount / table.rowCount * RowGroup.rowCount
    let start = table.offset + Int(token) / RowGroup.rowCount * unit
    return source.description.extents.filter {
      $0.offset < start + unit && $0.offset + $0.byteCount > start
    }.reduce(0) { $0 + $1.byteCount }
  }
}
