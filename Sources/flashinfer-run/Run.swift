import ArgumentParser
import BlockIO
import CommandLineSupport
import Grammar
import InStorageAttention
import KVCache
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

/// `flashinfer-run MODEL [PROMPT]`: a model answers a prompt under a memory budget.
@main
struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "flashinfer-run",
    abstract: "Answers a prompt, or converses, with a model that need not fit in memory.",
    discussion: """
      MODEL is a flash image (see flashinfer-convert), a GGUF file or a Hugging Face folder with \
      safetensors. The answer goes to standard output as it is generated; progress and a summary \
      go to standard error. On a terminal and without a prompt it is a conversation: /help lists \
      its commands.

      Examples:
        flashinfer-run model.bin "Why is the sky blue?" --ram 2GiB
        flashinfer-run model.bin --system "Be brief."
        flashinfer-run model.bin --prompt-file long.txt --max-tokens 200
        git log -5 | flashinfer-run model.bin --system "Summarise." --quiet
        flashinfer-run model.bin --raw "Once upon a time" --temperature 0
      """,
    version: FlashInferVersion.current)

  static func main() { runAsProgram() }

  @Argument(help: "Flash image, GGUF file or Hugging Face folder.")
  var model: String

  @OptionGroup(title: "Prompt") var prompt: PromptOptions
  @OptionGroup(title: "Many prompts") var prompts: PromptsArguments
  @OptionGroup(title: "Answer") var sampling: SamplingArguments
  @OptionGroup(title: "Answer") var drafts: DraftArguments
  @OptionGroup(title: "Memory, processors and drive") var resources: ResourceOptions
  @OptionGroup(title: "Memory, processors and drive") var verification: VerifyArguments
  @OptionGroup(title: "Output") var output: RunOutputOptions
  @OptionGroup(title: "Output") var messages: OutputOptions
  @OptionGroup(title: "Keys and values") var keyValues: KeyValueArguments
  @OptionGroup(title: "Keys and values") var store: StoreArguments
  @OptionGroup(title: "Experts and neurons") var hotness: ExpertHistoryOptions
  @OptionGroup(title: "Experts and neurons") var neurons: NeuronArguments
  @OptionGroup(title: "Attention in simulated drives") var attention: AttentionArguments

  func validate() throws {
    try checkPrompts()
    guard attention.attention == "host" || store.kvStore == nil else {
      throw ValidationError(
        "--kv-store keeps the host's keys and values: drives need theirs from the first on")
    }
    guard attention.attention == "host" || (keyValues.kvType == .f16 && keyValues.kvPolicy == .full)
    else {
      throw ValidationError(
        "--kv-type and --kv-policy are the host's: drives keep keys and values as f16, and choose by "
          + "--attention")
    }
  }

  func run() throws {
    Interruption.install()
    Interruption.endProcessAtOnce(true)
    try reportingErrors {
      let grammar = try sampling.compiledGrammar()
      if let path = prompts.prompts { return try answerAll(path, grammar) }
      if isConversation {
        guard grammar == nil else {
          throw ValidationError("--json-schema and --grammar need a prompt")
        }
        return try converse()
      }
      let model = try openModel()
      let tokens = try prompt.tokens(model)
      if let oddity = model.oddity(of: tokens) { Terminal.warn(oddity) }
      if let position = positions.only, position >= tokens.count {
        throw CommandError(
          .badData,
          "--logprobs-position \(position) is outside the prompt of \(tokens.count) tokens")
      }
      let (session, persistence, drives, draft) = try Progress.showing("planning memory") { _ in
        try makeSession(model, tokens, hasGrammar: grammar != nil)
      }
      try hotness.recall(session)
      Terminal.warn(notesOf: model.source)
      reportTroubles(of: session)
      let loadSeconds = secondsSinceProcessStart()
      let seed = sampling.chosenSeed()
      var options = GenerationOptions(
        prompt: tokens, maximumTokenCount: sampling.maxTokens,
        sampling: sampling.options(seed: seed), ignoresEnd: sampling.ignoreEos,
        logProbabilityCount: output.logprobs ?? 0, logProbabilityPromptPosition: positions.only,
        reportsWholePrompt: positions == .prompt)
      (options.grammar, options.draft) = (grammar, draft)
      let processStart = secondsSinceProcessStart() - Double(monotonicNanoseconds()) / 1e9
      Interruption.endProcessAtOnce(false)
      var generator = TextGenerator(session: session, tokenizer: model.tokenizer)
      generator.onLostPrefix = { persistence?.removePrefix(because: $0) }
      generator.onLostDrafts = Self.warnOfLostDrafts
      let result = try generate(generator, options)
      hotness.remember(session)
      var report = RunReport(
        result: result, promptTokens: tokens, session: session, policy: keyValues.kvPolicy,
        trainedContextLength: model.configuration.contextLength, loadSeconds: loadSeconds,
        processStart: processStart,
        reportsDistributions: output.logprobs != nil)
      report.inStorage = drives.map {
        InStorageReport(
          $0, fellBack: !session.usesDecodeAttention, model: ModelParameters(model.configuration),
          positions: tokens.count..<max(tokens.count, session.position))
      }
      if output.json {
        report.printJSON(model, path: self.model, seed: seed)
      } else {
        Terminal.print("\n")
      }
      let summary = report.summary(
        seed: sampling.temperature > 0 ? seed : nil, maximumTokenCount: sampling.maxTokens)
      for line in summary + (report.inStorage?.summary ?? []) { Terminal.remark(line) }
      persistence?.store(tokens + result.tokens, of: session)
      if persistence != nil, session.position < KeyValueOrigin.pageGroupPositionCount {
        Terminal.remark(
          "--kv-store kept nothing of these \(session.position) tokens: it keeps keys and values of "
            + "\(KeyValueOrigin.pageGroupPositionCount) or more")
      }
      if !result.wasInterrupted { persistence?.learnModel(cancellation: Interruption.flag) }
      // Not by way of destructors: they wait for reads that a slow drive has yet to answer.
      if result.wasInterrupted { Terminal.exit(.interrupted) }
    }
  }

  /// - Throws: also where the argument reads like a prompt whose model was left out.
  func openModel() throws -> LanguageModel {
    do { return try resources.open(model, needsVocabulary: prompt.tokenList == nil) } catch {
      guard ExitStatus(error) == .noInput, model.contains(" "), !prompt.isGiven else { throw error }
      throw CommandError(
        .noInput, "\(error); the first argument is the model's path, the second the prompt")
    }
  }

  /// Says that the model that drafts tokens failed.
  static func warnOfLostDrafts(_ error: RuntimeError) {
    Terminal.warn("the draft model failed, and the answer goes on with lookup alone: \(error)")
  }

  /// What a session has to say to people, now and as it runs.
  func reportTroubles(of session: Session) {
    session.stream.onStall = { Terminal.note("\($0)") }
    session.keyValues.pool.onStall = { Terminal.note("\($0)") }
    session.stream.onReplacement = {
      Terminal.warn("\($0); this run goes on with the file that it opened")
    }
    session.keyValues.pool.onWarning = { Terminal.warn($0) }
    Terminal.warn(notesOf: session)
  }

  /// Generates the answer; shows how far reading the prompt has come, and of an answer that is not printed
  /// as it comes how far that has.
  func generate(
    _ generator: TextGenerator, _ options: GenerationOptions
  ) throws -> GenerationResult {
    let session = generator.session
    let promptCount = options.prompt.count - session.position
    var progress = Progress.begin(
      "reading the prompt", total: promptCount, unit: .count("tokens"))
    progress.follow(session, count: promptCount)
    var generatedCount = 0
    defer { progress.finish() }
    return try generator.generate(options) { text in
      if generatedCount == 0 {
        progress.finish()
        if output.json {
          progress = Progress.begin("answering", total: sampling.maxTokens, unit: .count("tokens"))
        } else {
          progress = Progress.begin("next token", unit: .step)
          progress.followTokens(session)
        }
      }
      generatedCount += 1
      if output.json { progress.update(generatedCount) } else { Terminal.print(text) }
    }
  }

  private var positions: DistributionPositions { output.logprobsPosition ?? .generated }

  /// What memory is planned from, as the options say.
  ///
  /// - Parameter callerByteCount: what is needed beside the model.
  func memoryRequest(
    _ model: LanguageModel, contextLength: Int, promptLength: Int, callerByteCount: Int
  ) -> MemoryPlan.Request {
    resources.memoryRequest(
      model, keyValues, neurons, verification, contextLength: contextLength,
      promptLength: promptLength, callerByteCount: callerByteCount)
  }

  /// Says that a prompt leaves no room for an answer.
  func lackOfRoom(for count: Int, in context: Int, trained: Int) -> String {
    "the prompt has \(count) tokens; a context of \(context) has room for \(max(0, context - 1)) and an answer"
      + (resources.context == nil ? " (the model was trained for \(trained))" : "")
  }

  /// A session whose context holds the prompt and the answer, what keeps its keys and values, and drives
  /// that attend for it.
  private func makeSession(
    _ model: LanguageModel, _ tokens: [Int32], hasGrammar: Bool
  ) throws -> (Session, KeyValuePersistence?, DriveArray?, DraftChoice) {
    let trained = model.configuration.contextLength
    let context = resources.context ?? min(trained, tokens.count + sampling.maxTokens)
    guard tokens.count < context else {
      throw CommandError(
        .badData, lackOfRoom(for: tokens.count, in: context, trained: trained))
    }
    let length = min(context, tokens.count + sampling.maxTokens)
    let distributions =
      switch positions {
      case .generated: length - tokens.count
      case .prompt: tokens.count
      case .promptPosition: 1
      }
    var request = memoryRequest(
      model, contextLength: length, promptLength: tokens.count,
      callerByteCount: RunReport.byteCount(
        tokenCount: length, distributionCount: output.logprobs == nil ? 0 : distributions,
        pairCount: output.logprobs ?? 0, vocabularyCount: model.configuration.vocabularyCount)
        + Sampler.byteCount(vocabularyCount: model.configuration.vocabularyCount)
        + (hasGrammar
          ? TextGenerator.grammarByteCount(vocabularyCount: model.configuration.vocabularyCount)
          : 0))
    // Distributions after a prompt's tokens are computed with them.
    let persistence = try store.open(
      model, prompt: tokens, for: &request, reuses: positions == .generated)
    let draft = try drafts.plan(
      &request, for: model, resources, takesDrafts: attention.attention == "host")
    let drives = try attention.makeDrives(
      model, for: &request, folder: request.keyValues.folder)
    let session = try Session(
      model.source, model.configuration, request, cancellation: Interruption.flag,
      decodeAttention: drives)
    try drafts.expectRoom(in: session.plan)
    attention.setUpFallBack(session)
    persistence?.resume(session)
    return (session, persistence, drives, draft)
  }
}
