import Glibc
import ModelFormat
import NIOCore
import NIOPosix
import Server
import ServerLoad
import TensorBasics
import TestSupport
import Testing

/// What `flashinfer-bench serve` sends and counts: forms, not speeds.
@Suite struct LoadTests {
  private func client(_ port: Int, key: String? = nil, timeoutSeconds: Int = 600) throws
    -> LoadClient
  {
    let address = try #require(ServerAddress("http://127.0.0.1:\(port)"))
    return LoadClient(address, key: key, timeoutSeconds: timeoutSeconds)
  }

  private func requests(
    _ count: Int, promptTokens: String = "5-20", answerTokens: String = "6", shared: Int = 0
  ) throws -> [LoadRequest] {
    DrawnPrompts(
      promptLength: try #require(LengthDistribution(promptTokens)),
      answerLength: try #require(LengthDistribution(answerTokens)), sharedTokenCount: shared,
      seed: 3
    ).requests(count, model: "tiny")
  }

  @Test func `Addresses, lengths and targets are read, and nothing else is`() {
    #expect(ServerAddress("http://a.example:81/")?.port == 81)
    #expect(ServerAddress("http://[::1]:8080")?.host == "::1")
    #expect(ServerAddress("http://localhost")?.port == 80)
    for base in ["http://a.example:81/v1", "http://a.example:81/v1/"] {
      #expect(ServerAddress(base) == ServerAddress("http://a.example:81"))
    }
    for wrong in [
      "localhost:80", "https://a", "http://", "http://a:0", "http://a:b", "http://a/v2",
      "http://a/v1/models",
    ] {
      #expect(ServerAddress(wrong) == nil, "\(wrong)")
    }
    for wrong in ["", "0", "-1", "5-4", "1-2-3", "mean:", "mean:0", "x", "1.5"] {
      #expect(LengthDistribution(wrong) == nil, "\(wrong)")
    }
    let targets = LatencyTargets("ttft=0.5,tpot=50ms,total=2s")
    #expect(targets?.firstToken == 0.5 && targets?.perToken == 0.05 && targets?.whole == 2)
    for wrong in ["", "ttft", "ttft=", "ttft=-1", "ttft=0", "what=1", "ttft=1,", "ttft=inf"] {
      #expect(LatencyTargets(wrong) == nil, "\(wrong)")
    }
  }

  @Test func `A seed names lengths, prompts and moments`() throws {
    var generator = SeededGenerator(seed: 9)
    let uniform = try #require(LengthDistribution("3-6"))
    let drawn = (0..<400).map { _ in uniform.draw(using: &generator) }
    #expect(Set(drawn) == [3, 4, 5, 6])
    let exponential = try #require(LengthDistribution("mean:100"))
    let many = (0..<4000).map { _ in exponential.draw(using: &generator) }
    let mean = Double(many.reduce(0, +)) / 4000
    #expect((95...105).contains(mean) && many.min() == 1 && (many.max() ?? 0) > 400)
    #expect(try requests(5) == requests(5))
    #expect(try requests(5) == Array(requests(9).prefix(5)))
    let moments = try #require(Arrivals.rate(4, seed: 1).moments(4000))
    #expect(moments == moments.sorted() && moments == Arrivals.rate(4, seed: 1).moments(4000))
    #expect(moments[0] > 0 && (950...1050).contains(moments[3999]))
    #expect(moments != Arrivals.rate(4, seed: 2).moments(4000))
    #expect(Arrivals.clients(3).moments(2) == nil)
  }

