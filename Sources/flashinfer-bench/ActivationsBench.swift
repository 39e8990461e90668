import ArgumentParser
import BlockIO
import CommandLineSupport
import ModelFormat
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

/// What FFNs see and decide on a text, for training predictors of active neurons.
struct ActivationsBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "activations",
    abstract: "Writes the inputs and gates of all FFNs over a text to a safetensors file.",
    discussion: """
      The text is tokenised once and runs in chunks that do not overlap; the first token of each is \
      replaced by BOS where the model wants one. The file holds, for each layer N, \
      blk.N.ffn_input [tokens, dim], the FFN's normalised input, and blk.N.ffn_gate \
      [tokens, neurons], its gate before the activation, in F16, and blk.N.ffn_share [tokens], the \
      share of its output in the residual stream, in F32. tools/train-selector reads it.

      Examples:
        flashinfer-bench activations model.gguf text.txt --output seen.safetensors
      """)

  @Argument(help: "Flash image, GGUF file or Hugging Face folder.") var model: String
  @Argument(help: "Text file; - is standard input.") var file: String
  @Option(help: "File to write.") var output: String
  @Option(help: "Tokens to run at most.") var tokens = 16384
  @OptionGroup(title: "Memory, processors and drive") var resources: ResourceOptions
  @Flag(help: "Print one JSON object.") var json = false
  @OptionGroup(title: "Output") var messages: OutputOptions

  func validate() throws {
    guard tokens >= 1 else { throw ValidationError("--tokens must be at least 1") }
  }

  func run() throws {
    Interruption.install()
    try reportingErrors {
      let model = try resources.open(model)
      Terminal.warn(notesOf: model.source)
      guard model.configuration.experts == nil else {
        throw CommandError(.badData, "\(self.model): its FFNs are experts, which a router chooses")
      }
      let ids = Array(try model.encode(textFile: file).prefix(tokens))
      guard !ids.isEmpty else { throw CommandError(.badData, "\(file): there is no text") }
      let length = min(resources.context ?? 512, ids.count)
      let activations = try ActivationFile(
        path: output, model.configuration, tokenCount: ids.count,
        metadata: try metadata(model), inputs: model.source.files + (file == "-" ? [] : [file]))
      let session = try Session(
        model.source, model.configuration,
        MemoryPlan.Request(
          budgetByteCount: resources.budget, contextLength: length, promptLength: length,
          threadCount: resources.threadCount,
          preferredReadByteCount: resources.preferredReadByteCount(forFileAt: self.model)),
        cancellation: Interruption.flag)
      session.feedForwardObserver = activations
      let progress = Progress.begin("running the text", total: ids.count, unit: .count("tokens"))
      defer { progress.finish() }
      for first in stride(from: 0, to: ids.count, by: length) {
        var part = Array(ids[first..<min(first + length, ids.count)])
        if model.tokenizer.addsBOS, let bos = model.tokenizer.bosToken { part[0] = bos }
        activations.firstToken = first
        progress.follow(session, from: first, count: part.count)
        session.reset()
        // The last position's logits are computed so that changed files are noticed.
        try session.score(part, skipping: part.count - 1) { _, _ in }
      }
      try activations.commit()
      report(
        [
          Figure("tokens", ids.count, .tokens),
          Figure("outputBytes", activations.byteCount, .bytes),
        ], model.summary(self.model), asJSON: json)
    }
  }

  private func metadata(_ model: LanguageModel) throws -> [String: String] {
    let activation =
      switch model.configuration.activation {
      case .silu: "silu"
      case .geluTanh: "gelu_tanh"
      case .relu: "relu"
      case .reluSquared: "relu_squared"
      case .clampedSwiGLU: "clamped_swiglu"
      }
    let source = model.source
    let identity =
      source.description.extents.isEmpty
      ? try source.computeIdentity(showingProgress: "reading all weights")
      : source.description.sourceIdentity
    return [
      "model_identity": identity?.description ?? ModelIdentity(0).description,
      "activation": activation,
      "source": file.split(separator: "/").last.map(String.init) ?? file,
    ]
  }
}
