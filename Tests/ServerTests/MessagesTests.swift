import ModelFormat
import Runtime
import Server
import TestSupport
import Testing
import Tokenization

/// Anthropic's interface: the same conversations in other words.
@Suite struct MessagesTests {
  /// Shows all that a template can be given of a conversation.
  private static let template =
    "{% if tools %}<tools>{{ tools | tojson }}{% endif %}{% for m in messages %}<{{ m.role }}>"
    + "{% if m.content is string %}{{ m.content }}{% else %}{{ m.content | tojson }}{% endif %}"
    + "{{ m.reasoning_content }}{{ m.tool_calls | tojson if m.tool_calls }}{{ m.tool_call_id }}{{ m.name }}"
    + "{% endfor %}{{ '(thinking)' if enable_thinking }}"

  private static func tokenCount(_ rig: ServerRig, _ fields: String) async throws -> Int {
    let reply = try await rig.post("/v1/messages/count_tokens", "{\(fields)}")
    #expect(reply.status == 200, "\(reply.text)")
    return try JSONValue.parsed(reply.text)["input_tokens"]?.integer ?? -1
  }

  /// Fields of Anthropic's interface, and the same in those of OpenAI's.
  private static let pairs: [(String, String)] = [
    (
      #""messages":[{"role":"user","content":"the an"}]"#,
      #""messages":[{"role":"user","content":"the an"}]"#
    ),
    (
      #""system":"be","messages":[{"role":"user","content":[{"type":"text","text":"the an"}]}]"#,
      #""messages":[{"role":"system","content":"be"},{"role":"user","content":"the an"}]"#
    ),
    (
      #""system":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}},{"type":"text","text":"b"}],"#
        + #""messages":[{"role":"user","content":"c"},{"role":"assistant","content":"d"},{"role":"user","content":"e"}]"#,
      #""messages":[{"role":"system","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},"#
        + #"{"role":"user","content":"c"},{"role":"assistant","content":"d"},{"role":"user","content":"e"}]"#
    ),
    (
      #""tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}],"#
        + #""messages":[{"role":"user","content":"q"},{"role":"assistant","content":["#
        + #"{"type":"thinking","thinking":"so","signature":""},{"type":"text","text":"I call"},"#
        + #"{"type":"tool_use","id":"1","name":"f","input":{"x":[1,2.5]}}]},"#
        + #"{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":[{"type":"text","text":"r"}]},"#
        + #"{"type":"text","text":"go on"}]}]"#,
      #""tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}],"#
        + #""messages":[{"role":"user","content":"q"},{"role":"assistant","content":"I call","reasoning_content":"so","#
        + #""tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":{"x":[1,2.5]}}}]},"#
        + #"{"role":"tool","tool_call_id":"1","content":"r","name":"f"},{"role":"user","content":"go on"}]"#
    ),
    (
      #""thinking":{"type":"adaptive","display":"summarized"},"messages":[{"role":"user","content":"q"}]"#,
      #""chat_template_kwargs":{"enable_thinking":true},"messages":[{"role":"user","content":"q"}]"#
    ),
    (
      #""tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"none"},"messages":[{"role":"user","content":"q"}]"#,
      #""messages":[{"role":"user","content":"q"}]"#
    ),
  ]

