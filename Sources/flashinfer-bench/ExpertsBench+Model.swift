import BlockIO
import CommandLineSupport
import ModelFormat
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

extension ExpertsBench {
  /// Decodes `path` and compares what its cache of experts hit with the most that is possible.
  ///
  /// - Parameter record: where the trace is written as well.
  func measure(_ path: String, record: OutputFile?) throws -> (LanguageModel, [Figure]) {
    Interruption.install()
    let model = try resources.open(path)
    guard model.configuration.experts != nil else {
      throw CommandError(.badData, "\(path): the model has no experts")
    }
    let prompt =
      try promptFile.map { try model.tokenizer.encodePrompt(Terminal.readPrompt(path: $0)) }
      ?? [model.tokenizer.bosToken ?? 0]
    let session = try Session(
      model.source, model.configuration,
      MemoryPlan.Request(
        budgetByteCount: resources.budget,
        contextLength: max(resources.context ?? 0, prompt.count + warmup + tokens),
        promptLength: prompt.count, threadCount: resources.threadCount,
        preferredReadByteCount: resources.preferredReadByteCount(forFileAt: path)),
      cancellation: Interruption.flag)
    try hotness.recall(session)
    defer { hotness.remember(session) }
    var generator = SeededGenerator(seed: randomTokens ?? 0)
    session.recordExperts(tokenCount: 1 + warmup + tokens)
    var logits = try Progress.reading(prompt.count, in: session) { try session.prefill(prompt) }
    func step(continues: Bool) throws {
      let token =
        randomTokens == nil
        ? Sampler.argmax(logits.span)
        : Int32(generator.next() % UInt64(model.configuration.vocabularyCount))
      logits = try session.decode(token, continues: continues)
    }
    let progress = Progress.begin("decoding", total: warmup + tokens, unit: .count("tokens"))
    defer { progress.finish() }
    for index in 0..<warmup {
      try step(continues: true)
      progress.update(index + 1)
    }
    let device = session.stream.source.device
    let (before, bundlesBefore) = (device.statistics, session.stream.bundleStatistics)
    let start = monotonicNanoseconds()
    for index in 0..<tokens {
      try step(continues: index + 1 < tokens)
      progress.update(warmup + index + 1)
    }
    let nanoseconds = Double(monotonicNanoseconds() - start)
    let (read, bundles) = (device.statistics.since(before), session.stream.bundleStatistics)
    guard let trace = session.expertTrace else { return (model, []) }
    if let record { try trace.write(to: record) }
    let best = CacheSimulation.clairvoyant(
      trace, slotCount: session.plan.expertSlotCount,
      warmupTokenCount: trace.tokenCount - tokens)
    // What a prompt or an earlier run brought is not in the trace, and no bound holds with it.
    let isBounded = prompt.count == 1 && bundles.recalls == 0
    let uses = Double(bundles.uses - bundlesBefore.uses)
    // What was named early was read anyway.
    let hits = bundles.hits - bundlesBefore.hits - (bundles.prefetches - bundlesBefore.prefetches)
    let hitRate = Double(hits) / uses
    let figures =
      [
        Figure("tokens", Double(tokens), .tokens),
        Figure(
          "slots", Double(session.plan.expertSlotCount), .number, limit: Double(trace.bundleCount)),
        Figure("bytesPerToken", Double(read.bytesRead) / Double(tokens), .bytes),
        Figure("hitRate", hitRate, .fraction, "of the uses, without reads ahead"),
        Figure("dutyCycle", Double(read.busyNanoseconds) / nanoseconds, .fraction, limit: 1),
      ] + Figure.bundles(bundles, since: bundlesBefore, tokens: tokens)
      + Figure.foresight(session.expertPrefetcher) + Self.figures(best, tokens: Double(tokens))
      + (isBounded && best.hitRate > 0
        ? [Figure("shareOfClairvoyant", hitRate / best.hitRate, .fraction, limit: 1)] : [])
    return (model, figures)
  }
}
