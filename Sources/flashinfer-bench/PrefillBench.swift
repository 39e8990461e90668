import ArgumentParser
import BlockIO
import CommandLineSupport
import ModelFormat
import Runtime
import TensorBasics
import WeightLoader

/// Speed of reading a prompt.
struct PrefillBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "prefill",
    abstract: "Tokens per second of reading a prompt, from a cold start and once weights are there."
  )

  @Argument(help: "Flash image or GGUF file.") var model: String
  @OptionGroup var resources: ResourceOptions
  @OptionGroup var neurons: NeuronArguments
  @Option(help: "Tokens of the prompt.") var tokens = 512
  @Option(help: "Times to read it after the first.") var repeats = 1
  @Option(help: "Seed of the random ids that the prompt is made of.") var randomTokens: UInt64 = 1
  @Flag(help: "Print one JSON object.") var json = false

  func validate() throws {
    guard tokens >= 1, repeats >= 0 else {
      throw ValidationError("--tokens must be at least 1 and --repeats not negative")
    }
  }

  func run() throws {
    Interruption.install()
    try reportingErrors {
      let path = model
      let model = try resources.open(path)
      Terminal.warn(notesOf: model.source.device)
      var request = MemoryPlan.Request(
        budgetByteCount: resources.budget, contextLength: max(resources.context ?? 0, tokens),
        promptLength: tokens, threadCount: resources.threadCount,
        preferredReadByteCount: resources.preferredReadByteCount(forFileAt: path))
      request.neurons = neurons.options
      let session = try Session(
        model.source, model.configuration, request, cancellation: Interruption.flag)
      var generator = SeededGenerator(seed: randomTokens)
      let prompt = (0..<tokens).map { _ in
        Int32(generator.next() % UInt64(model.configuration.vocabularyCount))
      }
      _ = try session.prefill(prompt, continues: repeats > 0)
      let firstSeconds = secondsSinceProcessStart()
      var figures = [
        Figure("timeToFirstTokenSeconds", firstSeconds, "s"),
        Figure("kernelReadBytes", Double(ProcessMemory.storageReadByteCount), "B"),
      ]
      let device = session.stream.source.device
      let (before, timesBefore, start) = (
        device.statistics, session.times, monotonicNanoseconds()
      )
      for index in 0..<repeats {
        session.reset()
        _ = try session.prefill(prompt, continues: index + 1 < repeats)
      }
      if repeats > 0 {
        let seconds = Double(monotonicNanoseconds() - start) / 1e9
        let bytes = Double(device.statistics.bytesRead - before.bytesRead)
        figures += [
          Figure("prefillTokensPerSecond", Double(tokens * repeats) / seconds, "tokens/s"),
          Figure("bytesPerPrompt", bytes / Double(repeats), "B"),
          Figure("driveBytesPerSecond", bytes / seconds, "B/s"),
        ]
        figures += Figure.shares(of: seconds, session.times - timesBefore)
      }
      figures += [
        Figure("chunkTokens", Double(session.plan.chunkLength), "tokens"),
        Figure("pinnedBytes", Double(session.plan.residency.pinnedByteCount), "B"),
        Figure("peakResidentBytes", Double(ProcessMemory.peakResidentByteCount), "B"),
      ]
      try FigureReport(figures).print(asJSON: json)
    }
  }
}
