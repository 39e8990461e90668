import ArgumentParser
import BlockIO
import CommandLineSupport
import ModelFormat
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

/// The ladder of "LLM in a flash" (arXiv:2312.11514, table 2), measured here.
struct SparseBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "sparse",
    abstract: "What selecting, windowing and bundling of neurons save, step by step.",
    discussion: """
      MODEL is an image with bundles of neurons. Each rung decodes the same tokens: \
      naive reads every weight for every token; hybrid keeps what fits in --ram and reads the rest; \
      selection reads chosen neurons only, each part by itself, and keeps none; windowing keeps those \
      of the last tokens; bundling reads a neuron's parts together. I/O is the time in which reads \
      were under way, and waiting the part of it in which nothing was computed. The published figures \
      are OPT-6.7B's in 16 bits, on another machine.

      Examples:
        flashinfer-bench sparse relu.bin --ram 2GiB --rungs windowing,bundling
      """)

  @Argument(help: "Flash image with bundles of neurons.") var model: String
  @OptionGroup(title: "Memory, processors and drive") var resources: ResourceOptions
  @OptionGroup(title: "Experts and neurons") var neurons: NeuronArguments
  @Option(help: "Tokens to time on each rung.") var tokens = 16
  @Option(help: "Tokens to decode before timing begins, from hybrid on.") var warmup = 12
  @OptionGroup(title: "Tokens") var feed: TokenOptions
  @Option(help: "Rungs to measure (default: all): naive,hybrid,selection,windowing,bundling.")
  var rungs: String?
  @Flag(help: "Print one JSON object.") var json = false
  @OptionGroup(title: "Output") var messages: OutputOptions

  enum Rung: String, CaseIterable {
    case naive, hybrid, selection, windowing, bundling

    /// What the paper has for OPT-6.7B: bytes from flash, bytes per second, milliseconds of I/O.
    var published: (bytes: Double, bytesPerSecond: Double, milliseconds: Double) {
      switch self {
      case .naive: (13.4e9, 6.10e9, 2196)
      case .hybrid: (6.7e9, 6.10e9, 1090)
      case .selection: (0.9e9, 1.25e9, 738)
      case .windowing: (0.2e9, 1.25e9, 164)
      case .bundling: (0.2e9, 2.25e9, 87)
      }
    }
  }

  /// What the time of a token is counted as; with these the figures' names begin.
  enum Time: String, CaseIterable {
    case io, wait, management, compute, total
  }

  /// What a rung was measured to take for each token.
  struct Measurement {
    var rung: Rung
    var bytes = 0.0
    var requests = 0.0
    /// Milliseconds of each token.
    var times: [Time: [Double]] = [:]
    var usedFraction = 0.0
    var readFraction = 0.0
    var windowTokens = 0.0
    var windowFraction = 0.0
    /// Bundles read × the bytes of one: what the drive should have been asked for.
    var formulaBytes = 0.0
    var neuronBytes = 0.0

    /// Milliseconds of a token on average.
    func mean(_ time: Time) -> Double { spread(time)?.mean ?? 0 }

    func spread(_ time: Time) -> Spread? { Spread(times[time] ?? []) }
  }

  func validate() throws {
    guard tokens >= 1, warmup >= 1 else {
      throw ValidationError("--tokens and --warmup must be at least 1")
    }
    _ = try chosenRungs()
  }

  private func chosenRungs() throws -> [Rung] {
    guard let rungs else { return Rung.allCases }
    return try rungs.split(separator: ",").map { name in
      guard let rung = Rung(rawValue: String(name)) else {
        throw ValidationError(
          "--rungs: '\(name)' is none of \(Rung.allCases.map(\.rawValue).joined(separator: ", "))")
      }
      return rung
    }
  }

  func run() throws {
    Interruption.install()
    try reportingErrors {
      let rungs = try plannedRungs()
      var results: [Measurement] = []
      for rung in rungs {
        results.append(try measure(rung))
      }
      if json {
        report(
          results.flatMap(Self.figures), try resources.open(model).summary(model), asJSON: true)
      } else {
        Self.printTable(results)
      }
    }
  }

  /// The rungs to measure, each planned, so that what cannot run is refused before any is measured.
  private func plannedRungs() throws -> [Rung] {
    let rungs = try chosenRungs()
    let model = try resources.open(self.model)
    for rung in rungs {
      _ = try MemoryPlan.make(
        request(rung, layout(of: model)), source: model.source, configuration: model.configuration)
    }
    return rungs
  }

  private func layout(of model: LanguageModel) throws -> NeuronLayout {
    guard let layout = model.source.description.neurons else {
      throw CommandError(
        .badData,
        "\(self.model): the FFNs do not lie in bundles of neurons (flashinfer-convert --bundle)")
    }
    return layout
  }

  private func request(_ rung: Rung, _ layout: NeuronLayout) -> MemoryPlan.Request {
    var request = MemoryPlan.Request(
      budgetByteCount: resources.budget,
      contextLength: max(resources.context ?? 0, warmup + tokens), promptLength: 1,
      threadCount: resources.threadCount,
      preferredReadByteCount: resources.preferredReadByteCount(forFileAt: self.model))
    request.neurons = options(rung, layout)
    if rung == .naive { request.pinnedByteCount = 0 }
    return request
  }

  private func measure(_ rung: Rung) throws -> Measurement {
    let model = try resources.open(self.model)
    let layout = try layout(of: model)
    let session = try Session(
      model.source, model.configuration, request(rung, layout), cancellation: Interruption.flag)
    var feed = try feed.makeFeed(model, count: warmup + tokens)
    var token = model.tokenizer.bosToken ?? 0
    func step(_ index: Int, of count: Int) throws {
      token = feed.next(after: try session.decode(token, continues: index + 1 < count))
    }
    let first = rung == .naive ? 1 : warmup
    let timed = rung == .naive || rung == .hybrid ? min(tokens, 4) : tokens
    let progress = Progress.begin(
      "\(rung.rawValue)", total: first + timed, unit: .count("tokens"))
    defer { progress.finish() }
    for index in 0..<first {
      try step(index, of: first + timed)
      progress.update(index + 1)
    }
    let device = session.stream.source.device
    let (io, neurons) = (device.statistics, session.stream.neuronStatistics)
    var clocks = [Self.clock(session)]
    for index in 0..<timed {
      try step(first + index, of: first + timed)
      clocks.append(Self.clock(session))
      progress.update(first + index + 1)
    }
    var result = Self.measurement(
      rung, tokens: timed, device.statistics.since(io),
      session.stream.neuronStatistics - neurons, session.plan, layout)
    for (index, time) in Time.allCases.enumerated() {
      result.times[time] = zip(clocks, clocks.dropFirst()).map { $1[index] - $0[index] }
    }
    return result
  }

  /// Milliseconds so far of each of ``Time``.
  private static func clock(_ session: Session) -> [Double] {
    let times = session.times
    let nanoseconds = [
      session.stream.source.device.statistics.busyNanoseconds, times[.drive],
      session.stream.neuronStatistics.managementNanoseconds,
      times[.products] + times[.attention] + times[.elementwise], monotonicNanoseconds(),
    ]
    return nanoseconds.map { Double($0) / 1e6 }
  }

  private func options(_ rung: Rung, _ layout: NeuronLayout) -> NeuronOptions {
    var options = neurons.options
    // Parts that are not whole blocks of the drive cannot be read apart.
    let apart = layout.layers.allSatisfy { $0.parts.allSatisfy { $0.byteCount % 4096 == 0 } }
    switch rung {
    case .naive:
      options = NeuronOptions(
        selector: .all, windowByteCount: Self.passingByteCount,
        retention: NeuronReading.Retention.none)
    case .hybrid: options.selector = .all
    case .selection:
      options.retention = NeuronReading.Retention.none
      options.readsPartsApart = apart
    case .windowing: options.readsPartsApart = apart
    case .bundling: break
    }
    return options
  }

  /// Memory that the naive rung reads bundles into.
  private static let passingByteCount = 256 << 20

  private static func measurement(
    _ rung: Rung, tokens: Int, _ io: IOStatistics, _ neurons: NeuronStatistics,
    _ plan: MemoryPlan, _ layout: NeuronLayout
  ) -> Measurement {
    let count = Double(tokens)
    var result = Measurement(rung: rung)
    result.bytes = Double(io.bytesRead) / count
    result.requests = Double(io.requests) / count
    result.neuronBytes = Double(neurons.bytesRead) / count
    guard let window = plan.neurons, let shape = layout.layers.first else { return result }
    let all = Double(window.bundleCount) * count
    result.usedFraction = Double(neurons.uses) / all
    result.readFraction = Double(neurons.reads) / all
    result.windowTokens = Double(neurons.evictedAges) / Double(max(1, neurons.evictions))
    result.windowFraction = Double(window.slotCount) / Double(window.bundleCount)
    result.formulaBytes =
      Double(neurons.reads) * Double(window.reading.readByteCount(shape)) / count
    return result
  }

  private static func figures(_ result: Measurement) -> [Figure] {
    let name = result.rung.rawValue
    return [
      Figure("bytesPerToken/\(name)", result.bytes, .bytes),
      Figure("requestsPerToken/\(name)", result.requests, .number),
      Figure("neuronBytesPerToken/\(name)", result.neuronBytes, .bytes, limit: result.formulaBytes),
    ]
      + Time.allCases.map { time in
        Figure(
          "\(time.rawValue)Milliseconds/\(name)", samples: result.times[time] ?? [],
          .milliseconds, "per token")
      } + [
        Figure("fractionUsed/\(name)", result.usedFraction, .fraction, "of all bundles"),
        Figure("fractionRead/\(name)", result.readFraction, .fraction, "of all bundles"),
        Figure("windowTokens/\(name)", result.windowTokens, .tokens),
        Figure("windowFraction/\(name)", result.windowFraction, .fraction, "of all bundles"),
      ]
  }

  private static func printTable(_ results: [Measurement]) {
    Terminal.print(
      "rung        GB/token   GB/s  I/O ms  wait ms  mgmt ms  compute ms       total ms   used   read"
        + "  window | paper: GB   GB/s  I/O ms\n")
    for result in results {
      let published = result.rung.published
      let io = result.mean(.io)
      let rate = io > 0 ? result.bytes / io * 1e-6 : 0
      let total =
        "\(result.mean(.total).fixed(1)) ± "
        + "\((result.spread(.total)?.standardDeviation ?? 0).fixed(1))"
      let row = [
        result.rung.rawValue.padded(to: 11), (result.bytes / 1e9).fixed(3).padded(to: -9),
        rate.fixed(2).padded(to: -6), io.fixed(1).padded(to: -7),
        result.mean(.wait).fixed(1).padded(to: -8),
        result.mean(.management).fixed(1).padded(to: -8),
        result.mean(.compute).fixed(1).padded(to: -11), total.padded(to: -14),
        (result.usedFraction * 100).fixed(1).padded(to: -5) + "%",
        (result.readFraction * 100).fixed(1).padded(to: -5) + "%",
        result.windowTokens.fixed(1).padded(to: -7), "|",
        (published.bytes / 1e9).fixed(1).padded(to: -9),
        (published.bytesPerSecond / 1e9).fixed(2).padded(to: -6),
        published.milliseconds.fixed(0).padded(to: -7),
      ]
      Terminal.print(row.joined(separator: " ") + "\n")
    }
    if let naive = results.first(where: { $0.rung == .naive }),
      let best = results.first(where: { $0.rung == .bundling })
    {
      let io = naive.mean(.io) / best.mean(.io)
      let total = naive.mean(.total) / best.mean(.total)
      let share = best.mean(.management) / best.mean(.total) * 100
      Terminal.print(
        "naive ÷ bundling: I/O \(io.fixed(1)) (paper 25), total "
          + "\(total.fixed(1)) (paper 4.8, CPU); memory management "
          + "\(share.fixed(1)) % of the total\n")
    }
  }
}
