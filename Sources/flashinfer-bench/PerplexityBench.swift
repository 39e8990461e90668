import ArgumentParser
import BlockIO
import CommandLineSupport
import ModelFormat
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

/// Perplexity of a text.
struct PerplexityBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "perplexity",
    abstract: "Perplexity of a text file, by chunks, scoring the second half of each.",
    discussion: """
      The text is tokenised once and cut into chunks that do not overlap; the first token of each is \
      replaced by BOS where the model wants one; the last context/2 − 1 tokens of each are scored. \
      With an approximate --selector the same text is also read with all neurons, and what the \
      selector costs is printed: perplexity, and the divergence of the distributions.

      Examples:
        flashinfer-bench perplexity model.bin text.txt --chunks 16
      """)

  @Argument(help: "Flash image, GGUF file or Hugging Face folder.") var model: String
  @Argument(help: "Text file; - is standard input.") var file: String
  @OptionGroup(title: "Memory, processors and drive") var resources: ResourceOptions
  @OptionGroup(title: "Keys and values") var keyValues: KeyValueArguments
  @OptionGroup(title: "Experts and neurons") var neurons: NeuronArguments
  @Option(help: "Chunks to score; 0 = all.") var chunks = 0
  @Flag(help: "Print one JSON object.") var json = false
  @OptionGroup(title: "Output") var messages: OutputOptions

  func validate() throws {
    guard resources.context ?? 512 >= 4 else {
      throw ValidationError("--context must be at least 4")
    }
    guard chunks >= 0 else { throw ValidationError("--chunks must be 0 or more") }
  }

  func run() throws {
    Interruption.install()
    try reportingErrors {
      let model = try resources.open(model)
      Terminal.warn(notesOf: model.source)
      let length = resources.context ?? 512
      let chunks = try model.chunks(ofTextFile: file, length: length, most: self.chunks)
      var request = MemoryPlan.Request(
        budgetByteCount: resources.budget, contextLength: length, promptLength: length,
        threadCount: resources.threadCount, logitRowCount: 16,
        preferredReadByteCount: resources.preferredReadByteCount(forFileAt: self.model))
      request.keyValues = keyValues.options(resources.io)
      request.neurons = neurons.options
      let isApproximate = neurons.selector == .predictor || neurons.selector == .threshold
      let figures =
        isApproximate
        ? try compare(chunks, model, request) : try score(chunks, model, request)
      report(figures, model.summary(self.model), asJSON: json)
    }
  }

  private func score(
    _ chunks: [[Int32]], _ model: LanguageModel, _ request: MemoryPlan.Request
  ) throws -> [Figure] {
    let session = try Session(
      model.source, model.configuration, request, cancellation: Interruption.flag)
    var perplexity = Perplexity()
    let progress = Self.begin(chunks)
    defer { progress.finish() }
    for (index, chunk) in chunks.enumerated() {
      progress.follow(session, from: index * chunk.count, count: chunk.count)
      try perplexity.score(chunk, in: session)
      Terminal.remark("[\(index + 1)/\(chunks.count)] \((perplexity.value ?? .nan).fixed(4))")
    }
    let neurons = session.stream.neuronStatistics
    return [
      Figure("perplexity", perplexity.value ?? .nan, .number, absence: "no token was scored")
        .exact,
      Figure("scoredTokens", Double(perplexity.scoredTokenCount), .tokens).exact,
    ] + Figure.neurons(neurons, session.plan, tokens: chunks.reduce(0) { $0 + $1.count })
  }

  private static func begin(_ chunks: [[Int32]]) -> Progress {
    Progress.begin(
      "scoring the text", total: chunks.reduce(0) { $0 + $1.count }, unit: .count("tokens"))
  }

  /// Reads each chunk with all neurons, then with those the selector names.
  private func compare(
    _ chunks: [[Int32]], _ model: LanguageModel, _ request: MemoryPlan.Request
  ) throws -> [Figure] {
    let length = chunks.first?.count ?? 0
    let vocabularyCount = model.configuration.vocabularyCount
    let reference = try AlignedBuffer(byteCount: 4 * vocabularyCount * (length - length / 2))
    var comparison = DistributionComparison(
      vocabularyCount: vocabularyCount,
      reference: reference.elements(of: Float.self))
    var request = request
    request.callerByteCount += reference.byteCount
    request.budgetByteCount /= 2  // two sessions at a time
    var dense = request
    dense.neurons.selector = .all
    // Sessions share the model's device one after the other: each has its own opening of the file.
    let sparseSession = try Session(
      model.source, model.configuration, request, cancellation: Interruption.flag)
    let denseModel = try resources.open(self.model)
    let denseSession = try Session(
      denseModel.source, denseModel.configuration, dense, cancellation: Interruption.flag)
    let progress = Self.begin(chunks)
    defer { progress.finish() }
    for (index, chunk) in chunks.enumerated() {
      progress.follow(denseSession, from: index * chunk.count, count: chunk.count / 2)
      progress.follow(
        sparseSession, from: index * chunk.count + chunk.count / 2, count: chunk.count / 2)
      try comparison.compare(chunk, denseSession, sparseSession)
      Terminal.remark(
        "[\(index + 1)/\(chunks.count)] \(comparison.sparsePerplexity.fixed(4)), with all neurons "
          + "\(comparison.densePerplexity.fixed(4)), divergence "
          + FigureUnit.nats.text(comparison.divergence))
    }
    return [
      Figure("perplexity", comparison.sparsePerplexity, .number).exact,
      Figure("densePerplexity", comparison.densePerplexity, .number).exact,
      Figure(
        "perplexityCost", comparison.sparsePerplexity / comparison.densePerplexity - 1,
        .fraction, "of the dense"
      ).exact,
      Figure("meanDivergence", comparison.divergence, .nats).exact,
      Figure("argmaxAgreement", comparison.agreement, .fraction, "of the positions").exact,
      Figure("scoredTokens", Double(comparison.count), .tokens).exact,
    ]
      + Figure.neurons(
        sparseSession.stream.neuronStatistics, sparseSession.plan,
        tokens: chunks.reduce(0) { $0 + $1.count })
  }
}
