import ArgumentParser
import BlockIO
import CommandLineSupport
import KVCache
import ModelFormat
import Runtime
import TensorBasics
import Tokenization

/// What a policy of attention costs in a text, and saves in bytes.
struct PolicyBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "policy",
    abstract: "Agreement of a --kv-policy with full attention after a long document.",
    discussion: """
      The first tokens of a text are read as a prompt; the text's next --positions tokens are then fed \
      one by one, with full attention and with the policy, and their distributions compared.

      Examples:
        flashinfer-bench policy model.bin text.txt --kv-policy top=1/8
      """)

  @Argument(help: "Flash image, GGUF file or Hugging Face folder.") var model: String
  @Argument(help: "Text file; - is standard input.") var file: String
  @OptionGroup(title: "Memory, processors and drive") var resources: ResourceOptions
  @OptionGroup(title: "Keys and values") var keyValues: KeyValueArguments
  @Option(help: "Positions to compare; the prompt is --context less these (8192 by default).")
  var positions = 256
  @Flag(help: "Print one JSON object.") var json = false
  @OptionGroup(title: "Output") var messages: OutputOptions

  private var contextLength: Int { resources.context ?? 8192 }

  func validate() throws {
    guard positions >= 1, positions + 1 < contextLength else {
      throw ValidationError("--positions must be at least 1 and leave a prompt in --context")
    }
  }

  func run() throws {
    Interruption.install()
    try reportingErrors {
      let model = try resources.open(model)
      let tokens = try model.encode(textFile: file)
      guard tokens.count > contextLength else {
        throw CommandError(
          .badData, "\(file): \(tokens.count) tokens do not fill a context of \(contextLength)")
      }
      let vocabularyCount = model.configuration.vocabularyCount
      let reference = try AlignedBuffer(byteCount: 4 * vocabularyCount)
      var comparison = DistributionComparison(
        vocabularyCount: vocabularyCount, reference: reference.elements(of: Float.self))
      // Two sessions, each with its own opening of the model.
      var request = MemoryPlan.Request(
        budgetByteCount: resources.budget / 2, contextLength: contextLength,
        promptLength: contextLength - positions, threadCount: resources.threadCount,
        preferredReadByteCount: resources.preferredReadByteCount(forFileAt: self.model))
      request.keyValues = keyValues.options(resources.io)
      let session = try Session(
        model.source, model.configuration, request, cancellation: Interruption.flag)
      request.keyValues.policy = .full
      let fullModel = try resources.open(self.model)
      let full = try Session(
        fullModel.source, fullModel.configuration, request, cancellation: Interruption.flag)
      let prompt = Array(tokens[..<(contextLength - positions)])
      for session in [full, session] {
        _ = try Progress.reading(prompt.count, in: session) { try session.prefill(prompt) }
      }
      let (before, fullBefore) = (session.keyValues.statistics, full.keyValues.statistics)
      let progress = Progress.begin("comparing", total: positions, unit: .count("positions"))
      defer { progress.finish() }
      for position in prompt.count..<contextLength {
        progress.update(position - prompt.count)
        comparison.keep(UnsafeBufferPointer(try full.decode(tokens[position])), row: 0)
        comparison.compare(
          UnsafeBufferPointer(try session.decode(tokens[position])), row: 0,
          next: tokens[position + 1])
      }
      let moved = session.keyValues.statistics - before
      let read = Double(moved.bytesRead) / Double(positions)
      let fullRead =
        Double((full.keyValues.statistics - fullBefore).bytesRead) / Double(positions)
      report(
        [
          Figure("argmaxAgreement", comparison.agreement, .fraction, "of the positions").exact,
          Figure("meanDivergence", comparison.divergence, .nats).exact,
          Figure("perplexity", comparison.sparsePerplexity, .number).exact,
          Figure("fullPerplexity", comparison.densePerplexity, .number).exact,
          Figure("attendedBlockFraction", moved.attendedBlockFraction, .fraction, "of the blocks")
            .exact,
          Figure("kvBytesPerToken", read, .bytes, limit: fullRead),
          Figure(
            "kvByteFraction", read, dividedBy: fullRead,
            "bytes that full attention reads from the drive", .fraction, "of full attention's"),
          Figure("comparedTokens", comparison.count, .tokens).exact,
        ], model.summary(self.model), asJSON: json)
    }
  }
}
