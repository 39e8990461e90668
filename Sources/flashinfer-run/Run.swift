import ArgumentParser
import BlockIO
import CommandLineSupport
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
    abstract: "Answers a prompt with a model that need not fit in memory.",
    discussion: """
      MODEL is a flash image (see flashinfer-convert) or a GGUF file. The answer goes to standard \
      output as it is generated; progress and a summary go to standard error.
      """)

  static func main() { runAsProgram() }

  @Argument(help: "Flash image or GGUF file.")
  var model: String

  @OptionGroup var prompt: PromptOptions
  @OptionGroup var resources: ResourceOptions
  @OptionGroup var keyValues: KeyValueArguments
  @OptionGroup var store: StoreArguments
  @OptionGroup var attention: AttentionArguments
  @OptionGroup var neurons: NeuronArguments
  @OptionGroup var hotness: ExpertHistoryOptions
  @OptionGroup var verification: VerifyArguments
  @OptionGroup var sampling: SamplingArguments

  @Option(help: "Most tokens to generate.")
  var maxTokens = 512

  @Flag(help: "Generate past end-of-generation tokens.")
  var ignoreEos = false

  @Flag(help: "Print one JSON object on standard output and nothing else there.")
  var json = false

  @Option(help: "With --json: report the N most probable tokens of each position.")
  var logprobs: Int?

  @Option(
    help: ArgumentHelp(
      "With --logprobs: after which positions; generated, prompt, or one prompt position's number.",
      valueName: "positions"))
  var logprobsPosition: DistributionPositions?

  func validate() throws {
    let most = ResourceOptions.longestContext
    guard (1...most).contains(maxTokens) else {
      throw ValidationError("--max-tokens must be between 1 and \(most)")
    }
    guard (1...most).contains(logprobs ?? 1) else {
      throw ValidationError("--logprobs must be between 1 and \(most)")
    }
    guard logprobs == nil || json else { throw ValidationError("--logprobs needs --json") }
    guard logprobsPosition == nil || logprobs != nil else {
      throw ValidationError("--logprobs-position needs --logprobs")
    }
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
      let model = try resources.open(model)
      let tokens = try prompt.tokens(model)
      if let oddity = model.oddity(of: tokens) { Terminal.warn(oddity) }
      if let position = positions.only, position >= tokens.count {
        throw CommandError(
          .badData,
          "--logprobs-position \(position) is outside the prompt of \(tokens.count) tokens")
      }
      let (session, persistence, drives) = try makeSession(model, tokens)
      session.stream.onStall = { Terminal.note("\($0)") }
      session.keyValues.onStall = { Terminal.note("\($0)") }
      session.stream.onReplacement = {
        Terminal.warn("\($0); this run goes on with the file that it opened")
      }
      try hotness.recall(session)
      session.keyValues.onWarning = { Terminal.warn($0) }
      Terminal.warn(notesOf: model.source.device)
      Terminal.warn(notesOf: session)
      let loadSeconds = secondsSinceProcessStart()
      let seed = sampling.chosenSeed()
      let options = GenerationOptions(
        prompt: tokens, maximumTokenCount: maxTokens,
        sampling: sampling.options(seed: seed), ignoresEnd: ignoreEos,
        logProbabilityCount: logprobs ?? 0, logProbabilityPromptPosition: positions.only,
        reportsWholePrompt: positions == .prompt)
      let processStart = secondsSinceProcessStart() - Double(monotonicNanoseconds()) / 1e9
      Interruption.endProcessAtOnce(false)
      var generator = TextGenerator(session: session, tokenizer: model.tokenizer)
      generator.onLostPrefix = { persistence?.removePrefix(because: $0) }
      let result = try generator.generate(options) { if !json { Terminal.print($0) } }
      hotness.remember(session)
      var report = RunReport(
        result: result, promptTokens: tokens, session: session, policy: keyValues.kvPolicy,
        loadSeconds: loadSeconds, processStart: processStart,
        reportsDistributions: logprobs != nil)
      report.inStorage = drives.map {
        InStorageReport(
          $0, fellBack: !session.usesDecodeAttention, model: ModelParameters(model.configuration),
          positions: tokens.count..<max(tokens.count, session.position))
      }
      if json { report.printJSON() } else { Terminal.print("\n") }
      Terminal.note(report.summary(seed: sampling.temperature > 0 ? seed : nil))
      if let inStorage = report.inStorage { Terminal.note(inStorage.summary) }
      persistence?.store(tokens + result.tokens, of: session)
      if !result.wasInterrupted { persistence?.learnModel(cancellation: Interruption.flag) }
      // Not by way of destructors: they wait for reads that a slow drive has yet to answer.
      if result.wasInterrupted { Terminal.exit(.interrupted) }
    }
  }

  private var positions: DistributionPositions { logprobsPosition ?? .generated }

  /// A session whose context holds the prompt and the answer, what keeps its keys and values, and drives
  /// that attend for it.
  private func makeSession(
    _ model: LanguageModel, _ tokens: [Int32]
  ) throws -> (Session, KeyValuePersistence?, DriveArray?) {
    let trained = model.configuration.contextLength
    let context = resources.context ?? min(trained, tokens.count + maxTokens)
    guard tokens.count < context else {
      throw CommandError(
        .badData,
        "the prompt has \(tokens.count) tokens; a context of \(context) has room for "
          + "\(max(0, context - 1)) and an answer"
          + (resources.context == nil ? " (the model was trained for \(trained))" : ""))
    }
    let length = min(context, tokens.count + maxTokens)
    let distributions =
      switch positions {
      case .generated: length - tokens.count
      case .prompt: tokens.count
      case .promptPosition: 1
      }
    var request = MemoryPlan.Request(
      budgetByteCount: resources.budget, contextLength: length, promptLength: tokens.count,
      threadCount: resources.threadCount,
      callerByteCount: RunReport.byteCount(
        tokenCount: length, distributionCount: logprobs == nil ? 0 : distributions,
        pairCount: logprobs ?? 0, vocabularyCount: model.configuration.vocabularyCount),
      preferredReadByteCount: resources.preferredReadByteCount(forFileAt: model.source.path))
    request.keyValues = keyValues.options(resources.io)
    request.neurons = neurons.options
    request.verification = verification.verify
    // Distributions after a prompt's tokens are computed with them.
    let persistence = try store.open(
      model, prompt: tokens, for: &request, reuses: positions == .generated)
    let drives = try attention.makeDrives(
      model, for: &request, folder: request.keyValues.folder)
    let session = try Session(
      model.source, model.configuration, request, cancellation: Interruption.flag,
      decodeAttention: drives)
    attention.setUpFallBack(session)
    persistence?.resume(session)
    return (session, persistence, drives)
  }
}
