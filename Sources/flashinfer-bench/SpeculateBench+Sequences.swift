import CommandLineSupport
import HostResources
import Runtime
import TensorBasics
import Tokenization

/// Prompts that are answered at the same time.
extension SpeculateBench {
  /// What it took to answer some at once, after the first token of each.
  private struct Batch {
    var answers: [[Int32]] = []
    /// Whether an answer ended before its limit.
    var areWhole: [Bool] = []
    /// Tokens drawn, and sweeps.
    var tokenCount = 0
    var sweepCount = 0
    var nanoseconds = 0
    var drafts = DraftCounts()

    var tokensPerSecond: Double { Double(tokenCount) * 1e9 / Double(max(1, nanoseconds)) }
    var tokensPerSweep: Double { Double(tokenCount) / Double(max(1, sweepCount)) }
    var sweepSeconds: Double { Double(nanoseconds) / 1e9 / Double(max(1, sweepCount)) }
  }

  /// Speed of as many sequences as were asked for, batch after batch; of a last one that is not full, too.
  func figures(ofBatchesOf prompts: [[Int32]], _ model: LanguageModel) throws -> [Figure] {
    var batches: [(plain: Batch, drafted: Batch)] = []
    let progress = Progress.begin("answering", total: prompts.count, unit: .count("prompts"))
    defer { progress.finish() }
    for first in stride(from: 0, to: prompts.count, by: sequences) {
      let batch = Array(prompts[first..<min(first + sequences, prompts.count)])
      let plain = try answer(batch, model, isDrafted: false)
      let drafted = try answer(batch, model, isDrafted: true)
      for number in batch.indices {
        try expect(
          drafted.answers[number], with: plain.answers[number], isWhole: plain.areWhole[number],
          first + number)
      }
      batches.append((plain, drafted))
      progress.update(first + batch.count)
    }
    progress.finish()
    batches.removeAll { $0.plain.tokenCount == 0 || $0.drafted.tokenCount == 0 }
    guard !batches.isEmpty else {
      throw CommandError(.badData, "\(text): no answer has two tokens or more")
    }
    func figure(
      _ name: String, _ unit: FigureUnit, _ value: (_ plain: Batch, _ drafted: Batch) -> Double
    ) -> Figure {
      Figure(name, samples: batches.map { value($0.plain, $0.drafted) }, unit)
    }
    return [
      figure("speedUp", .number) { $1.tokensPerSecond / $0.tokensPerSecond },
      figure("tokensPerSweep", .number) { $1.tokensPerSweep },
      figure("sweepTimeRatio", .number) { $1.sweepSeconds / $0.sweepSeconds },
      figure("plainTokensPerSecond", .tokensPerSecond) { plain, _ in plain.tokensPerSecond },
      figure("draftedTokensPerSecond", .tokensPerSecond) { $1.tokensPerSecond },
      Figure(
        "verifiedDrafts", batches.reduce(0) { $0 + $1.drafted.drafts.draftedCount }, .tokens),
      Figure(
        "acceptedDrafts", batches.reduce(0) { $0 + $1.drafted.drafts.acceptedCount }, .tokens),
    ]
  }

  /// Answers prompts in an engine of their own.
  private func answer(
    _ prompts: [[Int32]], _ model: LanguageModel, isDrafted: Bool
  ) throws -> Batch {
    let (request, draft) = try plan(prompts, model, isDrafted: isDrafted)
    let engine = try Engine(model, request, draft: draft)
    let open = try prompts.map { prompt in
      try engine.open(
        SequenceRequest(
          tokens: prompt, limit: answerLimit(isDrafted: isDrafted),
          sampling: SamplingOptions(temperature: temperature, seed: seed)))
    }
    var batch = Batch()
    for sequence in open {
      batch.answers.append([])
      batch.areWhole.append(true)
      try take(sequence, batch.answers.count - 1, &batch, stopsAtToken: true)
    }
    let (start, before) = (monotonicNanoseconds(), engine.statistics())
    for (number, sequence) in open.enumerated() { try take(sequence, number, &batch) }
    batch.nanoseconds = monotonicNanoseconds() - start
    engine.stop()
    let after = engine.statistics()
    batch.tokenCount = after.drawnCount - before.drawnCount
    batch.sweepCount = after.sweepCount - before.sweepCount
    batch.drafts = after.drafts
    return batch
  }

  /// Takes what a sequence brings, to its end or up to its next token.
  private func take(
    _ sequence: TokenSequence, _ number: Int, _ batch: inout Batch, stopsAtToken: Bool = false
  ) throws {
    while true {
      switch sequence.pull(timeout: .milliseconds(100)) {
      case .timeout: if Interruption.flag.isRaised { throw RuntimeError.interrupted }
      case .end: return
      case .event(.token(let token, _, _)):
        batch.answers[number].append(token)
        if stopsAtToken { return }
      case .event(.finished(let finish)): batch.areWhole[number] = finish.reason != .length
      case .event(.failed(let error)): throw error
      case .event: break
      }
    }
  }
}
