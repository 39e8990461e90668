import ModelFormat
import Runtime
import Server
import TestSupport
import Testing
import Tokenization

/// OpenAI's interface of responses: the same conversations in other words, and such as go on from kept tokens.
@Suite struct ResponsesTests {
  /// Shows all that a template can be given of a conversation, and ends answers with a token.
  private static let template =
    "{% if tools %}<tools>{{ tools | tojson }}{% endif %}{% for m in messages %}<{{ m.role }}>"
    + "{% if m.content is string %}{{ m.content }}{% else %}{{ m.content | tojson }}{% endif %}"
    + "{{ m.reasoning_content }}{{ m.tool_calls | tojson if m.tool_calls }}{{ m.tool_call_id }}{{ m.name }}"
    + "{{ '<|endoftext|>' if m.role == 'assistant' }}\n{% endfor %}{{ verbosity }}{{ reasoning_effort }}"
    + "{% if add_generation_prompt %}<assistant>{% endif %}"

  private static func parsed(_ reply: HTTPReply) throws -> JSONValue {
    #expect(reply.status == 200, "\(reply.text)")
    return try JSONValue.parsed(reply.text)
  }

  /// The texts of a response's items of a type.
  private static func texts(_ response: JSONValue?, _ type: String = "message") -> [String] {
    (response?["output"]?.array ?? []).filter { $0["type"]?.string == type }.flatMap { item in
      (item["content"]?.array ?? []).compactMap { $0["text"]?.string }
    }
  }

