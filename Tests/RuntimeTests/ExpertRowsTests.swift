import KVCache
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Experts of sweeps with any number of rows: the same bits as alone, and no expert read twice.
@Suite struct ExpertRowsTests {
  /// A sequence, what it gives alone, and which experts its tokens use.
  private struct Line {
    var tokens: [Int32]
    var promptLength: Int
    var expected: [[UInt32]] = []
    var trace: ExpertTrace
  }

  private static let vocabularyCount = 300
  private static let length = 70
  private static let rowCounts = [1, 2, 3, 5, 12, 17, 64]

  private static func model(layerCount: Int, using generator: inout SeededGenerator) -> TinyModel {
    var model = TinyFamilies.model(
      TinyFamilies.expertNames.randomElement(using: &generator) ?? "mixtral")
    model.vocabularyCount = vocabularyCount
    model.layerCount = layerCount
    model.experts?.expertCount = [8, 16, 24].randomElement(using: &generator) ?? 8
    model.experts?.expertsPerToken = Int.random(in: 1...4, using: &generator)
    model.matrixTypes = [[.q8_0], [.q8_0, .q4_0, .f16], [.f16]].randomElement(using: &generator)!
    return model
  }

  /// Sequences, each read alone and token by token.
  private func lines(
    _ count: Int, _ source: ModelSource, using generator: inout SeededGenerator
  ) throws -> [Line] {
    try (0..<count).map { _ in
      let tokens = (0..<Self.length).map { _ in
        Int32.random(in: 0..<Int32(Self.vocabularyCount), using: &generator)
      }
      let session = try makeSession(
        source, contextLength: Self.length, promptLength: 1, RunShape())
      session.recordExperts(tokenCount: Self.length)
      let expected = try logitBits(
        session, prompt: [tokens[0]], decoding: Array(tokens.dropFirst()))
      return Line(
        tokens: tokens, promptLength: Int.random(in: 1..<Self.length, using: &generator),
        expected: expected, trace: try #require(session.expertTrace))
    }
  }

  private func makeCore(
    _ source: ModelSource, rowCount: Int, sequenceCount: Int, spareByteCount: Int?,
    threadCount: Int
  ) throws -> EngineCore {
    let configuration = try #require(source.description.configuration)
    var request = MemoryPlan.Request(
      budgetByteCount: spareByteCount == nil ? 8 << 30 : 1, contextLength: Self.length,
      promptLength: Self.length, threadCount: threadCount, maximumChunkLength: rowCount)
    request.assumedProcessByteCount = 0
    request.sequenceCount = sequenceCount
    do { return try EngineCore(source, configuration, request) } catch {
      guard case .budgetTooSmall(_, let minimum, _) = error else { throw error }
      request.budgetByteCount = minimum.bytes + (spareByteCount ?? 0)
      return try EngineCore(source, configuration, request)
    }
  }

  /// A sequence under way.
  private struct Open {
    var line: Int
    var cache: KeyValueStore
    var position = 0
  }

  /// What a sweep used.
  private struct Sweep {
    var rowCount: Int
    /// The experts of each layer that any row chose.
    var used: [Set<UInt16>]
    var before: BundleStatistics
    var after: BundleStatistics
  }

  /// Reads all lines in sweeps of at most `rowCount` rows, prompts beside answers, and compares all logits.
  private func run(
    _ lines: [Line], in core: EngineCore, rowCount: Int, using generator: inout SeededGenerator,
    _ comment: Comment, willSweep: ([Set<UInt16>]) -> Void = { _ in },
    didSweep: (Sweep) -> Void
  ) throws {
    var open = try lines.indices.map { Open(line: $0, cache: try core.openSequence()) }
    while !open.isEmpty {
      core.batch.removeAll()
      var members: [(line: Int, end: Int)] = []
      var used = [Set<UInt16>](repeating: [], count: lines[0].trace.layerCount)
      for index in open.indices.shuffled(using: &generator) {
        let left = min(rowCount, core.batch.rowCapacity) - core.batch.rowCount
        guard left > 0 else { break }
        let (line, first) = (lines[open[index].line], open[index].position)
        let isPrompt = first < line.promptLength
        let end =
          first
          + (isPrompt
            ? Int.random(
              in: 1...min(left, line.promptLength - first, core.plan.chunkLength),
              using: &generator) : 1)
        line.tokens.withUnsafeBufferPointer {
          core.batch.append(
            UnsafeBufferPointer(rebasing: $0[first..<end]), at: first,
            isPrompt ? .read : .answer, promptEnd: isPrompt ? line.promptLength : nil,
            in: open[index].cache, logitCount: 1)
        }
        for position in first..<end {
          for layer in used.indices { used[layer].formUnion(line.trace[position, layer]) }
        }
        members.append((open[index].line, end))
        open[index].position = end
      }
      willSweep(used)
      let before = core.stream.bundleStatistics
      try core.step(continues: true) { first, logits in
        for row in 0..<logits.count / Self.vocabularyCount {
          let (line, end) = members[first + row]
          let found = logits[row * Self.vocabularyCount..<(row + 1) * Self.vocabularyCount]
          #expect(
            found.map(\.bitPattern) == lines[line].expected[end - 1],
            "position \(end - 1) of line \(line), \(comment)")
        }
      }
      didSweep(
        Sweep(
          rowCount: core.batch.rowCount, used: used, before: before,
          after: core.stream.bundleStatistics))
      for index in open.indices.reversed() where open[index].position == Self.length {
        core.close(open.remove(at: index).cache)
      }
    }
  }

