import Jinja
import Testing
import Tokenization

/// A conversation as JSON is the same conversation again.
@Suite struct SavedConversationTests {
  private static let documents = [
    #"[{"role":"user","content":"one \"two\"\n\tthree \u0001 größer 🙂"}]"#,
    #"[{"role":"system","content":""},{"role":"odd <role>","content":[{"type":"text","text":"a"}]}]"#,
    #"""
    {"messages":[{"role":"user","content":"hi"},
      {"role":"assistant","content":"ho","reasoning_content":"hm","tool_calls":[{"type":"function",
        "function":{"name":"f","arguments":{"x":[1,2.5,true,null,12345678901234567890123]}}}]},
      {"role":"tool","content":"{\"a\":1}"}],
     "tools":[{"type":"function","function":{"name":"f","parameters":{}}}],
     "documents":[{"title":"t","text":"</s>"}],
     "reasoning_effort":"high","chat_template_kwargs":{"a b":{"c":[]}}}
    """#,
  ]

  /// The text, and what of it is data.
  private func rendered(_ conversation: Conversation) throws -> [String] {
    let text = try ChatTemplate(
      """
      {% for m in messages %}{{ m.content | tojson }}|{{ m.tool_calls | tojson if m.tool_calls }}|
      {{- m.thinking }}|{{ m.reasoning_content }}|{{ m.role }}{% endfor %}
      {{ tools | tojson if tools }}{{ documents | tojson if documents }}{{ reasoning_effort }}
      """
    ).render(conversation)
    return [text.string, "\(text.data)"]
  }

  @Test(arguments: documents) func `It renders as before`(document: String) throws {
    let conversation = try Conversation(json: Array(document.utf8), name: "test")
    let saved = try conversation.json()
    let again = try Conversation(json: saved, name: "saved")
    #expect(try rendered(again) == rendered(conversation))
    #expect(try again.json() == saved)
    #expect(again.messageCount == conversation.messageCount)
    #expect(again.lastRole == conversation.lastRole && again.hasTools == conversation.hasTools)
  }

  @Test func `Messages are added and taken away at the end`() throws {
    var conversation = Conversation([ChatMessage(role: .system, "A")])
    conversation.append(ChatMessage(role: .user, "B"))
    #expect(conversation.lastRole == "user" && conversation.messageCount == 2)
    conversation.removeLast()
    #expect(conversation.lastRole == "system")
    conversation.removeLast()
    #expect(conversation.lastRole == nil && conversation.messageCount == 0)
  }
}
