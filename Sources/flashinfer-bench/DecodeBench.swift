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
        flashinfer-bench decode model.bin --ram 2GiB --depth 128 --sequences 32
      """)

  @Argument(help: "Flash image, GGUF file or Hugging Face folder.") var model: String
  @OptionGroup(title: "Memory, processors and drive") var resources: ResourceOptions
  @OptionGroup(title: "Keys and values") var keyValues: KeyValueArguments
  @OptionGroup(title: "Experts and neurons") var neurons: NeuronArguments
  @OptionGroup(title: "Experts and neurons") var hotness: ExpertHistoryOptions
  @OptionGroup(title: "Memory, processors and drive") var verification: VerifyArguments
  @Option(help: "Tokens to time at once.") var tokens = 32
  @Option(
    name: .customLong("repeat"), help: "Times to time so many tokens, one after the other.")
  var repeats = 3
  @Option(help: "Tokens to decode before timing begins.") var warmup = 4
  @Option(help: "Random tokens to read into the context before anything is timed.")
  var depth = 0
  @Option(help: "Contexts to decode at the same time, one token of each in every sweep.")
  var sequences: Int?
  @Option(help: "Contexts that memory is planned for; as many as are decoded by default.")
  var planned: Int?
  @OptionGroup(title: "Tokens") var feed: TokenOptions
  @Flag(help: "Also measure what DRAM gives just before and after the timed tokens.")
  var dram = false
  @Flag(help: "Print one JSON object.") var json = false
  @OptionGroup(title: "Output") var messages: OutputOptions

  static let mostSettlingTokens = 16

  /// Tokens timed in all.
  var timedCount: Int { tokens * repeats }

  func validate() throws {
    guard tokens >= 1, warmup >= 1, depth >= 0, (1...1000).contains(repeats) else {
      throw ValidationError(
        "--tokens, --warmup and --repeat must be at least 1, --depth not negative")
    }
    guard (1...ResourceOptions.mostSequences).contains(sequences ?? 1) else {
      throw ValidationError(
        "--sequences must be between 1 and \(ResourceOptions.mostSequences), not \(sequences ?? 0)")
    }
    if let planned {
      guard let sequences, (sequences...ResourceOptions.mostSequences).contains(planned) else {
        throw ValidationError(
          "--planned must be between --sequences, which it goes with, and "
            + "\(ResourceOptions.mostSequences), not \(planned)")
      }
    }
    guard sequences == nil || !dram else {
      throw ValidationError("--dram measures one context: leave --sequences out")
    }
  }

  func run() throws {
    Interruption.install()
    try reportingErrors {
      let model = try resources.open(model)
      Terminal.warn(notesOf: model.source)
      if let sequences { return try runSequences(sequences, model) }
      let session = try Session(
        model.source, model.configuration, request(model), cancellation: Interruption.flag)
      Terminal.warn(notesOf: session)
      try hotness.recall(session)
      defer { hotness.remember(session) }
      var feed = try feed.makeFeed(model, count: warmup + Self.mostSettlingTokens + timedCount)
      var token = model.tokenizer.bosToken ?? 0
      func step(continues: Bool) throws {
        token = feed.next(after: try session.decode(token, continues: continues))
      }
      try fill(session, vocabularyCount: model.configuration.vocabularyCount)
      try warmUp(session) { try step(continues: true) }
      let pool = ThreadPool(threadCount: resources.threadCount)
      let dramBefore = dram ? try MemoryLimit.bytesPerSecond(pool) : nil
      let before = DecodeCounters(session)
      let progress = Progress.begin("decoding", total: timedCount, unit: .count("tokens"))
      let times = try (0..<repeats).map { round in
        let start = monotonicNanoseconds()
        for index in round * tokens + 1...(round + 1) * tokens {
          try step(continues: index < timedCount)
          progress.update(index)
        }
        return Double(monotonicNanoseconds() - start) / 1e9
      }
      progress.finish()
      let after = DecodeCounters(session)
      let memory = try dramBefore.map { ($0 + (try MemoryLimit.bytesPerSecond(pool))) / 2 }
      let active = Double(session.plan.residency.sweepByteCount)
      let rates = times.map { Double(tokens) / $0 }
      report(
        [
          Figure("decodeTokensPerSecond", samples: rates, .tokensPerSecond),
          Figure(
            "activeBytesPerSecond", samples: rates.map { $0 * active }, .bytesPerSecond,
            limit: memory),
        ] + (memory.map { [Figure("dramBytesPerSecond", $0, .bytesPerSecond)] } ?? [])
          + after.figures(since: before, tokens: timedCount, seconds: times.reduce(0, +)),
        model.summary(self.model), asJSON: json)
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

  /// Memory for the tokens that are to be decoded.
  func request(_ model: LanguageModel) throws -> MemoryPlan.Request {
    var request = MemoryPlan.Request(
      budgetByteCount: resources.budget,
      contextLength: max(
        resources.context ?? 0, depth + warmup + Self.mostSettlingTokens + timedCount),
      promptLength: max(1, depth),
      threadCount: resources.threadCount,
      preferredReadByteCount: resources.preferredReadByteCount(forFileAt: self.model))
    request.keyValues = keyValues.options(resources.io)
    request.neurons = neurons.options
    request.verification = verification.verify
    return request
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
