import ArgumentParser
import BlockIO
import CommandLineSupport
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

  @Argument(help: "Flash image or GGUF file.")
  var model: String

  @OptionGroup var prompt: PromptOptions
  @OptionGroup var resources: ResourceOptions
  @OptionGroup var sampling: SamplingArguments

  @Option(help: "Most tokens to generate.")
  var maxTokens = 512

  @Flag(help: "Generate past end-of-generation tokens.")
  var ignoreEos = false

  @Flag(help: "Print one JSON object on standard output and nothing else there.")
  var json = false

  @Option(help: "With --json: report the N most probable tokens of each position.")
  var logprobs: Int?

  @Option(help: "With --logprobs: report the distribution behind prompt position I only.")
  var logprobsPosition: Int?

  func validate() throws {
    guard maxTokens >= 1 else { throw ValidationError("--max-tokens must be at least 1") }
    guard logprobs.map({ $0 >= 1 }) ?? true else {
      throw ValidationError("--logprobs must be at least 1")
    }
    guard logprobs == nil || json else { throw ValidationError("--logprobs needs --json") }
    guard logprobsPosition == nil || logprobs != nil else {
      throw ValidationError("--logprobs-position needs --logprobs")
    }
  }

  func run() throws {
    Interruption.install()
    try reportingErrors {
      let model = try LanguageModel.open(model, backend: resources.io)
      for note in model.source.device.notes { Terminal.warn(note) }
      let tokens = try prompt.tokens(model)
      let session = try makeSession(model, tokens)
      let loadSeconds = secondsSinceProcessStart()
      let seed = sampling.chosenSeed()
      let options = GenerationOptions(
        prompt: tokens, maximumTokenCount: session.plan.contextLength - tokens.count,
        sampling: sampling.options(seed: seed), ignoresEnd: ignoreEos,
        logProbabilityCount: logprobs ?? 0, logProbabilityPromptPosition: logprobsPosition)
      let processStart = secondsSinceProcessStart() - Double(monotonicNanoseconds()) / 1e9
      let result = try TextGenerator(session: session, tokenizer: model.tokenizer)
        .generate(options) { if !json { Terminal.print($0) } }
      let report = RunReport(
        result: result, promptTokens: tokens, session: session, loadSeconds: loadSeconds,
        processStart: processStart)
      if json { try Terminal.print(report.json() + "\n") } else { Terminal.print("\n") }
      Terminal.note(report.summary(seed: sampling.temperature > 0 ? seed : nil))
      if result.wasInterrupted { throw ExitStatus.interrupted.code }
    }
  }

  /// A session whose context holds the prompt and the answer.
  private func makeSession(_ model: LanguageModel, _ tokens: [Int32]) throws -> Session {
    let trained = model.configuration.contextLength
    let context = resources.context ?? min(trained, tokens.count + maxTokens)
    guard tokens.count < context else {
      throw CommandError(
        .badData,
        "the prompt has \(tokens.count) tokens; a context of \(context) has room for "
          + "\(max(0, context - 1)) and an answer"
          + (resources.context == nil ? " (the model was trained for \(trained))" : ""))
    }
    return try Session(
      model.source, model.configuration,
      MemoryPlan.Request(
        budgetByteCount: resources.budget,
        contextLength: min(context, tokens.count + maxTokens),
        promptLength: tokens.count, threadCount: resources.threadCount),
      cancellation: Interruption.flag)
  }
}
