import ArgumentParser
import BlockIO
import CommandLineSupport
import HostResources
import ModelFormat
import Runtime
import TensorBasics
import WeightLoader

/// Speed of reading a prompt.
struct PrefillBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "prefill",
    abstract:
      "Tokens per second of reading a prompt, from a cold start and once weights are there.",
    discussion: """
      Examples:
        flashinfer-bench prefill model.bin --ram 2GiB --tokens 1024 --repeats 3
      """)

  @Argument(help: "Flash image, GGUF file or Hugging Face folder.") var model: String
  @OptionGroup(title: "Memory, processors and drive") var resources: ResourceOptions
  @OptionGroup(title: "Keys and values") var keyValues: KeyValueArguments
  @OptionGroup(title: "Experts and neurons") var neurons: NeuronArguments
  @Option(help: "Tokens of the prompt.") var tokens = 512
  @Option(
    name: [.customLong("repeat"), .customLong("repeats")],
    help: "Times to read it after the first.")
  var repeats = 3
  @Option(help: "Random tokens in the context before the prompt, read anew for each repeat.")
  var depth = 0
  @Option(help: "Seed of the random ids that the prompt is made of.") var randomTokens: UInt64 = 1
  @Flag(help: "Print one JSON object.") var json = false
  @OptionGroup(title: "Output") var messages: OutputOptions

  func validate() throws {
    guard tokens >= 1, repeats >= 0, depth >= 0 else {
      throw ValidationError("--tokens must be at least 1, --repeat and --depth not negative")
    }
  }

  func run() throws {
    Interruption.install()
    try reportingErrors {
      let path = model
      let model = try resources.open(path)
      Terminal.warn(notesOf: model.source)
      var request = MemoryPlan.Request(
        budgetByteCount: resources.budget,
        contextLength: max(resources.context ?? 0, depth + tokens),
        promptLength: tokens, threadCount: resources.threadCount,
        preferredReadByteCount: resources.preferredReadByteCount(forFileAt: path))
      request.keyValues = keyValues.options(resources.io)
      request.neurons = neurons.options
      let session = try Session(
        model.source, model.configuration, request, cancellation: Interruption.flag)
      Terminal.warn(notesOf: session)
      var generator = SeededGenerator(seed: randomTokens)
      func random(_ count: Int) -> [Int32] {
        (0..<count).map { _ in
          Int32(generator.next() % UInt64(model.configuration.vocabularyCount))
        }
      }
      let prompt = random(tokens)
      let context = random(depth)
      func fill() throws {
        guard depth > 0 else { return }
        _ = try Progress.reading(depth, in: session, "filling the context") {
          try session.prefill(context)
        }
      }
      func read(_ title: String, continues: Bool) throws {
        _ = try Progress.reading(tokens, in: session, title) {
          try session.prefill(prompt, continues: continues)
        }
      }
      try fill()
      try read("reading the prompt for the first time", continues: repeats > 0)
      let firstSeconds = secondsSinceProcessStart()
      var figures = [
        Figure("timeToFirstTokenSeconds", firstSeconds, .seconds),
        Figure("kernelReadBytes", Double(ProcessMemory.storageReadByteCount), .bytes),
      ]
      let device = session.stream.source.device
      var (rounds, bytes, times) = ([Double](), 0.0, TimeBreakdown())
      for index in 0..<repeats {
        session.reset()
        try fill()
        let (bytesBefore, timesBefore) = (device.statistics.bytesRead, session.times)
        let start = monotonicNanoseconds()
        try read("reading it again, \(index + 1) of \(repeats)", continues: index + 1 < repeats)
        rounds.append(Double(monotonicNanoseconds() - start) / 1e9)
        bytes += Double(device.statistics.bytesRead - bytesBefore)
        times = times + (session.times - timesBefore)
      }
      figures += warmFigures(rounds, bytes: bytes, times)
      figures += [
        Figure("chunkTokens", Double(session.plan.chunkLength), .tokens),
        Figure("pinnedBytes", Double(session.plan.residency.pinnedByteCount), .bytes),
        Figure("peakResidentBytes", Double(ProcessMemory.peakResidentByteCount), .bytes),
      ]
      report(figures, model.summary(path), asJSON: json)
    }
  }

  /// Figures of reading the prompt again.
  ///
  /// - Parameters:
  ///   - rounds: seconds of each time.
  ///   - bytes: read in all of them.
  private func warmFigures(
    _ rounds: [Double], bytes: Double, _ times: TimeBreakdown
  ) -> [Figure] {
    guard !rounds.isEmpty else { return [] }
    let seconds = rounds.reduce(0, +)
    return [
      Figure(
        "prefillTokensPerSecond", samples: rounds.map { Double(tokens) / $0 }, .tokensPerSecond),
      Figure("bytesPerPrompt", bytes / Double(rounds.count), .bytes),
      Figure("driveBytesPerSecond", bytes / seconds, .bytesPerSecond),
    ] + Figure.shares(of: seconds, times)
  }
}
