#if FLASHINFER_SERVER
  import ArgumentParser
  import CommandLineSupport
  import Dispatch
  import ServerLoad
  import Synchronization
  import TensorBasics

  /// Load on a server.
  struct ServeBench: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "serve",
      abstract:
        "Load on a server over HTTP: times to the first token and between tokens, tokens per second.",
      discussion: """
        URL is where a server answers as OpenAI's interface does, such as http://127.0.0.1:8080; answers are streamed. \
        Without --rate, each of --clients asks again as soon as it is answered. Prompts are drawn from --seed, or the \
        lines of a file: objects with prompt or messages, max_tokens, and whatever else the server takes. Where no request is \
        answered, it ends with 1.

        Examples:
          flashinfer-bench serve http://127.0.0.1:8080 --clients 16 --requests 200
          flashinfer-bench serve http://127.0.0.1:8080 --rate 2 --prompt-tokens mean:512 --answer-tokens 32-128
          flashinfer-bench serve http://127.0.0.1:8080 --rate 0.5 --requests-file lines.jsonl --slo ttft=2,tpot=100ms
        """)

    @Argument(help: "Where the server listens: http://HOST[:PORT], with or without /v1.") var url:
      String
    @Option(help: "Requests to send; as many as --requests-file has lines, 100 without.")
    var requests: Int?
    @Option(
      help: "Requests a second on average, at moments drawn from --seed, whatever is answered.")
    var rate: Double?
    @Option(
      help: "Clients that ask one request after the other, where there is no --rate (default: 1).")
    var clients: Int?
    @Option(
      help: ArgumentHelp(
        "Send the lines of a file, over and over, instead of what is drawn.", valueName: "file"))
    var requestsFile: String?
    @Option(
      help: ArgumentHelp(
        "Tokens of each prompt: \(LengthDistribution.forms), the mean of many short ones and few long.",
        valueName: "lengths"))
    var promptTokens = "128"
    @Option(
      help: ArgumentHelp(
        "Tokens of each answer, likewise; also of lines of a file that have no max_tokens.",
        valueName: "lengths"))
    var answerTokens = "64"
    @Option(help: "Tokens that all drawn prompts begin with.") var sharedTokens = 0
    @Option(help: "Seed of what is drawn.") var seed: UInt64 = 1
    @Flag(help: "Let the model end its answers before they have all their tokens.")
    var letEnd = false
    @Option(help: "Requests before these that do not count.") var warmup = 0
    @Option(
      help: ArgumentHelp(
        "Count the requests that are answered within: \(LatencyTargets.forms); ms may follow a number.",
        valueName: "targets"))
    var slo: String?
    @Option(help: "Name of the model to ask for (default: the first of /v1/models).") var model:
      String?
    @Option(help: ArgumentHelp("Show the first key of a file.", valueName: "file")) var apiKeyFile:
      String?
    @Option(help: "Seconds after which a request is given up.") var timeout = 600
    @Flag(help: "Print one JSON object.") var json = false
    @OptionGroup(title: "Output") var messages: OutputOptions

    func validate() throws {
      guard ServerAddress(url) != nil else {
        throw ValidationError("'\(url)' is no address of a server: write http://HOST:PORT")
      }
      guard (1...1 << 20).contains(requests ?? 1), (0...1 << 20).contains(warmup) else {
        throw ValidationError(
          "--requests must be at least 1, --warmup not negative, both at most 2^20")
      }
      guard rate == nil || clients == nil else {
        throw ValidationError("--rate or --clients, not both")
      }
      guard (rate ?? 1) > 0, (rate ?? 1).isFinite, (1...4096).contains(clients ?? 1) else {
        throw ValidationError("--rate must be more than 0, --clients 1 to 4096")
      }
      for (name, lengths) in [("--prompt-tokens", promptTokens), ("--answer-tokens", answerTokens)]
      {
        guard LengthDistribution(lengths) != nil else {
          throw ValidationError("\(name) is '\(lengths)', not \(LengthDistribution.forms)")
        }
      }
      if let slo, LatencyTargets(slo) == nil {
        throw ValidationError("--slo is '\(slo)', not \(LatencyTargets.forms)")
      }
      guard (0...1 << 24).contains(sharedTokens), (1...86400).contains(timeout) else {
        throw ValidationError("--shared-tokens must not be negative, --timeout 1 to 86400")
      }
    }

    func run() throws {
      Interruption.install()
      // Requests under way are the server's to end.
      Interruption.endProcessAtOnce(true)
      try reportingErrors {
        guard let address = ServerAddress(url) else { return }
        let client = LoadClient(
          address, key: try apiKeyFile.map(Self.firstKey), timeoutSeconds: timeout)
        let model = try self.model ?? waiting { try await client.modelName() }
        let all = try makeRequests(model)
        let arrivals: Arrivals = rate.map { .rate($0, seed: seed) } ?? .clients(clients ?? 1)
        try send(client, Array(all.prefix(warmup)), .clients(clients ?? 1), "warming up")
        let outcomes = try send(client, Array(all.dropFirst(warmup)), arrivals, "sending requests")
        let load = LoadSummary(outcomes, slo.flatMap { LatencyTargets($0) })
        report(Self.figures(load, hasTargets: slo != nil), asJSON: json)
        guard let failure = load.firstFailure else { return }
        let count = load.requestCount - load.answeredCount
        let text = "\(count) of \(load.requestCount) requests failed; the first: \(failure)"
        guard load.answeredCount > 0 else { throw CommandError(.failure, text) }
        Terminal.warn(text)
      }
    }

    @discardableResult private func send(
      _ client: LoadClient, _ requests: [LoadRequest], _ arrivals: Arrivals, _ title: String
    ) throws -> [RequestOutcome] {
      guard !requests.isEmpty else { return [] }
      return try Progress.showing(title, total: requests.count, unit: .count("requests")) {
        progress in
        try waiting { await LoadRun(client, requests, arrivals).run { progress.update($0) } }
      }
    }

    /// Those that do not count, then those that do.
    private func makeRequests(_ model: String) throws -> [LoadRequest] {
      guard let prompts = LengthDistribution(promptTokens),
        let answers = LengthDistribution(answerTokens)
      else { return [] }
      guard let requestsFile else {
        var drawn = DrawnPrompts(
          promptLength: prompts, answerLength: answers, sharedTokenCount: sharedTokens, seed: seed)
        drawn.ignoresEnd = !letEnd
        return drawn.requests(warmup + (requests ?? 100), model: model)
      }
      var generator = SeededGenerator(seed: seed)
      var lines: [LoadRequest] = []
      let file = try LineFile(path: requestsFile == "-" ? nil : requestsFile)
      try file.forEachLine(keeping: Self.lineByteLimit) { line in
        guard !line.isBlank else { return }
        let common = LoadRequest.Common(
          model: model, answerTokenCount: answers.draw(using: &generator),
          seed: UInt64(line.number), ignoresEnd: !letEnd)
        guard line.isWhole, let request = LoadRequest(line: line.bytes, common) else {
          throw CommandError(
            .badData,
            "\(file.name), line \(line.number): no object with prompt or messages, without model and stream"
          )
        }
        lines.append(request)
      }
      guard !lines.isEmpty else { throw CommandError(.badData, "\(file.name) has no lines") }
      return (0..<warmup + (requests ?? lines.count)).map { lines[$0 % lines.count] }
    }

    private static let lineByteLimit = 64 << 20

    private static func firstKey(_ path: String) throws -> String {
      let lines = try Terminal.readAll(path: path).split(separator: UInt8(ascii: "\n"))
      guard let key = lines.first(where: { $0.first != UInt8(ascii: "#") }) else {
        throw CommandError(.badData, "\(path) has no key")
      }
      return String(decoding: key, as: UTF8.self)
    }

    private static func figures(_ load: LoadSummary, hasTargets: Bool) -> [Figure] {
      var figures = [
        Figure("requests", load.requestCount, .number),
        Figure("answeredRequests", load.answeredCount, .number),
      ]
      for (kind, count) in load.failures.sorted(by: { $0.key < $1.key }) {
        figures.append(Figure("failedRequests/\(kind)", count, .number))
      }
      let seconds = load.seconds
      func rate(_ name: String, _ count: Int, _ unit: FigureUnit) -> Figure {
        Figure(name, Double(count), dividedBy: seconds, "time", unit)
      }
      figures += [
        Figure("seconds", seconds, .seconds),
        rate("answeredRequestsPerSecond", load.answeredCount, .perSecond),
        rate("answerTokensPerSecond", load.answerTokenCount, .tokensPerSecond),
        rate("promptTokensPerSecond", load.promptTokenCount, .tokensPerSecond),
        Figure(
          "cachedPromptShare", Double(load.cachedTokenCount),
          dividedBy: Double(load.promptTokenCount), "prompt tokens", .fraction, "of prompts"),
      ]
      for (name, values) in [
        ("firstTokenSeconds", load.firstToken), ("betweenTokensSeconds", load.betweenTokens),
        ("requestSeconds", load.whole),
      ] {
        for percent in [50, 95, 99] {
          figures.append(
            Figure(
              "\(name)/p\(percent)", LoadSummary.percentile(Double(percent) / 100, of: values),
              .seconds, absence: "nothing was measured"))
        }
      }
      guard hasTargets else { return figures }
      return figures + [
        rate("goodRequestsPerSecond", load.goodCount, .perSecond),
        Figure(
          "goodShare", Double(load.goodCount), dividedBy: Double(load.requestCount), "requests",
          .fraction, "of requests"),
      ]
    }
  }

  /// Does asynchronous work while the calling thread, which is none of Swift's, waits for its end.
  private func waiting<Result: Sendable>(
    _ work: @escaping @Sendable () async throws -> Result
  ) throws -> Result {
    let end = DispatchSemaphore(value: 0)
    let result = Mutex<Swift.Result<Result, any Error>?>(nil)
    Task {
      do {
        let value = try await work()
        result.withLock { $0 = .success(value) }
      } catch { result.withLock { $0 = .failure(error) } }
      end.signal()
    }
    end.wait()
    guard let found = result.withLock({ $0 }) else { throw CancellationError() }
    return try found.get()
  }
#endif
