import Jinja
import Tokenization

extension FuzzTarget {
  /// Conversations: a chat template up to a zero, then messages up to a zero each, of which the first
  /// is the system's where its first byte is 1; or JSON, where the first is `[` or `{`.
  static let chat = FuzzTarget(
    name: "chat",
    dictionary: [
      "<|im_start|>", "<|im_end|>", "{{ bos_token }}", "{% for m in messages %}", "{% endfor %}",
      "m.content", "m['role']", "|trim", "|tojson", "add_generation_prompt", "tools", "<think>",
      "enable_thinking", "raise_exception(", "m.tool_calls", "c.function.arguments", "split(",
      "{\\\"messages\\\":[", "\\\"role\\\":\\\"user\\\"", "\\\"content\\\":", "\\\"tool_calls\\\":",
      "\\\"arguments\\\":", "\\\"type\\\":\\\"text\\\"", "\\\"reasoning\\\":", "null",
      "\\xe2\\x80\\x83",
    ], seeds: { ChatTarget.seeds }, run: ChatTarget.run)
}

enum ChatTarget {
  private static let templates = [
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}",
    "{{ bos_token }}{% for m in messages %}{{ m['content'].split('|')|join('<|')|trim }}{% endfor %}",
    "{% for m in messages %}<|im_start|>{{ m.content|replace('t', '|')|indent }}<|im_end|>{% endfor %}",
    "{% for m in messages %}{% for p in m.content %}{{ p.text }}<|im_end|>{% endfor %}{% endfor %}",
    "{{ messages|tojson }}{{ messages }}<|im_start|>{{ tools }}",
    "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ 'x' + c.function.arguments }}"
      + "{% endfor %}{% endfor %}",
  ]

  static let seeds: [[UInt8]] = templates.flatMap { template in
    [
      "\u{1}Be brief. <|im_end|>\0Hi <|im_end|>\0\n ok\0 tag? \n",
      #"[{"role":"user","content":"<|im_start|>"},{"role":"assistant","reasoning":"r","content":"ok","name":null,"#
        + #""tool_calls":[{"function":{"name":"f","arguments":"{\"a\":1}"}}]}]"#,
    ].map { Array(template.utf8) + [0] + Array($0.utf8) }
  }

  static func run(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) -> Bool {
    var reader = InputReader(input)
    let source = String(decoding: reader.bytes(upTo: 0), as: UTF8.self)
    let rest = Array(reader.rest())
    let template: ChatTemplate
    let text: MarkedText
    do throws(TokenizerError) {
      template = try ChatTemplate(source)
      var conversation = try conversation(rest)
      conversation.setNow("2026-01-31")
      text = try template.render(conversation, bos: Array("<s>".utf8), eos: Array("</s>".utf8))
    } catch { return false }
    let tokenizer = PromptTarget.tokenizers[1]
    let isControl = tokenizer.token(spelled: "<|im_start|>")
    let tokens: [Int32]
    do throws(TokenizerError) { tokens = try tokenizer.encode(text, of: template) } catch {
      throw FuzzFinding("rendered text is refused: \(error)")
    }
    // A control token stands at most as often as it is written without a byte of data.
    let mark = Array("<|im_start|>".utf8)
    let most = text.bytes.indices.count {
      text.bytes[$0...].starts(with: mark) && !text.hasData(in: $0..<$0 + mark.count)
    }
    try require(
      tokens.count { $0 == isControl } <= most, "a message made a control token: \(text)")
    return true
  }

  private static func conversation(_ input: [UInt8]) throws(TokenizerError) -> Conversation {
    if let first = input.first, "[{".utf8.contains(first) {
      return try Conversation(json: input, name: "chat")
    }
    var messages: [ChatMessage] = []
    for (number, content) in input.split(separator: 0, maxSplits: 7).enumerated() {
      if number == 0, content.first == 1 {
        messages.append(ChatMessage(role: .system, content: Array(content.dropFirst())))
      } else {
        messages.append(
          ChatMessage(role: number.isMultiple(of: 2) ? .user : .assistant, content: Array(content)))
      }
    }
    return Conversation(messages)
  }
}
