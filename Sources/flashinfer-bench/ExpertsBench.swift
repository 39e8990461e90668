public import ArgumentParser
import BlockIO
import CommandLineSupport
public import WeightLoader

extension BundlePolicyKind: ExpressibleByArgument {}

/// What a cache of experts hits, under each policy and at best.
struct ExpertsBench: ParsableCommand {
  enum Distribution: String, ExpressibleByArgument, CaseIterable { case uniform, zipf }

  static let configuration = CommandConfiguration(
    commandName: "experts",
    abstract: "Hit rates of the expert cache on a trace, against the clairvoyant optimum.",
    discussion: """
      The trace is a recorded one (--replay) or a drawn one (--synthetic): each expert of the token \
      before stays with probability --repeat, the others are drawn by popularity, which is the k-th \
      expert's k^-s with zipf. Clairvoyant is the most that any policy reaches that must read what \
      it does not hold.

      With MODEL, tokens are decoded under --ram, and what its cache hit is compared with the \
      optimum on the trace of this run, from an empty cache, under the same number of slots; the \
      share of it is printed where the run too began with an empty cache.

      Examples:
        flashinfer-bench experts moe.bin --ram 8GiB
        flashinfer-bench experts --synthetic zipf --slots 1000
      """)

  @Argument(help: "Flash image, GGUF file or Hugging Face folder to run.") var model: String?
  @OptionGroup(title: "Memory, processors and drive") var resources: ResourceOptions
  @OptionGroup(title: "Experts and neurons") var hotness: ExpertHistoryOptions
  @Option(help: "With MODEL: feed seeded random ids instead of the model's own greedy text.")
  var randomTokens: UInt64?
  @Option(help: ArgumentHelp("With MODEL: the text to continue.", valueName: "file"))
  var promptFile: String?
  @Option(help: ArgumentHelp("Replay this recorded trace.", valueName: "trace"))
  var replay: String?
  @Option(help: "Draw a trace: uniform or zipf.") var synthetic: Distribution?
  @Option(help: ArgumentHelp("Exponent of zipf.", valueName: "s")) var zipf = 1.0
  @Option(
    name: .customLong("repeat"),
    help: ArgumentHelp("Chance that an expert of the last token stays.", valueName: "p"))
  var repeatProbability = 0.3
  @Option(help: "Layers of the drawn trace.") var layers = 24
  @Option(help: "Experts of a layer.") var experts = 128
  @Option(help: "Experts that a token uses.") var used = 8
  @Option(help: "Tokens to draw and count, after those of the warm-up.") var tokens = 400
  @Option(help: "First tokens, which are not counted.") var warmup = 100
  @Option(
    help: ArgumentHelp("Draw popularity anew after so many tokens.", valueName: "tokens"))
  var shift: Int?
  @Option(help: "Seed of the drawn trace.") var seed: UInt64 = 1
  @Option(help: "Experts that the cache holds, without MODEL.") var slots: Int?
  @Option(help: "lru, lfu, decayed or next-use (default: all).") var policy: BundlePolicyKind?
  @Option(help: ArgumentHelp("Also write the trace to this file.", valueName: "file"))
  var record: String?
  @Flag(help: "Print one JSON object.") var json = false
  @OptionGroup(title: "Output") var messages: OutputOptions

  func validate() throws {
    guard [model != nil, replay != nil, synthetic != nil].count(where: { $0 }) == 1 else {
      throw ValidationError("give one of MODEL, --replay and --synthetic")
    }
    guard (model == nil) == (slots != nil) else {
      throw ValidationError("--slots is needed without MODEL, where --ram decides")
    }
    guard model != nil || randomTokens == nil && promptFile == nil else {
      throw ValidationError("--random-tokens and --prompt-file need MODEL")
    }
    guard (1...1024).contains(layers), (1...4096).contains(experts) else {
      throw ValidationError("--layers must be 1 to 1024 and --experts 1 to 4096")
    }
    guard (1...experts).contains(used) else {
      throw ValidationError("--used must be between 1 and --experts")
    }
    guard tokens >= 1, warmup >= 0, tokens <= 1 << 20, warmup <= 1 << 20,
      (tokens + warmup) * layers * used <= 1 << 28
    else { throw ValidationError("--tokens must be at least 1, --warmup 0, and both less") }
    guard (0...1).contains(repeatProbability), (0...16).contains(zipf) else {
      throw ValidationError("--repeat must be between 0 and 1, --zipf between 0 and 16")
    }
    guard shift ?? 1 >= 1 else { throw ValidationError("--shift must be at least 1") }
    guard slots ?? 1 >= 1 else { throw ValidationError("--slots must be at least 1") }
  }

  func run() throws {
    try reportingErrors {
      let record = try openRecord()
      guard let slots else {
        guard let path = model else { return }
        let (model, figures) = try measure(path, record: record)
        return report(figures, model.summary(path), asJSON: json)
      }
      let trace = try trace()
      guard slots >= trace.usedCount else {
        throw CommandError(.usage, "--slots must be at least \(trace.usedCount), those of a layer")
      }
      guard warmup < trace.tokenCount else {
        throw CommandError(
          .usage, "the trace has \(trace.tokenCount) tokens; --warmup must be less")
      }
      if let record { try trace.write(to: record) }
      report(figures(trace, slots: slots), asJSON: json)
    }
  }

  /// The file to record the trace in, made before the work so that a place where none can be is noticed.
  private func openRecord() throws -> OutputFile? {
    let inputs = [model, replay, promptFile].compactMap { $0 } + resources.mirror
    return try record.map { try OutputFile(path: $0, reserving: 0, inputs: inputs) }
  }

  /// The trace to replay.
  private func trace() throws -> ExpertTrace {
    if let replay { return try ExpertTrace.read(replay) }
    return ExpertTrace.synthetic(
      synthetic == .zipf ? .zipf(exponent: zipf) : .uniform, repeatProbability: repeatProbability,
      layerCount: layers, expertCount: experts, usedCount: used, tokenCount: warmup + tokens,
      shiftInterval: shift, seed: seed)
  }

  private func figures(_ trace: ExpertTrace, slots: Int) -> [Figure] {
    let best = CacheSimulation.clairvoyant(trace, slotCount: slots, warmupTokenCount: warmup)
    let counted = Double(trace.tokenCount - warmup)
    var figures = [
      Figure("tokens", counted, .tokens),
      Figure("slots", Double(slots), .number, limit: Double(trace.bundleCount)),
    ]
    for kind in policy.map({ [$0] }) ?? BundlePolicyKind.allCases {
      let result = CacheSimulation.replay(
        trace, slotCount: slots, warmupTokenCount: warmup, kind: kind)
      figures += [
        Figure(
          "hitRate/\(kind.rawValue)", result.hitRate, .fraction, "of the uses",
          limit: best.hitRate),
        Figure("missesPerToken/\(kind.rawValue)", Double(result.missCount) / counted, .number),
      ]
      if best.hitRate > 0 {
        figures.append(
          Figure(
            "shareOfClairvoyant/\(kind.rawValue)", result.hitRate / best.hitRate, .fraction,
            limit: 1))
      }
    }
    return figures + Self.figures(best, tokens: counted)
  }

  /// What the optimum hits and misses.
  static func figures(_ best: CacheSimulation.Result, tokens: Double) -> [Figure] {
    [
      Figure("hitRate/clairvoyant", best.hitRate, .fraction, "of the uses"),
      Figure("missesPerToken/clairvoyant", Double(best.missCount) / tokens, .number),
    ]
  }
}
