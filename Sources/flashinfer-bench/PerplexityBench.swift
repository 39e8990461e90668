import ArgumentParser
import BlockIO
import CommandLineSupport
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
      replaced by BOS where the model wants one; the last context/2 − 1 tokens of each are scored.
      """)

  @Argument(help: "Flash image or GGUF file.") var model: String
  @Argument(help: "Text file.") var file: String
  @OptionGroup var resources: ResourceOptions
  @Option(help: "Chunks to score; 0 = all.") var chunks = 0
  @Flag(help: "Print one JSON object.") var json = false

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
      Terminal.warn(notesOf: model.source.device)
      let length = resources.context ?? 512
      let tokens = try encode(model)
      let available = tokens.count / length
      guard available > 0 else {
        throw CommandError(
          .badData, "\(file): \(tokens.count) tokens are less than one chunk of \(length)")
      }
      let count = chunks == 0 ? available : min(chunks, available)
      let session = try Session(
        model.source, model.configuration,
        MemoryPlan.Request(
          budgetByteCount: resources.budget, contextLength: length, promptLength: length,
          threadCount: resources.threadCount, logitRowCount: 16,
          preferredReadByteCount: resources.preferredReadByteCount(forFileAt: self.model)),
        cancellation: Interruption.flag)
      var perplexity = Perplexity()
      for chunk in 0..<count {
        var part = Array(tokens[chunk * length..<(chunk + 1) * length])
        if model.tokenizer.addsBOS, let bos = model.tokenizer.bosToken { part[0] = bos }
        try perplexity.score(part, in: session)
        Terminal.note("[\(chunk + 1)/\(count)] \(perplexity.value ?? 0)")
      }
      try FigureReport([
        Figure("perplexity", perplexity.value ?? 0, ""),
        Figure("scoredTokens", Double(perplexity.scoredTokenCount), "tokens"),
      ]).print(asJSON: json)
    }
  }

  private func encode(_ model: LanguageModel) throws -> [Int32] {
    let text = try Terminal.readAll(path: file)
    do { return try model.tokenizer.encodePrompt(text) } catch {
      throw RuntimeError.tokenizer(error)
    }
  }
}
