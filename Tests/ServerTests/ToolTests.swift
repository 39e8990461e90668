import ModelFormat
import Runtime
import Server
import Testing
import Tokenization

/// Tools that are offered, and reasoning apart from text, over HTTP. What answers are made of: ``AnswerParserTests``.
@Suite struct ToolTests {
  private static let tools =
    #""tools":[{"type":"function","function":{"name":"f","parameters":{}}}]"#
  private static let messages = #""messages":[{"role":"user","content":"the"}]"#

  private static func prompt(_ rig: ServerRig, _ fields: String) async throws -> String? {
    let reply = try await rig.post("/apply-template", "{\(fields)}")
    return try JSONValue.parsed(reply.text)["prompt"]?.string
  }

  @Test func `The model is told of tools unless none may be called`() async throws {
    try await ServerRig.serving { rig in
      let offered = try await Self.prompt(rig, "\(Self.messages),\(Self.tools)")
      #expect(offered?.hasPrefix("<tools>[{\"type\": \"function\"") == true, "\(offered ?? "nil")")
      for fields in ["", ",\"tools\":[]", ",\(Self.tools),\"tool_choice\":\"none\""] {
        let prompt = try await Self.prompt(rig, Self.messages + fields)
        #expect(prompt == "<user>the\n<assistant>")
      }
    }
  }

