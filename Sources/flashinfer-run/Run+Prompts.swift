import ArgumentParser
import CommandLineSupport
import KVCache
import ModelFormat
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

/// `--prompts`: all prompts of a file, as one stream of rows.
extension Run {
  /// Refuses what `--prompts` cannot be combined with.
  func checkPrompts() throws {
    guard prompts.prompts != nil else { return }
    let other: String? =
      if prompt.isGiven { "a prompt" } else if output.json { "--json" } else if store.kvStore != nil
      {
        "--kv-store"
      } else if attention.attention != "host" { "--attention" } else { nil }
    if let other { throw ValidationError("--prompts cannot be combined with \(other)") }
    guard prompts.prompts != "-" || prompt.template.system != "-" else {
      throw ValidationError("standard input is read once: by --system or by --prompts")
    }
  }

  /// Answers every prompt of the file at `path`.
  func answerAll(_ path: String) throws {
    let model = try resources.open(model)
    Terminal.warn(notesOf: model.source)
    let results = try ResultsFile(path: prompts.output)
    let runSeed = try runSeed(results)
    let bytes = try Terminal.readAll(path: path == "-" ? nil : path)
    let template: ChatTemplate? = try prompt.template.chatTemplate(
      or: model.source.description.chatTemplate(hasTools: false))
    let file = PromptsFile(
      name: path == "-" ? "standard input" : path, sampling: sampling, prompt: prompt,
      model: model, template: prompt.template.chatTemplate == nil ? nil : template)
    var lines = file.lines(bytes, runSeed: runSeed)
    guard !lines.isEmpty else { throw CommandError(.badData, "\(file.name): there are no prompts") }
    refuseLong(&lines, model)
    let keptErrors = try skipKept(results, &lines)
    var failures = Failures(badLineCount: keptErrors)
    for line in lines where line.problem != nil {
      try results.append(resultLine(line, runSeed, nil, error: line.problem))
      failures.badLineCount += 1
    }
    lines.removeAll { $0.problem != nil }
    if !lines.isEmpty { try answer(lines, model, results, runSeed, &failures) }
    try results.synchronise()
    if failures.runCount > 0 { throw ExitStatus.failure.code }
    if failures.badLineCount > 0 {
      Terminal.note(
        "error: \(failures.badLineCount) lines of \(file.name) could not be answered; their results "
          + "say why")
      throw ExitStatus.badData.code
    }
  }

  private struct Failures {
    var badLineCount: Int
    var runCount = 0
  }

  /// The seed of the run: that of the results so far, or the one that was asked for.
  private func runSeed(_ results: ResultsFile) throws -> UInt64 {
    guard let kept = results.runSeed else { return sampling.chosenSeed() }
    guard sampling.seed ?? kept == kept else {
      throw CommandError(
        .usage,
        "--seed \(sampling.seed ?? 0): the results in \(prompts.output ?? "") were begun with --seed "
          + "\(kept)")
    }
    return kept
  }

  /// Notes for which prompts no context has room.
  private func refuseLong(_ lines: inout [PromptLine], _ model: LanguageModel) {
    let trained = model.configuration.contextLength
    let context = resources.context ?? trained
    for index in lines.indices where lines[index].problem == nil {
      let count = lines[index].options.prompt.count
      guard count >= context else { continue }
      lines[index].problem =
        "the prompt has \(count) tokens; a context of \(context) has room for \(max(0, context - 1)) "
        + "and an answer"
        + (resources.context == nil ? " (the model was trained for \(trained))" : "")
    }
  }

  /// Leaves out what was answered before.
  ///
  /// - Returns: how many of those could not be answered.
  private func skipKept(_ results: ResultsFile, _ lines: inout [PromptLine]) throws -> Int {
    let checksums = Dictionary(lines.map { ($0.number, $0.checksum) }) { first, _ in first }
    for kept in results.kept where checksums[kept.line] != kept.checksum {
      throw CommandError(
        .usage,
        "--output \(prompts.output ?? ""): its result of line \(kept.line) is of another prompt, model or "
          + "options; give another file, or what it was begun with")
    }
    let done = Set(results.kept.map(\.line))
    lines.removeAll { done.contains($0.number) }
    if !done.isEmpty { Terminal.remark("\(done.count) prompts were answered before") }
    return results.kept.count { $0.isError }
  }

