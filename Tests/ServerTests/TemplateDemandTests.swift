import ModelFormat
import Server
import Testing
import Tokenization

/// What of a conversation the chat template does not read is refused, and what it does read is taken.
@Suite struct TemplateDemandTests {
  /// Fields beside a plain message, where it is not among them, and what is named in the refusal.
  private static let demands: [(fields: String, field: String, name: String)] = [
    (#""messages":[{"role":"narrator","content":"a"}]"#, "messages", "narrator"),
    (#""messages":[{"role":"user","content":"a","mood":"glad"}]"#, "messages", "mood"),
    (
      #""messages":[{"role":"user","content":[{"type":"text","text":"a","tone":"low"}]}]"#,
      "messages", "tone"
    ),
    (
      #""messages":[{"role":"assistant","content":"a","tool_calls":[{"type":"function","rank":1,"#
        + #""function":{"name":"f","arguments":"{}"}}]}]"#, "messages", "rank"
    ),
    (
      #""messages":[{"role":"assistant","content":"a","tool_calls":[{"type":"function","#
        + #""function":{"name":"f","arguments":"{}","haste":1}}]}]"#, "messages", "haste"
    ),
    (#""documents":[{"title":"t","text":"u"}]"#, "documents", "documents"),
    (#""reasoning_effort":"low""#, "reasoning_effort", "reasoning_effort"),
    (
      #""chat_template_kwargs":{"enable_thinking":false}"#, "chat_template_kwargs",
      "enable_thinking"
    ),
  ]

  private static func body(_ fields: String) -> String {
    let hasMessages = fields.hasPrefix("\"messages\"")
    return "{\(hasMessages ? "" : #""messages":[{"role":"user","content":"a"}],"#)\(fields)}"
  }

  @Test func `What the template does not name is refused by its name`() async throws {
    try await ServerRig.serving { rig in
      for (fields, field, name) in Self.demands {
        for path in ["/v1/chat/completions", "/apply-template"] {
          let reply = try await rig.post(path, Self.body(fields))
          let error = try JSONValue.parsed(reply.text)["error"]
          #expect(
            reply.status == 400 && error?["param"]?.string == field, "\(fields) \(reply.text)")
          #expect(error?["message"]?.string?.contains(name) == true, "\(reply.text)")
        }
      }
    }
  }

  @Test func `What the template names is taken`() async throws {
    let template = try ChatTemplate(
      "{{ documents }}{{ reasoning_effort }}{% if enable_thinking %}{% endif %}{% for m in messages %}"
        + "{% if m.role == 'narrator' %}N{% endif %}{{ m.mood }}{{ m.content[0]['tone'] }}"
        + "{% for c in m.tool_calls %}{{ c.rank }}{{ c.function['haste'] }}{% endfor %}{% endfor %}"
    )
    try await ServerRig.serving {
      $0.chatTemplate = template
    } _: { rig in
      for (fields, _, _) in Self.demands {
        let reply = try await rig.post("/apply-template", Self.body(fields))
        #expect(reply.status == 200, "\(fields): \(reply.text)")
      }
      let message = #"{"role":"narrator","content":"a","mood":"glad"}"#
      let messages = [String](repeating: message, count: 1000).joined(separator: ",")
      let many = try await rig.post("/apply-template", "{\"messages\":[\(messages)]}")
      #expect(many.status == 200, "\(many.text)")
      // Of more names than any template has the first beyond is refused, before the others are looked at.
      let members = (0..<1000).map { ",\"mood\($0)\":1" }.joined()
      let unknown = try await rig.post(
        "/apply-template", #"{"messages":[{"role":"user","content":"a"\#(members)}]}"#)
      #expect(unknown.status == 400 && unknown.text.contains("'mood256'"), "\(unknown.text)")
    }
  }

  @Test func `A developer's message is the system's where the template has no words for it`()
    async throws
  {
    let body =
      #"{"messages":[{"role":"developer","content":"a"},{"role":"user","content":"developer"}]}"#
    let plain = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    for (source, text) in [
      (plain, "<system>a<user>developer"),
      (
        plain + "{% if messages[0].role == 'developer' %}!{% endif %}",
        "<developer>a<user>developer!"
      ),
    ] {
      let template = try ChatTemplate(source)
      try await ServerRig.serving {
        $0.chatTemplate = template
      } _: { rig in
        let reply = try await rig.post("/apply-template", body)
        #expect(try JSONValue.parsed(reply.text)["prompt"]?.string == text, "\(reply.text)")
      }
    }
  }

  @Test func `What clients send back of an answer is taken, and what says nothing`() async throws {
    let message =
      #"{"role":"assistant","content":"b","refusal":null,"annotations":[],"audio":null,"tool_calls":null,"#
      + #""function_call":null,"reasoning_content":"r","name":null}"#
    try await ServerRig.serving { rig in
      for fields in [
        "\"messages\":[\(message)]", #""documents":[]"#, #""reasoning_effort":null"#,
        #""chat_template_kwargs":{}"#, #""chat_template_kwargs":null"#,
        #""messages":[{"role":"developer","content":"a"},{"role":"user","name":"me","content":"a"}]"#,
      ] {
        let reply = try await rig.post("/apply-template", Self.body(fields))
        #expect(reply.status == 200, "\(fields): \(reply.text)")
      }
      for message in [
        #"{"role":"user","content":"a","refusal":"no"}"#,
        #"{"role":"assistant","content":"a","tool_calls":5}"#,
        #"{"role":"assistant","content":"a","tool_calls":[5]}"#,
        #"{"role":"assistant","content":"a","tool_calls":[{"function":{}}]}"#,
        #"{"role":"assistant","content":"a","function_call":{"name":"f"}}"#,
      ] {
        let reply = try await rig.post("/apply-template", Self.body("\"messages\":[\(message)]"))
        #expect(reply.status == 400, "\(message): \(reply.text)")
      }
    }
  }
}
