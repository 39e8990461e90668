import BlockIO
import CommandLineSupport
import HostResources
import KVCache
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

/// `--sequences`: several contexts, one token of each in every sweep.
extension DecodeBench {
  /// A context that is decoded.
  private struct Line {
    let cache: KeyValueStore
    var position = 0
    var token: Int32
  }

  func runSequences(_ count: Int, _ model: LanguageModel) throws {
    let core = try makeCore(planned ?? count, model)
    for note in core.notes { Terminal.warn(note) }
    var generator = SeededGenerator(seed: 1)
    func random() -> Int32 {
      Int32(generator.next() % UInt64(model.configuration.vocabularyCount))
    }
    var lines = try (0..<count).map { _ in
      Line(cache: try core.openSequence(), token: model.tokenizer.bosToken ?? 0)
    }
    try Progress.showing("filling the contexts", total: count * depth, unit: .count("tokens")) {
      progress in
      for index in lines.indices where depth > 0 {
        try fill(&lines[index], core, (0..<depth).map { _ in random() })
        progress.update((index + 1) * depth)
      }
    }
    var feeds = try feed.makeFeeds(
      count, model, count: warmup + Self.mostSettlingTokens + timedCount)
    func step(continues: Bool) throws {
      try self.step(core, &lines, &feeds, continues: continues)
    }
    try Progress.showing("warming up", total: warmup, unit: .count("tokens")) { progress in
      for index in 0..<warmup {
        progress.update(index)
        try step(continues: true)
      }
      var more = Self.mostSettlingTokens
      while !core.stream.isSettled, more > 0 {
        try step(continues: true)
        more -= 1
      }
    }
    let (io, times) = (core.stream.source.device.statistics, core.times)
    let (keyValueBytes, bundles) = (core.keyValues.readByteCount, core.stream.bundleStatistics)
    let progress = Progress.begin("decoding", total: timedCount, unit: .count("sweeps"))
    let seconds = try (0..<repeats).map { round in
      let start = monotonicNanoseconds()
      for index in round * tokens + 1...(round + 1) * tokens {
        try step(continues: index < timedCount)
        progress.update(index)
      }
      return Double(monotonicNanoseconds() - start) / 1e9
    }
    progress.finish()
    let read = core.stream.source.device.statistics.since(io)
    let all = seconds.reduce(0, +)
    let drawn = Double(timedCount * count)
    let moved = core.keyValues.readByteCount - keyValueBytes
    report(
      [
        Figure("sequences", count, .number), Figure("rowsPerSweep", count, .number),
        Figure(
          "totalTokensPerSecond", samples: seconds.map { Double(tokens * count) / $0 },
          .tokensPerSecond),
        Figure(
          "decodeTokensPerSecond", samples: seconds.map { Double(tokens) / $0 }, .tokensPerSecond),
        Figure("bytesPerToken", Double(read.bytesRead) / drawn, .bytes),
        Figure("kvBytesPerToken", Double(moved) / drawn, .bytes),
        Figure("driveBytesPerSecond", Double(read.bytesRead) / all, .bytesPerSecond),
        Figure("pinnedBytes", core.plan.residency.pinnedByteCount, .bytes),
        Figure("streamedBytes", core.plan.residency.streamedByteCount, .bytes),
        Figure("borrowedBytes", core.stream.borrowedByteCount, .bytes),
        Figure("kvPlannedBytes", core.plan.keyValueByteCount, .bytes),
        Figure("peakResidentBytes", ProcessMemory.peakResidentByteCount, .bytes),
      ]
        + Figure.expertsOfSweeps(core.stream.bundleStatistics, since: bundles, sweeps: timedCount)
        + Figure.shares(of: all, core.times - times),
      model.summary(self.model), asJSON: json)
  }

  /// One token of each context.
  private func step(
    _ core: EngineCore, _ lines: inout [Line], _ feeds: inout [TokenFeed], continues: Bool
  ) throws {
    core.batch.removeAll()
    for line in lines {
      withUnsafePointer(to: line.token) { token in
        core.batch.append(
          UnsafeBufferPointer(start: token, count: 1), at: line.position, .answer,
          in: line.cache, logitCount: 1)
      }
    }
    try core.step(continues: continues) { first, logits in
      let width = logits.count / min(lines.count - first, core.plan.logitRowCount)
      for row in 0..<logits.count / width {
        lines[first + row].token = feeds[first + row].next(
          after: UnsafeMutableBufferPointer(rebasing: logits[row * width..<(row + 1) * width]))
      }
    }
    for index in lines.indices { lines[index].position += 1 }
  }

  private func makeCore(_ count: Int, _ model: LanguageModel) throws -> EngineCore {
    var request = try request(model)
    request.sequenceCount = count
    return try EngineCore(
      model.source, model.configuration, request, cancellation: Interruption.flag)
  }

  /// Reads `tokens` into a context.
  private func fill(_ line: inout Line, _ core: EngineCore, _ tokens: [Int32]) throws {
    for first in stride(from: 0, to: tokens.count, by: core.plan.chunkLength) {
      let slice = first..<min(first + core.plan.chunkLength, tokens.count)
      core.batch.removeAll()
      tokens.withUnsafeBufferPointer {
        core.batch.append(
          UnsafeBufferPointer(rebasing: $0[slice]), at: line.position,
          .read, promptEnd: tokens.count, in: line.cache, logitCount: 0)
      }
      try core.step(continues: true) { _, _ in }
      line.position += slice.count
    }
  }
}
