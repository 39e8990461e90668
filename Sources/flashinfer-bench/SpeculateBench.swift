import ArgumentParser
import BlockIO
import CommandLineSupport
import HostResources
import ModelFormat
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

/// What drafts of tokens gain on prompts.
struct SpeculateBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "speculate",
    abstract: "Speed of answers with drafts of tokens ÷ without, which are the same to the bit.",
    discussion: """
      Each prompt, or with --sequences so many at once, is answered without drafts and then with them, each \
      time by a session of its own with all of the budget. What drafters remember of earlier answers stays, as it does in an engine. An \
      answer that differs ends the run with an error. The speed-up is that of tokens/s after the first \
      token; a sweep's time with drafts, drafting included, is divided by one without, and so is what the \
      drive gives a second. The spread is that of the prompts. Memory bounds how many drafts a sweep \
      verifies.

      Examples:
        flashinfer-bench speculate model.bin --ram 2200MiB --text benchmarks/speculation/copy.jsonl
        flashinfer-bench speculate model.bin --ram 2200MiB --text prose.jsonl --draft small.bin --temperature 0.7
        flashinfer-bench speculate model.bin --ram 2200MiB --text prose.jsonl --oracle 8
        flashinfer-bench speculate model.bin --ram 2200MiB --text prose.jsonl --draft small.bin --sequences 2
      """)

  @Argument(help: "Flash image, GGUF file or Hugging Face folder.") var model: String
  @Option(
    help: """
      Prompts, one JSON object with 'messages' or 'prompt' in each line, whose other members do not count; - is standard input.
      """)
  var text: String
  @OptionGroup var drafts: DraftArguments
  @Option(help: "Verify so many tokens in each sweep, all of them right: what verifying costs.")
  var oracle: Int?
  @Flag(help: "Draft at random: what drafts cost that are never right.") var garbage = false
  @Option(help: "Prompts to answer (default: all).") var prompts: Int?
  @Option(help: "Prompts that are answered at the same time.") var sequences = 1
  @Option(help: "Most tokens of an answer.") var maxTokens = 128
  @Option(
    help: """
      Of an answer, tokens that are drawn without drafts, for their speed and to compare (default: all of them). Fewer save time; \
      --oracle needs all.
      """)
  var plainTokens: Int?
  @Option(help: "How freely tokens are drawn; 0 = always the most probable.")
  var temperature: Float = 0
  @Option(help: "Seed of the draws.") var seed: UInt64 = 1
  @OptionGroup(title: "Memory, processors and drive") var resources: ResourceOptions
  @OptionGroup(title: "Memory, processors and drive") var verification: VerifyArguments
  @OptionGroup(title: "Keys and values") var keyValues: KeyValueArguments
  @OptionGroup(title: "Experts and neurons") var neurons: NeuronArguments
  @Flag(help: "Print one JSON object.") var json = false
  @OptionGroup(title: "Output") var messages: OutputOptions

  func validate() throws {
    guard !(garbage && oracle != nil), drafts.draft == .auto || (!garbage && oracle == nil) else {
      throw ValidationError("--draft, --oracle and --garbage are ways to draft: give one")
    }
    guard (1...DraftChoice.usualRowCount + 1).contains(oracle ?? 1) else {
      throw ValidationError(
        "--oracle must be between 1 and \(DraftChoice.usualRowCount + 1), not \(oracle ?? 0)")
    }
    guard maxTokens >= 2 else {
      throw ValidationError("--max-tokens must be at least 2, not \(maxTokens)")
    }
    guard plainTokens ?? 2 >= 2 else {
      throw ValidationError("--plain-tokens must be at least 2, not \(plainTokens ?? 0)")
    }
    guard plainTokens == nil || oracle == nil else {
      throw ValidationError("--oracle knows the whole answer: leave out --plain-tokens")
    }
    guard sequences >= 1, sequences == 1 || oracle == nil else {
      throw ValidationError(
        oracle == nil
          ? "--sequences must be at least 1, not \(sequences)"
          : "--oracle is for one sequence: leave out --sequences")
    }
    guard prompts ?? 1 >= 1 else {
      throw ValidationError("--prompts must be at least 1, not \(prompts ?? 0)")
    }
    guard temperature >= 0, temperature.isFinite else {
      throw ValidationError("--temperature must be 0 or more, not \(temperature)")
    }
  }

  func run() throws {
    Interruption.install()
    try reportingErrors {
      let model = try resources.open(model)
      let prompts = try readPrompts(model)
      guard sequences == 1 else {
        let figures = try figures(ofBatchesOf: prompts, model)
        return report(figures, model.summary(self.model), asJSON: json)
      }
      var runs: [Run] = []
      let memory = DraftMemory(vocabularyCount: model.configuration.vocabularyCount)
      let progress = Progress.begin("answering", total: prompts.count, unit: .count("prompts"))
      defer { progress.finish() }
      for (index, prompt) in prompts.enumerated() {
        let plain = try answer(prompt, model, of: nil, memory)
        let drafted = try answer(prompt, model, of: plain.tokens, memory)
        try expect(
          drafted.tokens, with: plain.tokens, isWhole: plain.finishReason != .length, index)
        if plain.sampledTokenCount > 1 { runs.append(Run(plain: plain, drafted: drafted)) }
        progress.update(index + 1)
      }
      progress.finish()
      guard !runs.isEmpty else {
        throw CommandError(.badData, "\(text): no answer has two tokens or more")
      }
      report(figures(runs), model.summary(self.model), asJSON: json)
    }
  }

  /// Throws where an answer differs with drafts.
  ///
  /// - Parameter isWhole: whether the one without drafts was not cut off.
  func expect(
    _ drafted: [Int32], with plain: [Int32], isWhole: Bool, _ index: Int
  ) throws {
    guard isWhole || plainTokens == nil ? plain == drafted : drafted.starts(with: plain) else {
      throw CommandError(
        .failure,
        "the answer to prompt \(index + 1) of \(text) differs with drafts: this is a defect")
    }
  }

  /// A prompt, answered both ways.
  private struct Run {
    var plain: GenerationResult
    var drafted: GenerationResult

    var speedUp: Double {
      (drafted.decodeTokensPerSecond ?? 0) / (plain.decodeTokensPerSecond ?? 1)
    }
    /// Of the sweeps after the prompt's.
    var tokensPerSweep: Double {
      Double(drafted.sampledTokenCount - 1) / Double(max(1, drafted.sweepCount - 1))
    }
    static func sweepSeconds(_ result: GenerationResult) -> Double {
      Double(result.lastTokenNanoseconds - (result.firstTokenNanoseconds ?? 0)) / 1e9
        / Double(max(1, result.sweepCount - 1))
    }
  }

  private func figures(_ runs: [Run]) -> [Figure] {
    let sweep = runs.map { Run.sweepSeconds($0.drafted) / Run.sweepSeconds($0.plain) }
    let verified = runs.reduce(0) { $0 + $1.drafted.drafts.draftedCount }
    let accepted = runs.reduce(0) { $0 + $1.drafted.drafts.acceptedCount }
    return [
      Figure("speedUp", samples: runs.map(\.speedUp), .number),
      Figure("tokensPerSweep", samples: runs.map(\.tokensPerSweep), .number),
      Figure("sweepTimeRatio", samples: sweep, .number),
      Figure(
        "plainTokensPerSecond", samples: runs.map { $0.plain.decodeTokensPerSecond ?? 0 },
        .tokensPerSecond),
      Figure(
        "draftedTokensPerSecond", samples: runs.map { $0.drafted.decodeTokensPerSecond ?? 0 },
        .tokensPerSecond),
      Figure("verifiedDrafts", verified, .tokens),
      Figure("acceptedDrafts", accepted, .tokens),
    ] + bytes(runs) + drive(runs)
  }

  /// How busy the drive is kept. The last figure is what it gave a second with drafts ÷ without: reads that have come and
  /// wait to be taken count as time that it had something to read, but bring nothing.
  private func drive(_ runs: [Run]) -> [Figure] {
    let rates = runs.compactMap { run -> Double? in
      guard let plain = run.plain.driveBytesPerSecond, plain > 0,
        run.plain.bytesPerToken >= 4096
      else { return nil }
      return run.drafted.driveBytesPerSecond.map { $0 / plain }
    }
    guard !rates.isEmpty else { return [] }
    return [
      Figure("plainDutyCycle", samples: runs.compactMap(\.plain.driveDuty), .fraction),
      Figure("draftedDutyCycle", samples: runs.compactMap(\.drafted.driveDuty), .fraction),
      Figure("driveRateRatio", samples: rates, .number),
    ]
  }

  /// Bytes read a token with drafts ÷ without; no value where the model is in memory.
  private func bytes(_ runs: [Run]) -> [Figure] {
    let plain = runs.reduce(0) { $0 + $1.plain.bytesPerToken }
    let drafted = runs.reduce(0) { $0 + $1.drafted.bytesPerToken }
    return [
      Figure(
        "bytesPerTokenRatio", drafted, dividedBy: plain >= 4096 * Double(runs.count) ? plain : 0,
        "bytes that are read a token without drafts", .number)
    ]
  }

  private func readPrompts(_ model: LanguageModel) throws -> [[Int32]] {
    let file = try LineFile(path: text == "-" ? nil : text)
    var prompts: [[Int32]] = []
    try file.forEachLine(keeping: 1 << 20) { line in
      guard !line.isBlank, prompts.count < self.prompts ?? .max else { return }
      let name = "\(file.name), line \(line.number)"
      let json = try line.bytes.withUnsafeBytes { try JSONParser.parse($0, path: name) }
      if let prompt = json["prompt"]?.string {
        let message = ChatMessage(role: .user, content: Array(prompt.utf8))
        prompts.append(
          model.source.description.chatTemplate(hasTools: false) == nil
            ? try model.prompt(prompt) : try model.prompt(Conversation([message])))
        return
      }
      let own = json.members?.filter { Conversation.knownMembers.contains($0.key) } ?? []
      prompts.append(
        try model.prompt(
          Conversation(JSONValue(content: .object(own), offset: json.offset), name: name)))
    }
    guard !prompts.isEmpty else {
      throw CommandError(.badData, "\(text): there is no prompt in it")
    }
    return prompts
  }

  /// Most tokens of an answer.
  func answerLimit(isDrafted: Bool) -> Int {
    isDrafted ? maxTokens : min(plainTokens ?? maxTokens, maxTokens)
  }

  /// What prompts that are answered at the same time need, and what drafts for them.
  func plan(
    _ prompts: [[Int32]], _ model: LanguageModel, isDrafted: Bool
  ) throws -> (MemoryPlan.Request, DraftChoice) {
    let longest = prompts.map(\.count).max() ?? 0
    var request = resources.memoryRequest(
      model, keyValues, neurons, verification, contextLength: longest + maxTokens,
      promptLength: longest,
      callerByteCount: Sampler.byteCount(vocabularyCount: model.configuration.vocabularyCount))
    request.sequenceCount = prompts.count
    let draft = isDrafted ? try drafts.plan(&request, for: model, resources) : .off
    guard isDrafted, garbage else { return (request, draft) }
    let count = Int32(clamping: model.configuration.vocabularyCount)
    return (request, DraftChoice { _, _ in GarbageDrafter(vocabularyCount: count) })
  }

  /// Answers a prompt in a session of its own.
  ///
  /// - Parameters:
  ///   - known: the answer without drafts; nil = that is what is wanted.
  ///   - memory: what drafters know of the answers before.
  private func answer(
    _ prompt: [Int32], _ model: LanguageModel, of known: [Int32]?, _ memory: DraftMemory
  ) throws -> GenerationResult {
    let (request, draft) = try plan([prompt], model, isDrafted: known != nil)
    var options = GenerationOptions(
      prompt: prompt, maximumTokenCount: answerLimit(isDrafted: known != nil),
      sampling: SamplingOptions(temperature: temperature, seed: seed))
    options.draft = draft
    if let known, let oracle {
      options.draft = DraftChoice { _, _ in OracleDrafter(prompt + known, count: oracle - 1) }
    }
    let session = try Session(
      model.source, model.configuration, request, cancellation: Interruption.flag)
    if known != nil { session.draftMemory = memory }
    let result = try TextGenerator(session: session, tokenizer: model.tokenizer)
      .generate(options) { _ in }
    if result.wasInterrupted { throw RuntimeError.interrupted }
    return result
  }
}

/// Knows the answer.
private final class OracleDrafter: Drafter {
  private let whole: [Int32]
  private let count: Int

  init(_ whole: [Int32], count: Int) { (self.whole, self.count) = (whole, count) }

  func propose(after context: DraftContext, into draft: inout Draft) {
    draft.isForced = true
    for token in whole.dropFirst(context.path.count).prefix(count) {
      draft.append(token, grade: 0)
    }
  }
}

/// Knows nothing.
private final class GarbageDrafter: Drafter {
  private let vocabularyCount: Int32
  private var state: UInt32 = 1

  init(vocabularyCount: Int32) { self.vocabularyCount = vocabularyCount }

  func propose(after context: DraftContext, into draft: inout Draft) {
    while draft.wantsMore {
      state = state &* 1_664_525 &+ 1_013_904_223
      draft.append(Int32(state >> 8) % vocabularyCount, grade: Int(state >> 30))
    }
  }
}