  /// Fields of this interface, and the same in those of chats.
  private static let pairs: [(String, String)] = [
    (#""input":"the an""#, #""messages":[{"role":"user","content":"the an"}]"#),
    (
      #""instructions":"be","input":[{"role":"user","content":[{"type":"input_text","text":"the an"}]}]"#,
      #""messages":[{"role":"system","content":"be"},{"role":"user","content":"the an"}]"#
    ),
    (
      #""input":[{"type":"message","role":"developer","content":"a"},{"role":"user","content":["#
        + #"{"type":"input_text","text":"b"},{"type":"input_text","text":"c"}]}],"text":{"verbosity":"low"}"#,
      #""messages":[{"role":"developer","content":"a"},{"role":"user","content":["#
        + #"{"type":"text","text":"b"},{"type":"text","text":"c"}]}],"verbosity":"low""#
    ),
    (
      #""tools":[{"type":"function","name":"f","description":"d","parameters":{"type":"object"},"strict":null}],"#
        + #""input":[{"role":"user","content":"q"},"#
        + #"{"type":"reasoning","id":"r1","summary":[],"content":[{"type":"reasoning_text","text":"so"}]},"#
        + #"{"type":"message","id":"m1","status":"completed","role":"assistant","content":["#
        + #"{"type":"output_text","text":"I call","annotations":[],"logprobs":[]}]},"#
        + #"{"type":"function_call","id":"c1","call_id":"1","name":"f","arguments":"{\"x\":[1,2.5]}"},"#
        + #"{"type":"function_call_output","call_id":"1","output":"r"},"#
        + #"{"role":"user","content":"go on"}],"reasoning":{"effort":"high"}"#,
      #""tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}],"#
        + #""messages":[{"role":"user","content":"q"},{"role":"assistant","content":"I call","reasoning_content":"so","#
        + #""tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"x\":[1,2.5]}"}}]},"#
        + #"{"role":"tool","tool_call_id":"1","content":"r","name":"f"},{"role":"user","content":"go on"}],"#
        + #""reasoning_effort":"high""#
    ),
    (
      #""tools":[{"type":"function","name":"f"}],"tool_choice":"none","input":"q""#,
      #""messages":[{"role":"user","content":"q"}]"#
    ),
  ]

  @Test func `A conversation in either interface has the same tokens and answer`() async throws {
    let template = try ChatTemplate(Self.template)
    try await ServerRig.serving(contextLength: 2048) {
      $0.chatTemplate = template
    } _: { rig in
      for (own, other) in Self.pairs {
        let options = #""seed":7,"ignore_eos":true"#
        let response = try Self.parsed(
          try await rig.post("/v1/responses", "{\(own),\(options),\"max_output_tokens\":12}"))
        let chat = try Self.parsed(
          try await rig.post("/v1/chat/completions", "{\(other),\(options),\"max_tokens\":12}"))
        let text = chat["choices"]?.array?.first?["message"]?["content"]?.string
        #expect(Self.texts(response) == [text], "\(own)")
        let count = chat["usage"]?["prompt_tokens"]?.integer
        #expect(response["usage"]?["input_tokens"]?.integer == count && count != nil)
        let counted = try Self.parsed(
          try await rig.post("/v1/responses/input_tokens", "{\(own)}"))
        #expect(counted["input_tokens"]?.integer == count)
        #expect(response["status"]?.string == "incomplete")
        #expect(response["incomplete_details"]?["reason"]?.string == "max_output_tokens")
      }
    }
  }

  @Test func `A stream has the documented events, and ends with the response as it is kept`()
    async throws
  {
    try await ServerRig.serving { rig in
      let body =
        #""input":"the","max_output_tokens":6,"ignore_eos":true,"seed":3,"top_logprobs":2,"#
        + #""include":["message.output_text.logprobs"],"metadata":{"a":"b"}"#
      let reply = try await rig.post("/v1/responses", "{\(body),\"stream\":true}")
      #expect(reply.headers["content-type"] == "text/event-stream")
      #expect(reply.text.hasPrefix(": ping\n\n") && reply.text.contains(": reading, "))
      let events = try reply.events.map { try JSONValue.parsed($0) }
      let types = events.compactMap { $0["type"]?.string }
      let names = reply.text.split(separator: "\n").filter { $0.hasPrefix("event: ") }
      #expect(names.map { String($0.dropFirst(7)) } == types)
      #expect(events.compactMap { $0["sequence_number"]?.integer } == Array(events.indices))
      #expect(
        types.filter { $0 != "response.output_text.delta" } == [
          "response.created", "response.in_progress", "response.output_item.added",
          "response.content_part.added", "response.output_text.done",
          "response.content_part.done", "response.output_item.done", "response.incomplete",
        ])
      let end = try #require(events.last?["response"])
      let deltas = events.filter { $0["type"]?.string == "response.output_text.delta" }
      let text = deltas.compactMap { $0["delta"]?.string }.joined()
      #expect(Self.texts(end) == [text] && !text.isEmpty)
      let probabilities = deltas.flatMap { $0["logprobs"]?.array ?? [] }
      #expect(probabilities.count == 6)
      #expect(probabilities.allSatisfy { $0["top_logprobs"]?.array?.count == 2 })
      let part = end["output"]?.array?.first?["content"]?.array?.first
      #expect(part?["logprobs"]?.array?.count == 6)
      #expect(end["usage"]?["output_tokens"]?.integer == 6)
      #expect(end["metadata"]?["a"]?.string == "b")
      let id = try #require(end["id"]?.string)
      let kept = try Self.parsed(try await rig.get("/v1/responses/\(id)"))
      #expect(kept["id"]?.string == id && Self.texts(kept) == [text])
      #expect(events.first?["response"]?["id"]?.string == id)
      let whole = try Self.parsed(try await rig.post("/v1/responses", "{\(body)}"))
      #expect(Self.texts(whole) == [text] && whole["id"]?.string != id)
    }
  }

  // MARK: What is gone on from

  /// Tokens that the engine draws after a prompt.
  private static func answer(_ rig: ServerRig, _ tokens: [Int32], seed: UInt64) throws -> [Int32] {
    let sequence = try rig.engine.open(
      SequenceRequest(tokens: tokens, limit: 12, sampling: SamplingOptions(seed: seed)),
      whenFull: .queue)
    var drawn: [Int32] = []
    while let event = sequence.next() {
      if case .token(let id, _, _) = event { drawn.append(id) }
    }
    return drawn
  }