  @Test(arguments: 0..<6) func `Any number of rows, any number of slots`(seed: UInt64) throws {
    var generator = SeededGenerator(seed: 0xE4 + seed)
    let gguf = Self.model(layerCount: 3, using: &generator).gguf(seed: seed).bytes()
    let image = TemporaryFile(try ImageBuilder.image(of: gguf, bundling: .experts))
    defer { extendLifetime(image) }
    let source = try ModelSource.open(image.path)
    let shape = try #require(source.description.configuration?.experts)
    let stride = try #require(source.description.tensors.lazy.compactMap(\.stack).first).byteStride
    let lines = try lines(4, source, using: &generator)
    for rowCount in Self.rowCounts {
      let spare = [0, stride, 9 * stride, gguf.count / 3, nil].randomElement(using: &generator)!
      let core = try makeCore(
        try ModelSource.open(image.path), rowCount: rowCount,
        sequenceCount: min(lines.count, rowCount), spareByteCount: spare,
        threadCount: Int.random(in: 1...3, using: &generator))
      var (missing, vain) = (0, 0)
      for first in Swift.stride(from: 0, to: lines.count, by: min(lines.count, rowCount)) {
        let some = Array(lines[first..<min(first + min(lines.count, rowCount), lines.count)])
        try run(
          some, in: core, rowCount: rowCount, using: &generator,
          "seed \(seed), \(rowCount) rows, \(spare ?? -1) to spare"
        ) { sweep in
          let (before, after) = (sweep.before, sweep.after)
          // Each expert that any row needs is asked for once.
          let union = sweep.used.reduce(0) { $0 + $1.count }
          #expect(after.uses - before.uses == union, "\(sweep.rowCount) rows")
          let asked = after.uses - before.uses - (after.hits - before.hits)
          let ahead = after.prefetches - before.prefetches
          #expect(after.bytesWanted - before.bytesWanted == (asked + ahead) * stride)
          guard sweep.rowCount > 1 else { return }
          let right = after.usedPrefetches - before.usedPrefetches
          missing += asked + right
          vain += ahead - right
        }
      }
      // A 64th, and a layer's worth of misjudgement.
      let bound = Double(missing) / 64 + Double(shape.expertCount) / 2
      #expect(Double(vain) <= bound, "seed \(seed), \(rowCount) rows: \(vain) of \(missing)")
    }
  }

  /// One layer has no next one whose experts could be read ahead.
  @Test(arguments: 0..<4) func `A sweep reads the union of its rows' experts less those in memory`(
    seed: UInt64
  ) throws {
    var generator = SeededGenerator(seed: 0xE8 + seed)
    let gguf = Self.model(layerCount: 1, using: &generator).gguf(seed: seed).bytes()
    let image = TemporaryFile(try ImageBuilder.image(of: gguf, bundling: .experts))
    defer { extendLifetime(image) }
    let source = try ModelSource.open(image.path)
    let stride = try #require(source.description.tensors.lazy.compactMap(\.stack).first).byteStride
    let lines = try lines(3, source, using: &generator)
    for rowCount in Self.rowCounts where rowCount >= lines.count {
      let core = try makeCore(
        try ModelSource.open(image.path), rowCount: rowCount, sequenceCount: lines.count,
        spareByteCount: Int.random(in: 0...12, using: &generator) * stride, threadCount: 2)
      var resident = 0
      try run(
        lines, in: core, rowCount: rowCount, using: &generator, "seed \(seed), \(rowCount) rows",
        willSweep: { used in
          resident = used[0].count { core.stream.holds(bundle: Int($0), of: 0) }
        },
        didSweep: { sweep in
          #expect(
            sweep.after.bytesWanted - sweep.before.bytesWanted
              == (sweep.used[0].count - resident) * stride)
        })
    }
  }
}
