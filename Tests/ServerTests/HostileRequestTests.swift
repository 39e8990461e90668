import ModelFormat
import Runtime
import Server
import Testing

/// Requests that cannot be answered: each is told why, and the server goes on.
@Suite struct HostileRequestTests {
  /// Path, body, status and the field that is named.
  private static let refused: [(path: String, body: String, status: Int, field: String?)] = {
    let messages = #""messages":[{"role":"user","content":"a"}]"#
    let tool = #"{"type":"function","function":{"name":"f"}}"#
    let (completions, chat) = ("/v1/completions", "/v1/chat/completions")
    return [
      (completions, "", 400, nil), (completions, "{", 400, nil), (completions, "[]", 400, nil),
      (completions, "null", 400, nil), (completions, #"{"prompt":"\ud800"}"#, 400, "prompt"),
      (completions, "{}", 400, "prompt"), (completions, #"{"prompt":5}"#, 400, "prompt"),
      (completions, #"{"prompt":""}"#, 400, "prompt"),
      (completions, #"{"prompt":[]}"#, 400, "prompt"),
      (completions, #"{"prompt":[1,"a"]}"#, 400, "prompt"),
      (completions, #"{"prompt":[1e99]}"#, 400, "prompt"),
      (completions, #"{"prompt":[-1]}"#, 400, "prompt"),
      (completions, #"{"prompt":[320]}"#, 400, "prompt"),
      (completions, #"{"prompt":"a","nonsense":1}"#, 400, "nonsense"),
      (completions, #"{"prompt":"a","nonsense":null}"#, 400, "nonsense"),
      ("/detokenize", #"{"tokens":[1],"":null}"#, 400, ""),
      (
        chat, "{\(messages),\"tools\":[\(tool.replacing("\"f\"", with: "\"f\",\"more\":null"))]}",
        400, "tools"
      ),
      (completions, #"{"prompt":"a","logit_bias":{"01":5}}"#, 400, "logit_bias"),
      (completions, #"{"prompt":"a","logit_bias":{"+1":5}}"#, 400, "logit_bias"),
      (completions, #"{"prompt":"a","logit_bias":{"1":500}}"#, 400, "logit_bias"),
      (completions, #"{"prompt":"a","logit_bias":{"99999":5}}"#, 400, "logit_bias"),
      (completions, #"{"prompt":"a","grammar":"root ::= x"}"#, 400, "grammar"),
      (completions, #"{"prompt":"a","json_schema":{"not":{}}}"#, 400, "json_schema"),
      (
        completions, #"{"prompt":"a","structured_outputs":{"regex":"(a"}}"#, 400,
        "structured_outputs"
      ),
      (completions, #"{"prompt":"a","presence_penalty":3}"#, 400, "presence_penalty"),
      (completions, #"{"prompt":"a","echo":true}"#, 400, "echo"),
      (completions, #"{"prompt":"a","temperature":"hot"}"#, 400, "temperature"),
      (completions, #"{"prompt":"a","temperature":-1}"#, 400, "temperature"),
      (completions, #"{"prompt":"a","temperature":NaN}"#, 400, "temperature"),
      (completions, #"{"prompt":"a","top_p":0}"#, 400, "top_p"),
      (completions, #"{"prompt":"a","top_k":-1}"#, 400, "top_k"),
      (completions, #"{"prompt":"a","top_k":1.5}"#, 400, "top_k"),
      (completions, #"{"prompt":"a","min_p":2}"#, 400, "min_p"),
      (completions, #"{"prompt":"a","max_tokens":0}"#, 400, "max_tokens"),
      (completions, #"{"prompt":"a","seed":1.5}"#, 400, "seed"),
      (completions, #"{"prompt":"a","seed":99999999999999999999}"#, 400, "seed"),
      (completions, #"{"prompt":"a","seed":-1}"#, 400, "seed"),
      (
        completions, #"{"prompt":"a","stream":true,"stream_options":{"usage":1}}"#, 400,
        "stream_options"
      ),
      (
        completions, #"{"prompt":"a","response_format":{"type":"text","x":1}}"#, 400,
        "response_format"
      ),
      (completions, #"{"prompt":"a","stop":[""]}"#, 400, "stop"),
      (completions, #"{"prompt":"a","stop":[1]}"#, 400, "stop"),
      (completions, #"{"prompt":"a","stop":{}}"#, 400, "stop"),
      (completions, #"{"prompt":"a","n":0}"#, 400, "n"),
      (completions, #"{"prompt":"a","n":9223372036854775807}"#, 400, "n"),
      (completions, #"{"prompt":["a","b"],"n":9223372036854775807}"#, 400, "n"),
      (completions, #"{"prompt":["a","b"],"n":65536}"#, 400, "n"),
      (completions, #"{"prompt":"a","logprobs":21}"#, 400, "logprobs"),
      (completions, #"{"prompt":"a","stream":1}"#, 400, "stream"),
      (completions, #"{"prompt":"a","stream_options":{}}"#, 400, "stream_options"),
      (completions, #"{"prompt":"a","model":"other"}"#, 404, "model"),
      (chat, "{\(messages),\"tools\":[{}]}", 400, "tools"),
      (chat, "{\(messages),\"tools\":{}}", 400, "tools"),
      (chat, "{\(messages),\"tool_choice\":\"required\"}", 400, "tool_choice"),
      (chat, "{\(messages),\"tools\":[\(tool)],\"tool_choice\":\"any\"}", 400, "tool_choice"),
      (
        chat,
        "{\(messages),\"tools\":[\(tool)],\"tool_choice\":\"required\",\"response_format\":{\"type\":\"json_object\"}}",
        400, "tool_choice"
      ),
      (
        chat,
        "{\(messages),\"tools\":[\(tool.replacing("\"f\"", with: "\"f\",\"parameters\":{\"not\":{}}"))],\"tool_choice\":\"required\"}",
        400, "tools"
      ),
      (
        chat,
        "{\(messages),\"tools\":[\(tool)],\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}}",
        400, "tool_choice"
      ),
      (chat, "{\(messages),\"tools\":[\(tool),\(tool)]}", 400, "tools"),
      (
        chat, "{\(messages),\"tools\":[\(tool.replacing("\"f\"", with: "\"f\",\"strict\":5"))]}",
        400, "tools"
      ),
      (
        chat, "{\(messages),\"tools\":[\(tool.replacing("\"f\"", with: "\"f\",\"more\":1"))]}", 400,
        "tools"
      ),
      (chat, "{\(messages),\"parallel_tool_calls\":1}", 400, "parallel_tool_calls"),
      (chat, "{\(messages),\"reasoning_format\":\"other\"}", 400, "reasoning_format"),
      (
        chat, #"{"messages":[{"role":"user","content":"a"},{"role":"tool","content":5}]}"#, 400,
        "messages"
      ),
      (
        chat,
        "{\(messages),\"tools\":[\(tool)],\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\",\"x\":1}}}",
        400, "tool_choice"
      ),
      (
        chat, "{\(messages),\"response_format\":{\"type\":\"json_schema\"}}", 400, "response_format"
      ),
      (chat, "{\(messages),\"top_logprobs\":1}", 400, "top_logprobs"),
      (
        chat, "{\(messages),\"max_tokens\":1,\"max_completion_tokens\":2}", 400,
        "max_completion_tokens"
      ),
      (chat, #"{"messages":[]}"#, 400, "messages"), (chat, #"{"messages":5}"#, 400, "messages"),
      (chat, #"{"messages":[{"role":"user"}]}"#, 400, "messages"),
      (
        chat, #"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#, 400,
        "messages[0].content"
      ),
      (completions, #"{"prompt":"a","prompt":"b"}"#, 400, "prompt"),
      (
        chat, #"{"messages":[{"role":"user","role":"system","content":"a"}]}"#, 400, "messages"
      ),
      (
        chat,
        "{\(messages),\"tools\":[\(tool.replacing("\"f\"", with: "\"f\",\"parameters\":{\"a\":1,\"a\":1}"))]}",
        400, "tools"
      ),
      (
        chat,
        #"{"messages":[{"role":"user","content":"a"},{"role":"tool","tool_call_id":"1","content":"b"}]}"#,
        400, "messages"
      ),
      (
        chat,
        #"{"messages":[{"role":"tool","tool_call_id":"1","content":"b"},{"role":"assistant","tool_calls":"#
          + #"[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]}]}"#,
        400, "messages"
      ),
      ("/tokenize", "{}", 400, "content"), ("/detokenize", #"{"tokens":[320]}"#, 400, "tokens"),
      ("/apply-template", #"{"messages":[{}]}"#, 400, "messages"), ("/nothing", "{}", 404, nil),
    ]
  }()

  @Test func `What cannot be answered is refused with the field at fault`() async throws {
    try await ServerRig.serving { rig in
      for (path, body, status, field) in Self.refused {
        let reply = try await rig.post(path, body)
        #expect(reply.status == status, "\(path) \(body): \(reply.text)")
        let error = try JSONValue.parsed(reply.text)["error"]
        #expect(error?["param"]?.string == field, "\(path) \(body): \(reply.text)")
        #expect(error?["message"]?.string?.isEmpty == false)
        #expect(error?["type"]?.string == "invalid_request_error")
        if field == "seed" { #expect(reply.text.contains("a whole number from 0 to \(Int.max)")) }
      }
      #expect(rig.engine.statistics().openCount == 0)
    }
  }

  @Test func `A grammar of too many readings is the fault of its request`() async throws {
    try await ServerRig.serving { rig in
      let reply = try await rig.post(
        "/v1/completions",
        #"{"prompt":"a","max_tokens":3,"grammar":"root ::= \"x\" | (\"a\"?){60000} \"b\""}"#)
      let error = try JSONValue.parsed(reply.text)["error"]
      #expect(reply.status == 400 && error?["code"]?.string == "invalid_grammar", "\(reply.text)")
    }
  }

  @Test func `What changes nothing is taken`() async throws {
    try await ServerRig.serving { rig in
      let body = """
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "max_tokens": 1,
         "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "tools": [{"type": "function", "function": {"name": "f", "parameters": {"\u{E9}": 1, "e\u{301}": 2}}}], "user": "me",
         "response_format": {"type": "text"}, "store": false, "seed": null, "stop": null, "n": 1,
         "tool_choice": "none", "parallel_tool_calls": true, "service_tier": "auto", "verbosity": null}
        """
      let reply = try await rig.post("/v1/chat/completions", body)
      #expect(reply.status == 200, "\(reply.text)")
    }
  }

  @Test func `A limit beyond the context ends where the context does`() async throws {
    try await ServerRig.serving(contextLength: 64) { rig in
      let body = #"{"prompt":[5,6],"max_tokens":9223372036854775807,"ignore_eos":true}"#
      let reply = try await rig.post("/v1/completions", body)
      let json = try JSONValue.parsed(reply.text)
      #expect(reply.status == 200, "\(reply.text)")
      #expect(json["choices"]?.array?.first?["finish_reason"]?.string == "length")
      #expect(json["usage"]?["completion_tokens"]?.integer == 62)
    }
  }

  @Test func `Which element of a list is wrong is told`() async throws {
    try await ServerRig.serving { rig in
      for (prompt, what) in [
        (#"["a",5]"#, "'prompt[1]' is none of them"), (#"["a",""]"#, "'prompt[1]' is empty"),
        (#"[1,2,"a"]"#, "'prompt[2]' is no token id"), ("[[1],[]]", "'prompt[1]' is empty"),
        ("[]", "it is empty"), (#""""#, "it is empty"), ("5", "it is 5"),
      ] {
        let reply = try await rig.post("/v1/completions", "{\"prompt\":\(prompt)}")
        #expect(reply.status == 400 && reply.text.contains(what), "\(prompt): \(reply.text)")
      }
    }
  }

  @Test func `A prompt that is too long says how long it may be`() async throws {
    try await ServerRig.serving(contextLength: 64) { rig in
      let tokens = (0..<64).map { _ in "5" }.joined(separator: ",")
      let reply = try await rig.post("/v1/completions", "{\"prompt\":[\(tokens)]}")
      #expect(reply.status == 400 && reply.text.contains("has room for 63"), "\(reply.text)")
      let shorter = try await rig.post("/v1/completions", "{\"prompt\":[\(tokens.dropLast(2))]}")
      #expect(shorter.status == 200 && shorter.text.contains("\"completion_tokens\":1"))
    }
  }

  @Test func `A body that is too long is refused, whether it says so or not`() async throws {
    try await ServerRig.serving {
      $0.bodyByteCount = 1 << 16
    } _: { rig in
      let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
      let chunk = "8000\r\n" + String(repeating: " ", count: 0x8000) + "\r\n"
      for rest in [
        "Content-Length: 99999999\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n" + chunk + chunk + chunk,
      ] {
        // The server waits for the rest of the body before it closes.
        let reply = try await HTTPClient.leave(after: head + rest, rig.port) {
          $0.contains("\r\n\r\n")
        }
        #expect(reply.status == 413)
      }
      #expect(try await rig.get("/health").status == 200)
    }
  }

  @Test func `Brackets of any depth are refused without a deep stack`() async throws {
    try await ServerRig.serving { rig in
      let (open, close) = (
        String(repeating: "[", count: 500_000), String(repeating: "]", count: 500_000)
      )
      for value in [open + close, open] {
        let reply = try await rig.post("/v1/chat/completions", "{\"messages\":\(value)}")
        #expect(reply.status == 400)
      }
    }
  }

  /// A request whose head is whole is answered; one whose head is not may end in any way.
  @Test(
    arguments: [
      ("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n", 408),
      ("POST /v1/completions HT", nil),
    ] as [(String, Int?)])
  func `A request that does not come in time is not waited for`(
    start: String, status: Int?
  ) async throws {
    try await ServerRig.serving {
      $0.requestSeconds = 1
      // Of a head that does not end only this limit is known.
      if status == nil { $0.idleSeconds = 1 }
    } _: { rig in
      let reply = try await HTTPClient.dripping(start, rig.port)
      if let status { #expect(reply.status == status) }
      // On a machine that is busy the limit may be over for this one too.
      while (try? await rig.get("/health").status) != 200 {}
    }
  }

  @Test func `What is no HTTP is refused`() async throws {
    try await ServerRig.serving { rig in
      let headers = (0..<2000).map { "X-\($0): y\r\n" }.joined()
      for text in ["\u{16}\u{3}\u{1} TLS?\r\n\r\n", "GET / HTTP/1.1\r\n\(headers)\r\n"] {
        let reply = try await HTTPClient.exchange(text, rig.port)
        #expect(reply.status == 400 || reply.status == 0, "\(reply)")
      }
      #expect(try await rig.get("/health").status == 200)
    }
  }
}