  @Test func `Lines of a file keep what they say`() throws {
    let common = LoadRequest.Common(
      model: "tiny", answerTokenCount: 7, seed: 5, ignoresEnd: true)
    func members(_ line: String) throws -> JSONValue? {
      try LoadRequest(line: Array(line.utf8), common).map {
        try JSONValue.parsed(String(decoding: $0.body, as: UTF8.self))
      }
    }
    let plain = try #require(try members(#" {"prompt": "a}", "top_k": 3} "#))
    #expect(plain["prompt"]?.string == "a}" && plain["top_k"]?.integer == 3)
    #expect(plain["max_tokens"]?.integer == 7 && plain["seed"]?.integer == 5)
    #expect(plain["stream"]?.bool == true && plain["ignore_eos"]?.bool == true)
    let own = try #require(
      try members(#"{"messages":[],"max_tokens":2,"seed":1,"ignore_eos":false}"#))
    #expect(own["max_tokens"]?.integer == 2 && own["seed"]?.integer == 1)
    #expect(own["ignore_eos"]?.bool == false)
    #expect(own.members?.count == 7)
    let chat = LoadRequest(line: Array(#"{"messages":[]}"#.utf8), common)
    #expect(chat?.path == "/v1/chat/completions")
    for wrong in [
      "", "[]", "{}", "{", #"{"prompt":1,"messages":[]}"#, #"{"prompt":"a","stream":false}"#,
    ] {
      #expect(try members(wrong) == nil, "\(wrong)")
    }
  }

  @Test func `Percentiles, tokens and targets are those of the outcomes`() throws {
    #expect(LoadSummary.percentile(0.5, of: [1, 2, 3, 4]) == 2)
    #expect(LoadSummary.percentile(0.99, of: [1, 2, 3, 4]) == 4)
    #expect(LoadSummary.percentile(0.5, of: []).isNaN)
    func outcome(_ start: Int, _ pieces: [Int], _ end: Int, failure: String? = nil)
      -> RequestOutcome
    {
      var outcome = RequestOutcome(start: start * 1_000_000, end: end * 1_000_000)
      outcome.pieces = pieces.map { $0 * 1_000_000 }
      (outcome.promptTokenCount, outcome.answerTokenCount) = (10, pieces.count)
      outcome.failure = failure
      return outcome
    }
    let outcomes = [
      outcome(0, [100, 150, 160], 170), outcome(50, [80, 480], 500),
      outcome(60, [90], 1050, failure: "connection"), outcome(70, [], 75, failure: "status 429"),
    ]
    let load = LoadSummary(outcomes, LatencyTargets("ttft=100ms,tpot=100ms"))
    #expect(load.requestCount == 4 && load.answeredCount == 2 && load.goodCount == 1)
    #expect(load.failures == ["connection": 1, "status 429": 1])
    #expect(load.seconds == 1.05 && load.answerTokenCount == 5 && load.promptTokenCount == 20)
    #expect(load.firstToken == [0.03, 0.1] && load.betweenTokens == [0.01, 0.05, 0.4])
    #expect(load.whole == [0.17, 0.45])
    #expect(LoadSummary(outcomes).goodCount == 2)
  }

  @Test func `A server answers clients in turn, and requests at their moments`() async throws {
    try await ServerRig.serving { rig in
      let client = try client(rig.port)
      #expect(try await client.modelName() == "tiny")
      let requests = try requests(12, shared: 40)
      for arrivals in [Arrivals.clients(4), .rate(400, seed: 1)] {
        let outcomes = await LoadRun(client, requests, arrivals).run()
        let load = LoadSummary(outcomes)
        #expect(load.answeredCount == 12 && load.failures.isEmpty, "\(load.failures)")
        #expect(load.answerTokenCount == 72 && load.promptTokenCount >= 12 * 45)
        // A token need not have a text.
        #expect(!load.firstToken.isEmpty && load.firstToken.allSatisfy { $0 > 0 })
        #expect(
          outcomes.allSatisfy { $0.pieces == $0.pieces.sorted() && $0.pieces.last ?? 0 <= $0.end })
      }
    }
  }

  @Test func `What fails is told by its kind`() async throws {
    try await ServerRig.serving(sequenceCount: 1, contextLength: 65536) {
      $0.queueCount = 0
    } _: {
      rig in
      let client = try client(rig.port)
      let wrong = try #require(
        LoadRequest(
          line: Array(#"{"prompt":"a","best_of":3}"#.utf8),
          LoadRequest.Common(model: "tiny", answerTokenCount: 1, seed: 0, ignoresEnd: false)))
      let refused = await client.send(wrong, start: monotonicNanoseconds())
      #expect(refused.failure == "status 400")
      let first = LoadSummary([refused]).firstFailure
      #expect(first?.hasPrefix("status 400: 'best_of' is not supported") == true, "\(first ?? "")")
      // Far more than is ever answered: it has the only place.
      let long = try requests(1, answerTokens: "60000")[0]
      let holder = Task { await client.send(long, start: monotonicNanoseconds()) }
      try await rig.wait(forStates: ["answering"])
      let load = LoadSummary(await LoadRun(client, try requests(5), .clients(2)).run())
      #expect(load.failures == ["status 429": 5] && load.answeredCount == 0)
      holder.cancel()
      #expect(await holder.value.failure == "connection")
    }
  }

  @Test func `A server that does not answer, breaks off or is not there`() async throws {
    let request = try requests(1)[0]
    // One whose connections end after some bytes, or never say anything.
    for (bytes, seconds, kind) in [
      ("", 1, "timeout"),
      ("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\ndata: [DONE]", 60, "broken stream"),
      ("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\ndata: ", 60, "connection"),
    ] {
      let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
        .childChannelInitializer { channel in
          channel.eventLoop.makeCompletedFuture {
            try channel.pipeline.syncOperations.addHandler(
              OneAnswer(bytes, closes: kind == "connection"))
          }
        }.bind(host: "127.0.0.1", port: 0).get()
      let port = try #require(server.localAddress?.port)
      let outcome = try await client(port, timeoutSeconds: seconds)
        .send(request, start: monotonicNanoseconds())
      #expect(outcome.failure == kind, "\(bytes)")
      try await server.close()
      let gone = try await client(port).send(request, start: monotonicNanoseconds())
      #expect(gone.failure == "connection")
      await #expect(throws: LoadClient.Failure.self) { try await client(port).modelName() }
    }
  }

  @Test func `A key is shown`() async throws {
    let key = String(repeating: "k", count: 32)
    let file = TemporaryFile(Array(key.utf8))
    chmod(file.path, 0o600)
    let keys = try APIKeys(path: file.path)
    try await ServerRig.serving {
      $0.apiKeys = keys
    } _: { rig in
      let request = try requests(1)[0]
      let denied = try await client(rig.port).send(request, start: monotonicNanoseconds())
      #expect(denied.failure == "status 401")
      let allowed = try await client(rig.port, key: key).send(
        request, start: monotonicNanoseconds())
      #expect(allowed.failure == nil)
    }
  }

  @Test(
    .enabled(if: ServerProgram.isBuilt, "the programs are not built beside the tests"))
  func `The program tells what it measured, and refuses what contradicts itself`() async throws {
    let server = try ServerProgram(["--context", "256"])
    let url = "http://127.0.0.1:\(server.port)"
    func bench(_ arguments: [String]) throws -> (status: Int32, text: String) {
      try ServerProgram.run(["serve"] + arguments, program: "flashinfer-bench")
    }
    let lines = TemporaryFile(
      Array("{\"prompt\":\"the\",\"max_tokens\":3}\n\n{\"messages\":[]}\n".utf8))
    for source in [
      ["--prompt-tokens", "4-9", "--answer-tokens", "5"], ["--requests-file", lines.path],
    ] {
      let result = try bench(
        [
          url, "--requests", "6", "--warmup", "1", "--clients", "2", "--slo", "ttft=3600", "--json",
          "--quiet",
        ] + source)
      #expect(result.status == 0, "\(result.text)")
      let warning = result.text.firstRange(of: "\nwarning: ")
      let document = try JSONValue.parsed(
        String(result.text[..<(warning?.lowerBound ?? result.text.endIndex)]))
      #expect(document["command"]?.string == "flashinfer-bench serve")
      let names = document["figures"]?.array?.compactMap { $0["name"]?.string } ?? []
      for name in [
        "requests", "answeredRequests", "answerTokensPerSecond", "firstTokenSeconds/p50",
        "betweenTokensSeconds/p99", "requestSeconds/p95", "goodShare", "goodRequestsPerSecond",
      ] { #expect(names.contains(name), "\(name)") }
      func figure(_ name: String) -> Double? {
        document["figures"]?.array?.first { $0["name"]?.string == name }?["value"]?.double
      }
      // Of the lines, those without a message are refused; the first of them is told why.
      #expect((warning != nil) == (source.count == 2))
      #expect(
        warning == nil || result.text.contains("3 of 6 requests failed; the first: status 400: "))
      let refused = source.count == 2 ? 3.0 : nil
      #expect(figure("failedRequests/status 400") == refused, "\(result.text)")
      #expect(figure("answeredRequests") == 6 - (refused ?? 0))
    }
    let wholly = try bench([url + "/v1/", "--requests", "2", "--prompt-tokens", "999"])
    #expect(wholly.status == 1, "\(wholly.text)")
    #expect(
      wholly.text.contains("2 of 2 requests failed; the first: status 400: the prompt has 999"))
    let labels = try bench([url + "/v1", "--requests", "2", "--slo", "total=3600"]).text
    #expect(labels.ranges(of: "good requests").count == 1, "\(labels)")
    for wrong in [
      ["localhost"], [url, "--rate", "1", "--clients", "2"], [url, "--slo", "x"],
      [url, "--rate", "0"],
      [url, "--prompt-tokens", "9-1"], [url, "--requests", "0"],
    ] {
      let result = try bench(wrong)
      #expect(result.status == 64 && result.text.hasPrefix("error: "), "\(wrong): \(result.text)")
    }
    let absent = try bench(["http://127.0.0.1:1", "--requests", "1"])
    #expect(absent.status == 1 && absent.text.contains("127.0.0.1:1"), "\(absent.text)")
  }
}

/// Says the same to every request, or nothing.
private final class OneAnswer: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer
  private let text: String
  private let closes: Bool
  private var hasAnswered = false

  init(_ text: String, closes: Bool) { (self.text, self.closes) = (text, closes) }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard !text.isEmpty, !hasAnswered else { return }
    hasAnswered = true
    context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: text)), promise: nil)
    if closes { context.close(promise: nil) }
  }
}