  @Test func `Calls and what they brought are parts of a conversation`() async throws {
    let template = try ChatTemplate(
      """
      {%- for m in messages %}<{{ m.role }}>{{ m.content or '' }}{{ m.reasoning_content or '' }}
      {%- for c in m.tool_calls or [] %}({{ c.function.name }} {{ c.function.arguments.x }}){% endfor %}
      {%- endfor %}
      """)
    try await ServerRig.serving {
      $0.chatTemplate = template
    } _: { rig in
      let prompt = try await Self.prompt(
        rig,
        #""messages":[{"role":"user","content":"q"},{"role":"assistant","content":null,"reasoning_content":"r","#
          + #""tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"x\": 5}"}}]},"#
          + #"{"role":"tool","tool_call_id":"1","content":"done"}]"#)
      #expect(prompt == "<user>q<assistant>r(f 5)<tool>done")
      // A template that has no place for them.
      let refused = try await rig.post(
        "/v1/chat/completions", "{\(Self.messages),\(Self.tools)}")
      let error = try JSONValue.parsed(refused.text)["error"]
      #expect(refused.status == 400 && error?["param"]?.string == "tools")
      #expect(error?["message"]?.string?.contains("--chat-template") == true)
    }
  }

  @Test(arguments: [
    "<tool_call>", "[TOOL_CALLS]", "", "<tool_call>{% if false %}</think>{% endif %}<think>",
  ])
  func `A tool that must be called is called, with arguments of its schema`(
    marks: String
  ) async throws {
    let template = try ChatTemplate(
      "{% if tools %}{{ tools | tojson }}{% endif %}{{ messages[0].content }}" + marks)
    let tools =
      #""tools":[{"type":"function","function":{"name":"f","strict":true,"parameters":{"type":"object","#
      + #""properties":{"x":{"type":"integer"},"y":{"enum":["a","b"]}},"required":["x","y"],"#
      + #""additionalProperties":false}}},{"type":"function","function":{"name":"g \"q\"","parameters":{"#
      + #""type":"object","properties":{"z":{"type":"boolean"}},"required":["z"]}}}]"#
    try await ServerRig.serving(contextLength: 2048) {
      $0.chatTemplate = template
    } _: { rig in
      for seed in 0..<6 {
        let choice =
          seed % 2 == 0
          ? #""required""# : #"{"type":"function","function":{"name":"g \"q\""}}"#
        let reply = try await rig.post(
          "/v1/chat/completions",
          "{\(Self.messages),\(tools),\"tool_choice\":\(choice),\"seed\":\(seed),\"parallel_tool_calls\":false}"
        )
        let answer = try JSONValue.parsed(reply.text)["choices"]?.array?.first
        #expect(answer?["finish_reason"]?.string == "tool_calls", "\(reply.text)")
        let calls = try #require(answer?["message"]?["tool_calls"]?.array)
        let function = try #require(calls.first?["function"])
        let arguments = try JSONValue.parsed(try #require(function["arguments"]?.string))
        #expect(calls.count == 1 && answer?["message"]?["content"]?.string == nil)
        if function["name"]?.string == "f" {
          #expect(arguments["x"]?.integer != nil && seed % 2 == 0, "\(reply.text)")
          #expect(["a", "b"].contains(arguments["y"]?.string))
        } else {
          #expect(function["name"]?.string == #"g "q""# && arguments["z"]?.bool != nil)
        }
      }
    }
  }

  /// Templates whose calls can be held to a schema where an answer need not call, and such whose cannot.
  private static let forms = [
    ("", true), ("<tool_call>", true), ("[TOOL_CALLS]", false),
    ("{% if false %}<think></think>{% endif %}", false),
    ("<tool_call>{% if false %}<think></think>{% endif %}", true),
  ]

  @Test(arguments: forms)
  func `Calls that may be are held to strict schemas, or refused to be`(
    marks: String, isTaken: Bool
  ) async throws {
    let template = try ChatTemplate(
      "{% if tools %}{{ tools | tojson }}{% endif %}{{ messages[0].content }}{% if false %}"
        + marks + "{% endif %}")
    let tools =
      #""tools":[{"type":"function","function":{"name":"f","strict":true,"parameters":{"type":"object","#
      + #""properties":{"y":{"enum":["a","b"]}},"required":["y"],"additionalProperties":false}}}]"#
    try await ServerRig.serving(contextLength: 2048) {
      $0.chatTemplate = template
    } _: { rig in
      let bracket = try rig.model().tokenizer.encode("{".utf8)[0]
      for seed in 0..<4 {
        func ask(_ tools: String) async throws -> HTTPReply {
          try await rig.post(
            "/v1/chat/completions",
            "{\(Self.messages),\(tools),\"seed\":\(seed),\"max_tokens\":400,\"parallel_tool_calls\":false,\"logit_bias\":{\"\(bracket)\":100}}"
          )
        }
        let reply = try await ask(tools)
        guard isTaken else {
          #expect(reply.status == 400 && reply.text.contains("'strict'"), "\(reply.text)")
          continue
        }
        #expect(reply.status == 200, "\(reply.text)")
        guard marks.isEmpty else { continue }
        // What begins with a bracket is a call.
        let message = try JSONValue.parsed(reply.text)["choices"]?.array?.first?["message"]
        let calls = try #require(message?["tool_calls"]?.array, "\(reply.text)")
        for call in calls.prefix(1) {
          let text = try #require(call["function"]?["arguments"]?.string)
          #expect(["a", "b"].contains(try JSONValue.parsed(text)["y"]?.string), "\(text)")
        }
        let free = try await ask(tools.replacing("true", with: "false"))
        #expect(!free.text.contains("tool_calls\":["), "\(free.text)")
      }
    }
  }

  @Test(arguments: ["<user>{{ messages[0].content }}<think>\n", "<user>{{ messages[0].content }}"])
  func `Reasoning that the prompt begins is told apart`(source: String) async throws {
    let template = try ChatTemplate(source + "{% if false %}<think></think>{% endif %}")
    try await ServerRig.serving {
      $0.chatTemplate = template
    } _: { rig in
      let tokens = try rig.model().prompt(
        Conversation([ChatMessage(role: .user, "the")]), template: template)
      for seed in 1...6 {
        let fields = "\(Self.messages),\"max_tokens\":30,\"seed\":\(seed)"
        let expected = try rig.alone([
          SequenceRequest(tokens: tokens, limit: 30, sampling: SamplingOptions(seed: UInt64(seed)))
        ])[0].text
        let whole = try await rig.post("/v1/chat/completions", "{\(fields)}")
        let message = try JSONValue.parsed(whole.text)["choices"]?.array?.first?["message"]
        let thinks = source.hasSuffix("\n")
        let reasoning = message?["reasoning_content"]?.string ?? ""
        let content = message?["content"]?.string
        let trimmed = String(expected.drop { " \n\t\r".contains($0) })
        #expect(content == (thinks ? "" : expected))
        #expect(reasoning == (thinks ? trimmed : ""))
        let streamed = try await rig.post("/v1/chat/completions", "{\(fields),\"stream\":true}")
        var deltas = ["", ""]
        for event in streamed.events.dropLast() {
          let delta = try JSONValue.parsed(event)["choices"]?.array?.first?["delta"]
          deltas[0] += delta?["content"]?.string ?? ""
          deltas[1] += delta?["reasoning_content"]?.string ?? ""
        }
        #expect(deltas == [content, reasoning])
        let plain = try await rig.post(
          "/v1/chat/completions", "{\(fields),\"reasoning_format\":\"none\"}")
        let text = try JSONValue.parsed(plain.text)["choices"]?.array?.first?["message"]
        #expect(text?["content"]?.string == expected && text?["reasoning_content"] == nil)
      }
    }
  }
}
