import CoreMetrics
import ModelFormat
import Runtime
import Server
import Testing

/// What the server says of itself, and what it does without the model.
@Suite struct StateRouteTests {
  @Test func `The model is told of by its name`() async throws {
    try await ServerRig.serving { rig in
      #expect(try await rig.get("/health").text == "{\"status\":\"ok\"}\n")
      let models = try JSONValue.parsed(try await rig.get("/v1/models").text)
      #expect(models["data"]?.array?.compactMap { $0["id"]?.string } == ["tiny"])
      #expect(try await rig.get("/v1/models/tiny").status == 200)
      #expect(try await rig.get("/v1/models/other").status == 404)
      let properties = try JSONValue.parsed(try await rig.get("/props").text)
      #expect(properties["context_length"]?.integer == 256)
      #expect(properties["sequences"]?.integer == 3)
      #expect(properties["chat_template"]?.string == ServerRig.template)
    }
  }

  @Test(arguments: [
    ("/models/Qwen2.5-0.5B/", "Qwen2.5-0.5B"), ("a/b.Q4_1.gguf", "b.Q4_1"), ("m.bin", "m"),
    (".gguf", ".gguf"), ("model", "model"),
  ])
  func `A model's name is its file's without what files of models end with`(
    path: String, name: String
  ) {
    #expect(ServerOptions.modelName(ofPath: path) == name)
  }

  @Test func `Texts become tokens and texts again`() async throws {
    try await ServerRig.serving { rig in
      let tokens = try JSONValue.parsed(
        try await rig.post("/tokenize", #"{"content":"the ü<|endoftext|>"}"#).text)["tokens"]
      let ids = tokens?.array?.compactMap(\.integer) ?? []
      #expect(ids.last == 0)
      let text = try await rig.post("/detokenize", "{\"tokens\":\(ids)}").text
      #expect(try JSONValue.parsed(text)["content"]?.string == "the ü")
      let plain = try await rig.post(
        "/tokenize", #"{"content":"the ü<|endoftext|>","parse_special":false}"#)
      #expect(try JSONValue.parsed(plain.text)["tokens"]?.array?.last?.integer != 0)
      let pieces = try await rig.post(
        "/tokenize", #"{"content":"the ü🤗<|endoftext|>","with_pieces":true}"#)
      let spelt = try JSONValue.parsed(pieces.text)["tokens"]?.array ?? []
      #expect(spelt.last?["id"]?.integer == 0)
      let bytes = spelt.flatMap { token -> [UInt8] in
        let piece = token["piece"]
        return piece?.string.map { Array($0.utf8) }
          ?? piece?.array?.compactMap(\.integer).map { UInt8($0) } ?? []
      }
      #expect(String(decoding: bytes, as: UTF8.self) == "the ü🤗<|endoftext|>")
      let prompt = try await rig.post(
        "/apply-template", #"{"messages":[{"role":"user","content":"hi"}]}"#)
      #expect(try JSONValue.parsed(prompt.text)["prompt"]?.string == "<user>hi\n<assistant>")
    }
  }

  @Test func `Metrics count what was answered`() async throws {
    try await ServerRig.serving { rig in
      _ = try await rig.post(
        "/v1/completions", #"{"prompt":[5,6],"max_tokens":3,"ignore_eos":true}"#)
      _ = try await rig.post("/v1/completions", "{}")
      _ = try await rig.get("/made/up/by/a/client")
      let lines = Set(try await rig.get("/metrics").text.split(separator: "\n"))
      for line in [
        "flashinfer_prompt_tokens_total 2", "flashinfer_answer_tokens_total 3",
        "# TYPE flashinfer_drawn_tokens_total counter", "flashinfer_drawn_tokens_total 3",
        "# TYPE flashinfer_weight_bytes_read_total counter",
        "flashinfer_sequences_open 0", "# TYPE flashinfer_time_to_first_token_seconds summary",
        "flashinfer_time_to_first_token_seconds_count 1",
        #"flashinfer_http_requests_total{route="/v1/completions",status="200"} 1"#,
        #"flashinfer_http_requests_total{route="/v1/completions",status="400"} 1"#,
      ] { #expect(lines.contains(Substring(line)), "\(line) is not in \(lines.sorted())") }
      #expect(!lines.contains { $0.contains("made") })
      // Each figure says what it is, once.
      let (types, helps) = (Self.names(lines, "# TYPE "), Self.names(lines, "# HELP "))
      #expect(types == helps && types.count == Set(types).count && types.count > 10)
      // What is not a total may fall.
      let gauges = lines.filter { $0.hasPrefix("# TYPE ") && $0.hasSuffix(" gauge") }
      #expect(
        Self.names(gauges, "# TYPE ") == [
          "flashinfer_client_rows", "flashinfer_client_sequences_open",
          "flashinfer_client_sequences_queued", "flashinfer_memory_budget_bytes",
          "flashinfer_sequences_open",
          "flashinfer_sequences_planned", "flashinfer_sequences_queued",
        ])
    }
  }

  /// The second words after such a start, in their order.
  private static func names(_ lines: Set<Substring>, _ start: String) -> [Substring] {
    lines.filter { $0.hasPrefix(start) }.map { $0.dropFirst(start.count).prefix { $0 != " " } }
      .sorted()
  }

  @Test func `Prometheus's text has one type a name, and no character that breaks a line`() {
    let registry = PrometheusRegistry(helps: ["a.b": "Two of them."])
    Counter(label: "a.b", dimensions: [("k", "1\"\n\\")], factory: registry).increment(by: 2)
    Counter(label: "a.b", dimensions: [("k", "2")], factory: registry).increment()
    Gauge(label: "g", factory: registry).record(1.5)
    Timer(label: "t", factory: registry).recordNanoseconds(2_500_000_000)
    #expect(
      registry.text == """
        # HELP a_b_total Two of them.
        # TYPE a_b_total counter
        a_b_total{k="1\\"\\n\\\\"} 2
        a_b_total{k="2"} 1
        # TYPE g gauge
        g 1.5
        # TYPE t_seconds summary
        t_seconds_sum 2.5
        t_seconds_count 1

        """)
  }
}
