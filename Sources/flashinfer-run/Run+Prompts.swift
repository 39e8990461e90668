import ArgumentParser
import CommandLineSupport
import Grammar
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
      if prompt.isGiven {
        "a prompt"
      } else if output.logprobs != nil {
        "--logprobs"
      } else if attention.attention != "host" { "--attention" } else { nil }
    if let other { throw ValidationError("--prompts cannot be combined with \(other)") }
    guard prompts.prompts != "-" || prompt.template.system != "-" else {
      throw ValidationError("standard input is read once: by --system or by --prompts")
    }
  }

  /// Answers every prompt of the file at `path`.
  func answerAll(_ path: String, _ grammar: CompiledGrammar?) throws {
    let model = try resources.open(model)
    Terminal.warn(notesOf: model.source)
    let results = try ResultsFile(path: prompts.output)
    let runSeed = try runSeed(results)
    let template: ChatTemplate? = try prompt.template.chatTemplate(
      or: model.source.description.chatTemplate(hasTools: false))
    let trained = model.configuration.contextLength
    let context = resources.context ?? trained
    let file = PromptsFile(
      text: try LineFile(
        path: path == "-" ? nil : path, copyFolder: keyValues.kvDir ?? KeyValueOptions.defaultFolder
      ),
      sampling: sampling, grammar: grammar, prompt: prompt,
      model: model, template: prompt.template.chatTemplate == nil ? nil : template,
      setting: try setting(model), contextLength: context,
      lackOfRoom: { lackOfRoom(for: $0, in: context, trained: trained) }, runSeed: runSeed)
    var entries = try file.entries()
    guard !entries.isEmpty else {
      throw CommandError(.badData, "\(file.name): there are no prompts")
    }
    try skipAnswered(results, &entries)
    var failures = Failures()
    for entry in entries where !entry.isGood {
      failures.badLineCount += 1
      // That result is there already.
      if results.kept[entry.number]?.checksum == entry.checksum { continue }
      let line = try file.line(entry)
      try results.append(resultLine(line, runSeed, nil, error: line.problem))
    }
    entries.removeAll { !$0.isGood }
    if !entries.isEmpty { try answer(entries, file, results, &failures) }
    try results.synchronise()
    if failures.runCount > 0 { throw ExitStatus.failure.code }
    if failures.badLineCount > 0 {
      Terminal.note(
        "error: \(Terminal.counted(failures.badLineCount, "line")) of \(file.name) could not be answered; "
          + "\(failures.badLineCount == 1 ? "its result says" : "their results say") why")
      throw ExitStatus.badData.code
    }
  }

  /// What all answers depend on beside their lines. Weights that nobody has checksums of yet are read for it, once.
  private func setting(_ model: LanguageModel) throws -> String {
    let identity = try model.source.computeIdentity(showingProgress: "reading all weights once")
    let context = resources.context ?? model.configuration.contextLength
    return "\(identity.map(\.number) ?? 0) \(keyValues.kvType) \(keyValues.kvPolicy) "
      + "\(neurons.options.selector.map { "\($0)" } ?? "") \(context)"
  }

  private struct Failures {
    var badLineCount = 0
    var runCount = 0
  }

  /// The seed of the run: that of the results so far, or the one that was asked for.
  private func runSeed(_ results: ResultsFile) throws -> UInt64 {
    guard let kept = results.runSeed else { return sampling.chosenSeed() }
    guard sampling.seed?.value ?? kept == kept else {
      throw CommandError(
        .usage,
        "--seed \(sampling.seed?.text ?? ""): the results in \(prompts.output ?? "") were begun with --seed "
          + "\(kept)")
    }
    return kept
  }

  /// Leaves out what was answered before; an error is no answer.
  private func skipAnswered(_ results: ResultsFile, _ entries: inout [PromptEntry]) throws {
    let answered = results.kept.filter { !$0.value.isError }
    let checksums = Dictionary(entries.map { ($0.number, $0.checksum) }) { first, _ in first }
    let others = answered.filter { checksums[$0.key] != $0.value.checksum }
    if let number = others.keys.min() {
      throw CommandError(
        .usage,
        "--output \(prompts.output ?? ""): its result of line \(number) is of another prompt, model or "
          + "options; give another file, or what it was begun with")
    }
    guard !answered.isEmpty else { return }
    entries.removeAll { answered[$0.number] != nil }
    Terminal.remark(
      "\(Terminal.counted(answered.count, "prompt")) \(answered.count == 1 ? "was" : "were") answered before"
    )
  }

  private func answer(
    _ entries: [PromptEntry], _ file: PromptsFile, _ results: ResultsFile,
    _ failures: inout Failures
  ) throws {
    let engine = try Progress.showing("planning memory") { _ in
      try makeEngine(entries, file.model)
    }
    for note in engine.notes { Terminal.warn(note) }
    Interruption.endProcessAtOnce(false)
    let progress = Progress.begin("answering", total: entries.count, unit: .count("prompts"))
    defer { progress.finish() }
    var (next, endedCount, tokenCount) = (0, 0, 0)
    let start = monotonicNanoseconds()
    var open: [UInt64: OpenPrompt] = [:]
    while endedCount < entries.count {
      while next < entries.count, open.count < engine.plan.sequenceCount {
        let prompt = try OpenPrompt(try file.line(entries[next]), engine)
        open[prompt.sequence.id] = prompt
        next += 1
      }
      let ready = engine.ready(timeout: .milliseconds(100))
      for warning in engine.takeWarnings() { Terminal.note(warning) }
      if Interruption.flag.isRaised {
        engine.stop(.now)
        progress.finish()
        interrupt(endedCount, of: entries.count)
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
        try results.append(resultLine(prompt.line, file.runSeed, prompt, error: end.error))
        endedCount += 1
        tokenCount += prompt.tokenCount
        progress.update(endedCount)
      }
    }
    progress.finish()
    report(
      engine, promptCount: endedCount, tokenCount: tokenCount,
      seconds: Double(monotonicNanoseconds() - start) / 1e9)
  }

  private func interrupt(_ endedCount: Int, of count: Int) -> Never {
    Terminal.note(
      "interrupted: \(endedCount) of \(Terminal.counted(count, "prompt")) answered"
        + (prompts.output == nil ? "" : "; the same command goes on from there"))
    Terminal.exit(.interrupted)
  }

  private func report(_ engine: Engine, promptCount: Int, tokenCount: Int, seconds: Double) {
    let statistics = engine.statistics()
    func rounded(_ value: Double) -> Double { (value * 10).rounded() / 10 }
    Terminal.remark(
      "\(Terminal.counted(promptCount, "prompt")), \(Terminal.counted(tokenCount, "token")) answered in "
        + "\(rounded(seconds)) s: "
        + "\(rounded(Double(tokenCount) / max(seconds, 1e-9))) tokens/s in all")
    Terminal.remark(
      "\(Terminal.counted(statistics.sweepCount, "sweep")) of "
        + "\(rounded(Double(statistics.rowCount) / Double(max(1, statistics.sweepCount)))) rows, "
        + "\(Terminal.counted(engine.plan.sequenceCount, "answer")) at a time at most")
    if statistics.drafts.draftedCount > 0 {
      Terminal.remark(
        "drafts: \(statistics.drafts.acceptedCount) of \(statistics.drafts.draftedCount) were right"
      )
    }
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
        if store.kvStore != nil { json.number("reusedTokens", answer.reusedTokenCount) }
        json.number("tokens", answer.tokenCount)
        json.number("seed", line.options.sampling.seed)
      }
      if let error { json.text("error", error) }
      json.number("runSeed", runSeed)
      json.text("input", line.checksumText)
    }
  }
}