  @Test(arguments: ["<|endoftext|>", "", "\n"])
  func `A response goes on from the tokens of the one before`(end: String) async throws {
    let template = try ChatTemplate(
      "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ '\(end)' if m.role == 'assistant' }}"
        + "<<{% endfor %}<assistant>")
    try await ServerRig.serving(contextLength: 512) {
      $0.chatTemplate = template
    } _: { rig in
      let model = try rig.model()
      var tokens = try model.prompt(
        Conversation([ChatMessage(role: .user, "the an")]), template: template)
      var (previous, isOtherwise) = ("", false)
      var messages: [ChatMessage] = []
      for turn in 1...4 {
        let own = turn == 1 ? #""input":"the an""# : #""input":"more",\#(previous)"#
        let response = try Self.parsed(
          try await rig.post(
            "/v1/responses", "{\(own),\"seed\":\(turn),\"max_output_tokens\":12,\"stream\":false}"))
        #expect(response["usage"]?["input_tokens"]?.integer == tokens.count)
        let drawn = try Self.answer(rig, tokens, seed: UInt64(turn))
        var (text, bytes) = (AnswerText(model.tokenizer), [UInt8]())
        for token in drawn { text.append(token, to: &bytes) }
        text.finish(&bytes)
        #expect(Self.texts(response) == [String(decoding: bytes, as: UTF8.self)])
        messages.append(ChatMessage(role: .user, turn == 1 ? "the an" : "more"))
        messages.append(ChatMessage(role: .assistant, String(decoding: bytes, as: UTF8.self)))
        isOtherwise = try isOtherwise || model.tokenizer.encode(bytes) != drawn
        tokens += drawn
        tokens += try model.tokenizer.encode(
          Array("\(end)<<<user>more<<<assistant>".utf8), parseSpecial: true)
        previous = "\"previous_response_id\":\"\(response["id"]?.string ?? "")\""
      }
      // What the model wrote would have other tokens if it were read again.
      #expect(isOtherwise)
      // With other instructions the beginning is another: all of it is framed anew.
      messages.append(ChatMessage(role: .user, "more"))
      let anew = try model.prompt(
        Conversation([ChatMessage(role: .system, "a")] + messages), template: template)
      for (more, count) in [("", tokens.count), (#","instructions":"a""#, anew.count)] {
        let reply = try await rig.post(
          "/v1/responses/input_tokens", #"{"input":"more",\#(previous)\#(more)}"#)
        #expect(try Self.parsed(reply)["input_tokens"]?.integer == count)
      }
    }
  }

  @Test func `A response that is not kept is told to be missing, by its name`() async throws {
    try await ServerRig.serving {
      $0.keptResponseByteCount = 8 << 10
    } _: { rig in
      func ask(_ more: String) async throws -> HTTPReply {
        try await rig.post("/v1/responses", "{\"input\":\"the\",\"max_output_tokens\":1\(more)}")
      }
      func id(_ more: String = "") async throws -> String {
        try Self.parsed(try await ask(more))["id"]?.string ?? ""
      }
      func expectMissing(_ id: String) async throws {
        let next = try await ask(",\"previous_response_id\":\"\(id)\"")
        let error = try JSONValue.parsed(next.text)["error"]
        #expect(next.status == 404 && error?["param"]?.string == "previous_response_id")
        #expect(error?["message"]?.string?.contains(id) == true, "\(next.text)")
        #expect(try await rig.get("/v1/responses/\(id)").status == 404)
        #expect(try await rig.delete("/v1/responses/\(id)").status == 404)
      }
      try await expectMissing("resp_none")
      try await expectMissing(try await id(",\"store\":false"))
      let deleted = try await id()
      let reply = try Self.parsed(try await rig.delete("/v1/responses/\(deleted)"))
      #expect(reply["deleted"]?.bool == true && reply["id"]?.string == deleted)
      try await expectMissing(deleted)
      // Others take its room, unless it is used.
      let (oldest, used) = (try await id(), try await id())
      for _ in 0..<8 {
        _ = try await id()
        #expect(try await rig.get("/v1/responses/\(used)").status == 200)
      }
      try await expectMissing(oldest)
      #expect(try await rig.get("/v1/responses/\(used)?stream=true").status == 400)
      #expect(try await rig.delete("/v1/responses/\(used)?force=true").status == 400)
      #expect(try await rig.get("/v1/responses/\(used)").status == 200)
      for _ in 0..<40 { #expect(try await id().utf8.count == "resp_".utf8.count + 32) }
    }
  }

  // MARK: Parts

  @Test func `Calls are items, whole and streamed, and their results go on from them`()
    async throws
  {
    let template = try ChatTemplate(Self.template.replacing("{{ m.reasoning_content }}", with: ""))
    let tools =
      #""tools":[{"type":"function","name":"f","strict":true,"parameters":{"type":"object","#
      + #""properties":{"x":{"enum":["ab"]}},"required":["x"],"additionalProperties":false}}]"#
    try await ServerRig.serving(contextLength: 2048) {
      $0.chatTemplate = template
    } _: { rig in
      for choice in [#""required""#, #"{"type":"function","name":"f"}"#] {
        let body =
          "\"input\":\"the\",\(tools),\"tool_choice\":\(choice),\"seed\":4,\"parallel_tool_calls\":false"
        let whole = try Self.parsed(try await rig.post("/v1/responses", "{\(body)}"))
        let call = try #require(whole["output"]?.array?.first)
        #expect(call["type"]?.string == "function_call" && call["name"]?.string == "f")
        let arguments = try #require(call["arguments"]?.string)
        #expect(try JSONValue.parsed(arguments)["x"]?.string == "ab")
        #expect(whole["output"]?.array?.count == 1 && whole["status"]?.string == "completed")
        let reply = try await rig.post("/v1/responses", "{\(body),\"stream\":true}")
        let events = try reply.events.map { try JSONValue.parsed($0) }
        let delta = "response.function_call_arguments.delta"
        #expect(
          events.compactMap { $0["type"]?.string }.filter { $0 != delta } == [
            "response.created", "response.in_progress", "response.output_item.added",
            "response.function_call_arguments.done", "response.output_item.done",
            "response.completed",
          ])
        let told = events.filter { $0["type"]?.string == delta }.compactMap { $0["delta"]?.string }
        #expect(told.joined() == arguments)
        // The same call by all events.
        let ids = events.compactMap { ($0["item"] ?? $0["response"]?["output"]?.array?.first) }
          .compactMap { $0["call_id"]?.string }
        #expect(ids.count == 3 && Set(ids).count == 1)
        let id = try #require(events.last?["response"]?["id"]?.string)
        let result = #"{"type":"function_call_output","call_id":"\#(ids[0])","output":"r"}"#
        let next = try Self.parsed(
          try await rig.post(
            "/v1/responses",
            "{\"input\":[\(result)],\"previous_response_id\":\"\(id)\",\(tools),\"tool_choice\":\(choice),\"max_output_tokens\":4}"
          ))
        let before = try #require(whole["usage"]?["total_tokens"]?.integer)
        let rest = try rig.model().tokenizer.encode(
          Array("<|endoftext|>\n<tool>r\(ids[0])f\n<assistant>".utf8), parseSpecial: true)
        #expect(next["usage"]?["input_tokens"]?.integer == before + rest.count)
      }
    }
  }

  @Test func `Reasoning is an item of its own`() async throws {
    let template = try ChatTemplate(
      "<user>{{ messages[0].content }}<think>\n{% if false %}<think></think>{% endif %}")
    try await ServerRig.serving {
      $0.chatTemplate = template
    } _: { rig in
      let body = #""input":"the","max_output_tokens":30,"seed":2"#
      let whole = try Self.parsed(try await rig.post("/v1/responses", "{\(body)}"))
      let thought = Self.texts(whole, "reasoning")
      #expect(thought.count == 1 && Self.texts(whole).isEmpty)
      let usage = whole["usage"]
      #expect(
        usage?["output_tokens_details"]?["reasoning_tokens"]?.integer
          == usage?["output_tokens"]?.integer)
      let reply = try await rig.post("/v1/responses", "{\(body),\"stream\":true}")
      let deltas = try reply.events.map { try JSONValue.parsed($0) }.filter {
        $0["type"]?.string == "response.reasoning_text.delta"
      }
      #expect(deltas.compactMap { $0["delta"]?.string }.joined() == thought[0])
    }
  }

  @Test func `Text is of the form that is asked for`() async throws {
    try await ServerRig.serving(contextLength: 512) { rig in
      let schema =
        #"{"type":"object","properties":{"x":{"enum":["ab","cd"]}},"required":["x"],"additionalProperties":false}"#
      let format = #"{"type":"json_schema","name":"n","strict":true,"schema":\#(schema)}"#
      for seed in 1...3 {
        let response = try Self.parsed(
          try await rig.post(
            "/v1/responses", "{\"input\":\"a\",\"seed\":\(seed),\"text\":{\"format\":\(format)}}"))
        let value = try JSONValue.parsed(Self.texts(response).joined())
        #expect(["ab", "cd"].contains(value["x"]?.string) && value.members?.count == 1)
        #expect(response["text"]?["format"]?["name"]?.string == "n")
      }
    }
  }

  /// Fields beside an input, and the field that is named.
  private static let refused: [(String, String)] = [
    (#""nonsense":1"#, "nonsense"), (#""max_tokens":5"#, "max_tokens"),
    (#""n":2"#, "n"), (#""background":true"#, "background"),
    (#""conversation":"c""#, "conversation"), (#""prompt":{"id":"p"}"#, "prompt"),
    (#""truncation":"auto""#, "truncation"), (#""max_tool_calls":2"#, "max_tool_calls"),
    (#""service_tier":"flex""#, "service_tier"), (#""max_output_tokens":0"#, "max_output_tokens"),
    (#""store":1"#, "store"), (#""instructions":[]"#, "instructions"),
    (#""previous_response_id":1"#, "previous_response_id"), (#""metadata":{"a":1}"#, "metadata"),
    (#""include":["file_search_call.results"]"#, "include"), (#""include":"x""#, "include"),
    (#""top_logprobs":2"#, "top_logprobs"), (#""top_logprobs":21"#, "top_logprobs"),
    (#""text":{"more":1}"#, "text"), (#""text":{"verbosity":"low"}"#, "text"),
    (#""text":{"verbosity":"loud"}"#, "text"), (#""text":{"format":{"type":"xml"}}"#, "text"),
    (#""text":{"format":{"type":"text","more":1}}"#, "text"),
    (#""text":{"format":{"type":"json_schema","name":"n"}}"#, "text"),
    (#""text":{"format":{"type":"json_object"}},"grammar":"root ::= \"a\"""#, "grammar"),
    (#""reasoning":{"more":1}"#, "reasoning"),
    (#""reasoning":{"summary":"detailed"}"#, "reasoning"),
    (#""reasoning":{"effort":1}"#, "reasoning"),
    (#""stream_options":{"include_obfuscation":false}"#, "stream_options"),
    (#""stream":true,"stream_options":{"include_usage":true}"#, "stream_options"),
    (#""tools":{}"#, "tools"), (#""tools":[{"type":"web_search"}]"#, "tools"),
    (#""tools":[{"type":"function"}]"#, "tools"),
    (#""tools":[{"type":"function","name":"f","more":1}]"#, "tools"),
    (#""tool_choice":"required""#, "tool_choice"),
    (#""tool_choice":{"type":"function","function":{"name":"f"}}"#, "tool_choice"),
    (#""seed":1.5"#, "seed"), (#""temperature":-1"#, "temperature"),
  ]
  private static let refusedInputs = [
    "5", "[]", "[5]", #"[{"role":"user"}]"#, #"[{"role":"other","content":"a"}]"#,
    #"[{"role":"user","content":5}]"#, #"[{"role":"user","content":"a","more":1}]"#,
    #"[{"role":"user","content":[{"type":"input_image","image_url":"u"}]}]"#,
    #"[{"role":"user","content":[{"type":"input_text","text":"a","more":1}]}]"#,
    #"[{"type":"item_reference","id":"i"}]"#, #"[{"type":"function_call","name":"f"}]"#,
    #"[{"type":"function_call_output","output":"r"}]"#,
    #"[{"type":"function_call_output","call_id":"1","output":"r","name":{}}]"#,
    #"[{"type":"function_call_output","call_id":"no","output":"r"}]"#,
    #"[{"type":{},"role":"user","content":"a"}]"#, #"[{"type":"reasoning","content":"so"}]"#,
    #"[{"type":"reasoning","content":[],"summary":5}]"#,
    #"[{"type":"reasoning","summary":[],"encrypted_content":"x"}]"#,
    #"[{"role":"user","content":"\ud800"}]"#,
  ]

  @Test func `What cannot be answered is told by its field`() async throws {
    try await ServerRig.serving { rig in
      var bodies = Self.refused.map { ("{\"input\":\"a\",\($0)}", $1) }
      bodies += Self.refusedInputs.map { ("{\"input\":\($0)}", "input") }
      bodies.append(("{}", "input"))
      for (body, field) in bodies {
        let reply = try await rig.post("/v1/responses", body)
        let error = try JSONValue.parsed(reply.text)["error"]
        #expect(reply.status == 400, "\(body): \(reply.text)")
        #expect(error?["param"]?.string == field, "\(body): \(reply.text)")
      }
      let taken =
        #"{"input":"a","max_output_tokens":1,"background":false,"truncation":"disabled","user":"u","#
        + #""include":["reasoning.encrypted_content"],"reasoning":{"effort":null,"summary":"auto"},"#
        + #""text":{"format":{"type":"text"},"verbosity":"medium"},"metadata":null,"top_logprobs":0}"#
      #expect(try await rig.post("/v1/responses", taken).status == 200)
    }
  }
}
