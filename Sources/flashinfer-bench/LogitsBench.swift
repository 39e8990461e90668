import ArgumentParser
import BlockIO
import CommandLineSupport
import ModelFormat
import Runtime
import TensorBasics
import WeightLoader

/// Raw logits of given tokens, for comparison with references.
struct LogitsBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "logits",
    abstract: "Writes the logits after every position of given tokens to a file.",
    discussion: """
      The file holds little-endian f32, [tokens, vocabulary].

      Examples:
        flashinfer-bench logits model.bin --tokens 1,2,3 --output logits.f32
      """)

  @Argument(help: "Flash image, GGUF file or Hugging Face folder.") var model: String
  @Option(help: "Token ids, 1,2,3.") var tokens: String
  @Option(help: "File to write.") var output: String
  @Option(help: "Tokens read as a prompt; the others are decoded one by one (default: all).")
  var prompt: Int?
  @OptionGroup(title: "Memory, processors and drive") var resources: ResourceOptions
  @OptionGroup(title: "Keys and values") var keyValues: KeyValueArguments
  @OptionGroup(title: "Experts and neurons") var neurons: NeuronArguments
  @Flag(help: "Print one JSON object.") var json = false
  @OptionGroup(title: "Output") var messages: OutputOptions

  func run() throws {
    Interruption.install()
    try reportingErrors {
      let model = try resources.open(model)
      Terminal.warn(notesOf: model.source)
      let ids = tokens.split(separator: ",").compactMap { Int32($0) }
      let promptCount = min(prompt ?? ids.count, ids.count)
      let file = try OutputFile(
        path: output, reserving: ids.count * model.configuration.vocabularyCount * 4,
        inputs: model.source.files)
      var written = 0
      var failure: BlockIOError?
      func write(_ logits: UnsafeBufferPointer<Float>) {
        guard failure == nil else { return }
        let bytes = UnsafeRawBufferPointer(logits)
        do throws(BlockIOError) { try file.write(bytes, at: written) } catch { failure = error }
        written += bytes.count
      }
      var request = MemoryPlan.Request(
        budgetByteCount: resources.budget, contextLength: resources.context ?? max(1, ids.count),
        promptLength: promptCount, threadCount: resources.threadCount, logitRowCount: 16)
      request.keyValues = keyValues.options(resources.io)
      request.neurons = neurons.options
      let session = try Session(
        model.source, model.configuration, request, cancellation: Interruption.flag)
      try Progress.showing("computing logits", total: ids.count, unit: .count("tokens")) {
        progress in
        progress.follow(session, count: promptCount)
        try session.score(Array(ids[..<promptCount])) { _, logits in write(logits) }
        for (index, token) in ids[promptCount...].enumerated() {
          write(UnsafeBufferPointer(try session.decode(token)))
          progress.update(promptCount + index + 1)
        }
      }
      if let failure { throw failure }
      try file.commit()
      report(
        [Figure("tokens", ids.count, .tokens), Figure("outputBytes", written, .bytes)],
        model.summary(self.model), asJSON: json)
    }
  }
}