  @Test func `A conversation in either interface has the same tokens and answer`() async throws {
    let template = try ChatTemplate(Self.template)
    try await ServerRig.serving(contextLength: 2048) {
      $0.chatTemplate = template
    } _: { rig in
      for (own, other) in Self.pairs {
        let options = #""max_tokens":12,"seed":7,"ignore_eos":true"#
        let message = try await rig.post("/v1/messages", "{\(own),\(options)}")
        let chat = try await rig.post("/v1/chat/completions", "{\(other),\(options)}")
        let (json, chatJSON) = (
          try JSONValue.parsed(message.text), try JSONValue.parsed(chat.text)
        )
        let text = chatJSON["choices"]?.array?.first?["message"]?["content"]?.string
        #expect(
          json["content"]?.array?.first?["text"]?.string == text && text != nil, "\(message.text)")
        let count = chatJSON["usage"]?["prompt_tokens"]?.integer
        #expect(json["usage"]?["input_tokens"]?.integer == count)
        #expect(try await Self.tokenCount(rig, own) == count)
      }
    }
  }

  @Test func `Whether the model thinks is for its template, and refused where that cannot`()
    async throws
  {
    let (wanted, unwanted) = (
      #"{"type":"enabled","budget_tokens":1024}"#, #"{"type":"disabled"}"#
    )
    let thinks = "{% if enable_thinking %}<think>{% endif %}"
    for (ending, taken, refused) in [
      ("", [unwanted], wanted), ("<think>", [wanted], unwanted), (thinks, [wanted, unwanted], nil),
      // Marks of earlier thoughts alone: what the model does is not known.
      ("{{ '<think>' if false }}", [wanted, unwanted], nil),
    ] as [(String, [String], String?)] {
      let template = try ChatTemplate("{{ messages[0].content }}" + ending)
      try await ServerRig.serving {
        $0.chatTemplate = template
      } _: { rig in
        func ask(_ thinking: String) async throws -> HTTPReply {
          let fields =
            #""max_tokens":1025,"stop_sequences":["e","a","t"],"thinking":\#(thinking)"#
          return try await rig.post(
            "/v1/messages", #"{"messages":[{"role":"user","content":"a"}],\#(fields)}"#)
        }
        for thinking in taken + [#"{"type":"adaptive"}"#] {
          let reply = try await ask(thinking)
          #expect(reply.status == 200, "\(ending) \(thinking): \(reply.text)")
        }
        guard let refused else { return }
        let reply = try await ask(refused)
        #expect(reply.status == 400 && reply.text.contains("'thinking'"), "\(reply.text)")
      }
    }
    let template = try ChatTemplate("{{ thinking_budget }}{{ '<think>' }}")
    try await ServerRig.serving(contextLength: 2048) {
      $0.chatTemplate = template
    } _: { rig in
      let counts = try await [1024, 100_000].asyncMap { budget in
        try await Self.tokenCount(
          rig,
          #""messages":[{"role":"user","content":"a"}],"thinking":{"type":"enabled","budget_tokens":\#(budget)}"#
        )
      }
      #expect(counts[0] != counts[1])
    }
  }

  @Test func `A stream has its events in order, and says at its end what it took`() async throws {
    try await ServerRig.serving { rig in
      let body =
        #"{"messages":[{"role":"user","content":"the"}],"max_tokens":6,"ignore_eos":true,"stream":true}"#
      let reply = try await rig.post("/v1/messages", body)
      #expect(reply.headers["content-type"] == "text/event-stream")
      #expect(reply.text.hasPrefix(": ping\n\n"))
      let events = try reply.events.map { try JSONValue.parsed($0) }
      var types = events.compactMap { $0["type"]?.string }
      let names = reply.text.split(separator: "\n").filter { $0.hasPrefix("event: ") }
      #expect(names.map { String($0.dropFirst(7)) } == types)
      types.removeAll { ["ping", "content_block_delta"].contains($0) }
      #expect(
        types == [
          "message_start", "content_block_start", "content_block_stop", "message_delta",
          "message_stop",
        ])
      let end = try #require(events.first { $0["type"]?.string == "message_delta" })
      #expect(end["usage"]?["output_tokens"]?.integer == 6)
      #expect(end["delta"]?["stop_reason"]?.string == "max_tokens")
      let start = events.first { $0["type"]?.string == "message_start" }?["message"]
      #expect(start?["usage"]?["input_tokens"]?.integer == end["usage"]?["input_tokens"]?.integer)
    }
  }

  @Test func `What a store has of a prompt is counted apart`() async throws {
    let folder = TemporaryFolder()
    try await ServerRig.serving(store: Engine.Store(path: folder.path)) { rig in
      let text = String(repeating: "the an on ", count: 20)
      let messages = "\"messages\":[{\"role\":\"user\",\"content\":\"\(text)\"}]"
      let count = try await Self.tokenCount(rig, messages)
      var cached: [Int] = []
      // The store keeps what ended while nothing is to be answered.
      while cached.isEmpty || (cached.last == 0 && cached.count < 1000) {
        let streams = cached.count % 2 == 1
        let reply = try await rig.post(
          "/v1/messages", "{\(messages),\"max_tokens\":2,\"stream\":\(streams)}")
        let last = streams ? reply.events.dropLast().last ?? "" : reply.text
        let usage = try #require(try JSONValue.parsed(last)["usage"])
        cached.append(usage["cache_read_input_tokens"]?.integer ?? -1)
        #expect((usage["input_tokens"]?.integer ?? 0) + (cached.last ?? 0) == count)
      }
      #expect(cached.first == 0 && cached.last ?? 0 > 0, "\(cached)")
    }
  }

  @Test func `Models are told of as the client's interface has them`() async throws {
    try await ServerRig.serving { rig in
      func get(_ path: String, _ fields: [String]) async throws -> (Int, JSONValue) {
        let reply = try await HTTPClient.exchange(HTTPClient.head("GET \(path)", fields), rig.port)
        return (reply.status, try JSONValue.parsed(reply.text))
      }
      let version = ["anthropic-version: 2023-06-01"]
      let (_, list) = try await get("/v1/models", version)
      let (_, one) = try await get("/v1/models/tiny", version)
      for model in [list["data"]?.array?.first, one] {
        #expect(model?["id"]?.string == "tiny" && model?["type"]?.string == "model")
        #expect(model?["display_name"]?.string == "tiny" && model?["object"] == nil)
        let time = try #require(model?["created_at"]?.string)
        #expect(time.wholeMatch(of: /20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ/) != nil, "\(time)")
      }
      #expect(list["has_more"]?.bool == false && list["last_id"]?.string == "tiny")
      let (status, missing) = try await get("/v1/models/other", version)
      #expect(status == 404 && missing["error"]?["type"]?.string == "not_found_error")
      #expect(missing["type"]?.string == "error")
      let (_, other) = try await get("/v1/models", [])
      #expect(other["data"]?.array?.first?["object"]?.string == "model")
      #expect(try await get("/v1/models/other", []).1["type"] == nil)
    }
  }

  @Test func `An output's form and effort are honoured, or refused where there is no place`()
    async throws
  {
    let template = try ChatTemplate(Self.template + "{{ reasoning_effort }}")
    let start = #"{"messages":[{"role":"user","content":"q"}],"max_tokens":60,"seed":3,"#
    for knows in [true, false] {
      try await ServerRig.serving {
        if knows { $0.chatTemplate = template }
      } _: { rig in
        let form = #""format":{"type":"json_schema","schema":{"enum":["ab","cd"]}}"#
        let reply = try await rig.post(
          "/v1/messages", start + "\"output_config\":{\(form),\"effort\":\"high\"}}")
        let answer = try JSONValue.parsed(reply.text)
        let text = answer["content"]?.array?.first?["text"]?.string
        #expect(["\"ab\"", "\"cd\""].contains(text), "\(reply.text)")
        let low = try await rig.post(
          "/v1/messages", start + #""output_config":{"effort":"low"}}"#)
        #expect(low.status == (knows ? 200 : 400), "\(low.text)")
        #expect(knows || low.text.contains("output_config.effort"))
        if knows {
          let counts = try await [#","output_config":{"effort":"low"}"#, ""].asyncMap { more in
            try await Self.tokenCount(rig, #""messages":[{"role":"user","content":"q"}]"# + more)
          }
          #expect(counts[0] > counts[1])
        }
        for wrong in [
          #"{"effort":"huge"}"#, #"{"more":1}"#, #"{"format":{"type":"json_schema"}}"#, "5",
        ] {
          let reply = try await rig.post("/v1/messages", start + "\"output_config\":\(wrong)}")
          #expect(reply.status == 400 && reply.text.contains("output_config"), "\(reply.text)")
        }
      }
    }
  }

  /// Fields beside a message and a limit, and a word of the answer.
  private static let refused: [(String, String)] = [
    (#""nonsense":1"#, "nonsense"), (#""stop":["a"]"#, "stop"),
    (#""stop_sequences":[1]"#, "stop_sequences"), (#""stop_sequences":"a""#, "a list of at most"),
    (#""n":2"#, "'n'"), (#""top_k":-1"#, "top_k"), (#""system":5"#, "system"),
    (#""system":[{"type":"image"}]"#, "image"), (#""tools":{}"#, "tools"),
    (#""tools":[{}]"#, "tools[0]"),
    (#""tools":[{"name":"f","type":"web_search_20250305"}]"#, "tools[0]"),
    (#""tools":[{"name":"f","input_schema":{},"strict":1}]"#, "strict"),
    (#""tools":[{"name":"f","more":1}]"#, "more"),
    (#""tool_choice":{"type":"any"}"#, "tool_choice"),
    (#""tool_choice":{"type":"tool","name":"f"}"#, "tool_choice"),
    (#""tool_choice":{"type":"tool"},"tools":[{"name":"f","input_schema":{}}]"#, "tool_choice"),
    (#""tool_choice":"auto""#, "tool_choice"),
    (#""tool_choice":{"type":"auto","disable_parallel_tool_use":1}"#, "disable_parallel_tool_use"),
    (#""thinking":{"type":"deep"}"#, "thinking"),
    (#""thinking":{"type":"enabled","more":1}"#, "more"),
    (#""thinking":{"type":"enabled"}"#, "budget_tokens"),
    (#""thinking":{"type":"enabled","budget_tokens":1023},"max_tokens":4096"#, "from 1024"),
    (#""thinking":{"type":"enabled","budget_tokens":4096},"max_tokens":4096"#, "max_tokens"),
    (#""thinking":{"type":"enabled","budget_tokens":1024.5},"max_tokens":4096"#, "budget_tokens"),
    (#""thinking":{"type":"disabled","budget_tokens":1024}"#, "budget_tokens"),
    (#""thinking":{"type":"adaptive","display":"omitted"}"#, "display"),
    // The template of this model has no thoughts.
    (#""thinking":{"type":"enabled","budget_tokens":1024},"max_tokens":4096"#, "does not think"),
    (#""metadata":{"more":1}"#, "more"), (#""service_tier":"fast""#, "service_tier"),
    (#""container":"c""#, "container"), (#""max_tokens":0"#, "max_tokens"),
  ]
  private static let refusedMessages: [(String, String)] = [
    ("5", "messages"), ("[]", "messages"), ("[5]", "messages[0]"),
    (#"[{"role":"user"}]"#, "content"),
    (#"[{"role":"other","content":"a"}]"#, "role"), (#"[{"role":"user","content":[]}]"#, "empty"),
    (#"[{"role":"user","content":"a","more":1}]"#, "more"),
    (#"[{"role":"user","content":5}]"#, "content"),
    (#"[{"role":"user","content":[{"type":"image","source":{}}]}]"#, "image"),
    (#"[{"role":"user","content":[{"type":"text"}]}]"#, "text"),
    (#"[{"role":"user","content":[{"type":"text","text":"a","more":1}]}]"#, "more"),
    (#"[{"role":"user","content":[{"type":"tool_result"}]}]"#, "tool_use_id"),
    (
      #"[{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","is_error":{}}]}]"#,
      "is_error"
    ),
    (#"[{"role":"user","content":[{"type":"tool_result","tool_use_id":"no"}]}]"#, "call 'no'"),
    (
      #"[{"role":"assistant","content":[{"type":"tool_use","id":"1","name":5,"input":{}}]},{"role":"user","content":"a"}]"#,
      "name"
    ),
    (
      #"[{"role":"assistant","content":[{"type":"thinking","thinking":5}]},{"role":"user","content":"a"}]"#,
      "thinking"
    ),
    (#"[{"role":"user","content":"a","more":null}]"#, "more"),
    (#"[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]"#, "assistant"),
    (
      #"[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"tool_use","id":"1"}]},{"role":"user","content":"a"}]"#,
      "input"
    ),
    (#"[{"role":"user","content":"\ud800"}]"#, "content"),
  ]

  @Test func `What cannot be answered is told in the interface's own form`() async throws {
    try await ServerRig.serving { rig in
      let message = #"[{"role":"user","content":"a"}]"#
      var bodies = Self.refused.map { fields, word in
        let limit = fields.contains("max_tokens") ? "" : ",\"max_tokens\":5"
        return ("{\"messages\":\(message),\(fields)\(limit)}", word)
      }
      bodies += Self.refusedMessages.map { ("{\"messages\":\($0),\"max_tokens\":5}", $1) }
      bodies += [("", ""), ("[]", "object"), ("{\"messages\":\(message)}", "max_tokens")]
      for (body, word) in bodies {
        let reply = try await rig.post("/v1/messages", body)
        let json = try JSONValue.parsed(reply.text)
        #expect(reply.status == 400 && json["type"]?.string == "error", "\(body): \(reply.text)")
        #expect(json["error"]?["type"]?.string == "invalid_request_error")
        #expect(json["error"]?["message"]?.string?.contains(word) == true, "\(body): \(reply.text)")
      }
      for (body, status, type) in [
        ("{\"messages\":\(message),\"max_tokens\":5,\"model\":\"other\"}", 404, "not_found_error"),
        (
          "{\"messages\":\(message),\"max_tokens\":5,\"mcp_servers\":[],\"metadata\":{\"user_id\":\"me\"}}",
          200, nil
        ),
      ] as [(String, Int, String?)] {
        let reply = try await rig.post("/v1/messages", body)
        #expect(reply.status == status, "\(reply.text)")
        #expect(try JSONValue.parsed(reply.text)["error"]?["type"]?.string == type)
      }
      let counted = try await rig.post(
        "/v1/messages/count_tokens", "{\"messages\":\(message),\"max_tokens\":5}")
      #expect(counted.status == 400 && counted.text.contains("max_tokens"))
      #expect(rig.engine.statistics().openCount == 0)
    }
  }
}