  private func answer(
    _ lines: [PromptLine], _ model: LanguageModel, _ results: ResultsFile, _ runSeed: UInt64,
    _ failures: inout Failures
  ) throws {
    let engine = try Progress.showing("planning memory") { _ in try makeEngine(lines, model) }
    for note in engine.notes { Terminal.warn(note) }
    Interruption.endProcessAtOnce(false)
    let progress = Progress.begin("answering", total: lines.count, unit: .count("prompts"))
    defer { progress.finish() }
    var (next, endedCount, tokenCount) = (0, 0, 0)
    var open: [UInt64: OpenPrompt] = [:]
    while endedCount < lines.count {
      while next < lines.count, open.count < engine.plan.sequenceCount {
        let prompt = try OpenPrompt(lines[next], engine)
        open[prompt.sequence.id] = prompt
        next += 1
      }
      let ready = engine.ready(timeout: .milliseconds(100))
      for warning in engine.takeWarnings() { Terminal.note(warning) }
      if Interruption.flag.isRaised {
        engine.stop(.now)
        progress.finish()
        interrupt(endedCount, of: lines.count)
      }
      for number in ready {
        guard let end = open[number]?.takeEvents(), let prompt = open.removeValue(forKey: number)
        else { continue }
        // What the model or its drive failed with is no prompt's.
        if let failure = engine.failure { throw failure }
        if let error = end.error {
          failures.runCount += 1
          Terminal.note("error: line \(prompt.line.number): \(error)".escapingControlCharacters)
        }
        try results.append(resultLine(prompt.line, runSeed, prompt, error: end.error))
        endedCount += 1
        tokenCount += prompt.tokenCount
        progress.update(endedCount)
      }
    }
    progress.finish()
    report(engine, promptCount: endedCount, tokenCount: tokenCount)
  }

  private func interrupt(_ endedCount: Int, of count: Int) -> Never {
    Terminal.note(
      "interrupted: \(endedCount) of \(count) prompts are answered"
        + (prompts.output == nil ? "" : "; the same command goes on from there"))
    Terminal.exit(.interrupted)
  }

  private func report(_ engine: Engine, promptCount: Int, tokenCount: Int) {
    let statistics = engine.statistics()
    let seconds = Double(statistics.sweepNanoseconds) / 1e9
    func rounded(_ value: Double) -> Double { (value * 10).rounded() / 10 }
    Terminal.remark(
      "\(promptCount) prompts, \(tokenCount) tokens answered in \(rounded(seconds)) s: "
        + "\(rounded(Double(tokenCount) / max(seconds, 1e-9))) tokens/s in all")
    Terminal.remark(
      "\(statistics.sweepCount) sweeps of \(rounded(Double(statistics.rowCount) / Double(max(1, statistics.sweepCount)))) "
        + "rows, \(engine.plan.sequenceCount) answers at a time at most")
  }

  /// An engine with room for as many answers at the same time as were asked for, or as memory allows.
  private func makeEngine(_ lines: [PromptLine], _ model: LanguageModel) throws -> Engine {
    let longest = lines.lazy.map(\.length).max() ?? 1
    var request = MemoryPlan.Request(
      budgetByteCount: resources.budget,
      contextLength: min(resources.context ?? model.configuration.contextLength, longest),
      promptLength: lines.lazy.map(\.options.prompt.count).max() ?? 1,
      threadCount: resources.threadCount,
      callerByteCount: lines.reduce(0) { $0 + Self.byteCount(of: $1) },
      preferredReadByteCount: resources.preferredReadByteCount(forFileAt: model.source.path))
    request.keyValues = keyValues.options(resources.io)
    request.neurons = neurons.options
    request.verification = verification.verify
    let most = min(prompts.sequences ?? Self.usualSequenceCount, lines.count)
    if prompts.sequences != nil {
      request.sequenceCount = most
    } else {
      request.sequenceCount = try Self.sequenceCount(upTo: most, request, model)
    }
    return try Engine(model, request)
  }

  /// Answers at the same time where memory is enough: more rows than that take the processors longer than they spare the
  /// drive.
  private static let usualSequenceCount = 32

  /// The most sequences, halving from `most`, whose keys and values all stay in memory; at least 1.
  private static func sequenceCount(
    upTo most: Int, _ request: MemoryPlan.Request, _ model: LanguageModel
  ) throws -> Int {
    var request = request
    request.sequenceCount = most
    while request.sequenceCount > 1 {
      let plan = try? MemoryPlan.make(
        request, source: model.source, configuration: model.configuration)
      if let plan, !plan.keyValues.hasTier { break }
      request.sequenceCount /= 2
    }
    return request.sequenceCount
  }

  /// What a prompt and its answer take in this process.
  private static func byteCount(of line: PromptLine) -> Int {
    4 * line.options.prompt.count + MemoryLayout<PromptLine>.stride + 64
  }

  /// One line of results (docs/json.md).
  private func resultLine(
    _ line: PromptLine, _ runSeed: UInt64, _ answer: OpenPrompt?, error: String?
  ) -> [UInt8] {
    JSONWriter.document { json in
      json.number("line", line.number)
      if let text = line.id?.string { json.text("id", text) }
      if let number = line.id?.integer { json.number("id", number) }
      if let answer, error == nil {
        json.text("text", utf8: answer.bytes)
        json.text("finishReason", answer.reason.rawValue)
        json.number("promptTokens", line.options.prompt.count)
        json.number("tokens", answer.tokenCount)
        json.number("seed", line.options.sampling.seed)
      }
      if let error { json.text("error", error) }
      json.number("runSeed", runSeed)
      json.text("input", String(line.checksum, radix: 16))
    }
  }
}
