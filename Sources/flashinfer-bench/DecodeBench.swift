import ArgumentParser
import BlockIO
import CommandLineSupport
import Glibc
import HostResources
import KVCache
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

/// Decoding speed.
struct DecodeBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "decode", abstract: "Tokens per second of decoding, and bytes read per token.",
    discussion: """
      Examples:
        flashinfer-bench decode model.bin --ram 2GiB
        flashinfer-bench decode model.bin --ram 2GiB --depth 4096 --tokens 64
      """)

  @Argument(help: "Flash image or GGUF file.") var model: String
  @OptionGroup(title: "Memory, processors and drive") var resources: ResourceOptions
  @OptionGroup(title: "Keys and values") var keyValues: KeyValueArguments
  @OptionGroup(title: "Experts and neurons") var neurons: NeuronArguments
  @OptionGroup(title: "Experts and neurons") var hotness: ExpertHistoryOptions
  @OptionGroup(title: "Memory, processors and drive") var verification: VerifyArguments
  @Option(help: "Tokens to time.") var tokens = 32
  @Option(help: "Tokens to decode before timing begins.") var warmup = 4
  @Option(help: "Random tokens to read into the context before anything is timed.")
  var depth = 0
  @OptionGroup(title: "Tokens") var feed: TokenOptions
  @Flag(help: "Also measure what DRAM gives just before and after the timed tokens.")
  var dram = false
  @Flag(help: "Print one JSON object.") var json = false
  @OptionGroup(title: "Output") var messages: OutputOptions

  private static let mostSettlingTokens = 16

  func validate() throws {
    guard tokens >= 1, warmup >= 1, depth >= 0 else {
      throw ValidationError("--tokens and --warmup must be at least 1, --depth not negative")
    }
  }

  func run() throws {
    Interruption.install()
    try reportingErrors {
      let model = try resources.open(model)
      Terminal.warn(notesOf: model.source.device)
      let session = try openSession(model)
      Terminal.warn(notesOf: session)
      try hotness.recall(session)
      defer { hotness.remember(session) }
      var feed = try feed.makeFeed(model, count: warmup + Self.mostSettlingTokens + tokens)
      var token = model.tokenizer.bosToken ?? 0
      func step(continues: Bool) throws {
        token = feed.next(after: try session.decode(token, continues: continues))
      }
      try fill(session, vocabularyCount: model.configuration.vocabularyCount)
      try warmUp(session) { try step(continues: true) }
      let device = session.stream.source.device
      let pool = ThreadPool(threadCount: resources.threadCount)
      let dramBefore = dram ? try MemoryLimit.bytesPerSecond(pool) : nil
      let (before, timesBefore) = (device.statistics, session.times)
      let kernelBefore = ProcessMemory.storageReadByteCount
      let bundlesBefore = session.stream.bundleStatistics
      let neuronsBefore = session.stream.neuronStatistics
      let keyValuesBefore = session.keyValues.statistics
      let keyValueReadsBefore = session.keyValues.readStatistics
      let start = monotonicNanoseconds()
      let progress = Progress.begin("decoding", total: tokens, unit: .count("tokens"))
      for index in 0..<tokens {
        try step(continues: index + 1 < tokens)
        progress.update(index + 1)
      }
      let seconds = Double(monotonicNanoseconds() - start) / 1e9
      progress.finish()
      let after = device.statistics
      let keyValueReads = session.keyValues.readStatistics.since(keyValueReadsBefore)
      let keyValuesAfter = session.keyValues.statistics
      let kernelBytes = Double(ProcessMemory.storageReadByteCount - kernelBefore)
      let bytes = Double(after.bytesRead - before.bytesRead)
      let memory = try dramBefore.map { ($0 + (try MemoryLimit.bytesPerSecond(pool))) / 2 }
      let active = Double(session.plan.residency.sweepByteCount)
      try FigureReport(
        [
          Figure("decodeTokensPerSecond", Double(tokens) / seconds, "tokens/s"),
          Figure(
            "activeBytesPerSecond", active * Double(tokens) / seconds, "B/s", limit: memory),
          Figure("bytesPerToken", bytes / Double(tokens), "B"),
          Figure("driveBytesPerSecond", bytes / seconds, "B/s"),
          Figure("kernelReadBytesPerSecond", kernelBytes / seconds, "B/s"),
          Figure("requestsPerToken", Double(after.requests - before.requests) / Double(tokens), ""),
          Figure("pinnedBytes", Double(session.plan.residency.pinnedByteCount), "B"),
          Figure("streamedBytes", Double(session.plan.residency.streamedByteCount), "B"),
          Figure(
            "kvBytesPerToken",
            Double(keyValuesAfter.bytesRead - keyValuesBefore.bytesRead) / Double(tokens), "B"),
          Figure(
            "kvBytesWrittenPerToken",
            Double(keyValuesAfter.bytesWritten) / Double(session.position), "B"),
          Figure("kvDriveBytesPerSecond", keyValueReads.bytesPerSecond, "B/s"),
          Figure("kvQueueDepth", keyValueReads.meanQueueDepth, ""),
          Figure("kvResidentFraction", keyValuesAfter.residentFraction, ""),
          Figure("peakResidentBytes", Double(ProcessMemory.peakResidentByteCount), "B"),
        ] + (memory.map { [Figure("dramBytesPerSecond", $0, "B/s")] } ?? [])
          + Figure.bundles(session.stream.bundleStatistics, since: bundlesBefore, tokens: tokens)
          + Figure.neurons(
            session.stream.neuronStatistics - neuronsBefore, session.plan, tokens: tokens)
          + Figure.shares(of: seconds, session.times - timesBefore)
      ).print(asJSON: json)
    }
  }

  private func warmUp(_ session: Session, _ step: () throws -> Void) throws {
    try Progress.showing("warming up", total: warmup, unit: .count("tokens")) { progress in
      for index in 0..<warmup {
        progress.update(index)
        try step()
      }
      // Pinned weights come in as their memory is committed, at the latest with the second token.
      var more = Self.mostSettlingTokens
      while !session.stream.isSettled, more > 0 {
        try step()
        more -= 1
      }
    }
  }

  private func openSession(_ model: LanguageModel) throws -> Session {
    var request = MemoryPlan.Request(
      budgetByteCount: resources.budget,
      contextLength: max(
        resources.context ?? 0, depth + warmup + Self.mostSettlingTokens + tokens),
      promptLength: max(1, depth),
      threadCount: resources.threadCount,
      preferredReadByteCount: resources.preferredReadByteCount(forFileAt: self.model))
    request.keyValues = keyValues.options(resources.io)
    request.neurons = neurons.options
    request.verification = verification.verify
    return try Session(
      model.source, model.configuration, request, cancellation: Interruption.flag)
  }

  /// Puts `depth` random tokens into the context.
  private func fill(_ session: Session, vocabularyCount: Int) throws {
    guard depth > 0 else { return }
    var generator = SeededGenerator(seed: 1)
    _ = try Progress.reading(depth, in: session, "filling the context") {
      try session.prefill(
        (0..<depth).map { _ in Int32(generator.next() % UInt64(vocabularyCount)) })
    }
  }
}
