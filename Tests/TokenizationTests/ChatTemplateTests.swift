import Jinja
import ModelFormat
import TensorBasics
import Testing
import Tokenization

/// Chat templates as models have them, and the tokens of what they write.
@Suite struct ChatTemplateTests {
  private static let chatML =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    + "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}"
    + "{{ '<|im_start|>assistant\\n' }}{% endif %}"
  private static let llama3 =
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
    + "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim "
    + "+ '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    + "{{ content }}{% endfor %}{% if add_generation_prompt %}"
    + "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
  private static let gemma =
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not "
    + "supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}"
    + "{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    + "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}"
    + "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"
  /// Takes tools, calls with arguments as objects, and thinking.
  private static let tools =
    "{% for t in tools or [] %}{{ t.function.name }};{% endfor %}{% for m in messages %}"
    + "{{ '<' + m.role + '>' }}{{ m.content if m.content }}{{ m.reasoning_content }}"
    + "{% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
    + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    + "{{ strftime_now('%d %b %Y') if dated }}"

  private func text(_ template: String, _ json: String) throws -> String {
    try ChatTemplate(template).render(
      Conversation(json: Array(json.utf8), name: "test"), bos: Array("<s>".utf8),
      eos: Array("</s>".utf8)
    ).string
  }

  @Test func `Templates write what they say`() throws {
    let hi = #"[{"role":"user","content":" Hi "}]"#
    #expect(
      try text(Self.chatML, hi) == "<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n")
    #expect(
      try text(Self.llama3, hi) == "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        + "<|start_header_id|>assistant<|end_header_id|>\n\n")
    #expect(
      try text(Self.gemma, hi)
        == "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n")
    #expect(
      try text(
        Self.chatML, #"{"messages":[{"role":"user","content":"a"}],"add_generation_prompt":false}"#)
        == "<|im_start|>user\na<|im_end|>\n")
  }

  @Test func `What a template cannot do is said with its place`() throws {
    #expect {
      _ = try ChatTemplate("a\n{% nonsense %}")
    } throws: { error in
      "\(error)".contains("line 2, column 4") && "\(error)".contains("--chat-template")
    }
    #expect {
      _ = try text(Self.gemma, #"[{"role":"system","content":"x"}]"#)
    } throws: { "\($0)".contains("System role not supported") }
  }

  // MARK: What templates are given

  @Test func `Nulls are dropped, and reasoning has the names that templates read`() throws {
    let messages =
      #"[{"role":"user","content":"q"},{"role":"assistant","content":null,"thinking":"t"},"#
      + #"{"role":"assistant","content":"b","reasoning":"r","tool_calls":null}]"#
    #expect(try text(Self.tools, messages) == "<user>q<assistant>t<assistant>br")
  }

  @Test func `Arguments are given as the template needs them`() throws {
    func messages(_ arguments: String) -> String {
      #"[{"role":"assistant","tool_calls":[{"type":"function","function":{"name":"f","arguments":"#
        + arguments + "}}]}]"
    }
    let (object, string) = (#"{"a": 1, "b": 12345678901234567890}"#, #""{\"a\":1}""#)
    #expect(try text(Self.tools, messages(object)) == "<assistant>" + object)
    #expect(try text(Self.tools, messages(string)) == #"<assistant>{"a": 1}"#)
    let asText =
      "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ 'x' + c.function.arguments }}"
      + "{% endfor %}{% endfor %}"
    #expect(try ChatTemplate(asText).needs.argumentsAsText)
    #expect(try text(asText, messages(object)) == "x" + object)
    #expect(try text(asText, messages(string)) == #"x{"a":1}"#)
  }

  @Test func `Parts of a content are joined where a template takes strings only`() throws {
    let parts =
      #"[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]"#
    #expect(try text("{% for m in messages %}{{ '<' + m.content }}{% endfor %}", parts) == "<a\nb")
    let partsOnly =
      "{% for m in messages %}{% for p in m.content %}{{ p.text + '|' }}{% endfor %}{% endfor %}"
    #expect(try ChatTemplate(partsOnly).needs.contentAsParts)
    #expect(try text(partsOnly, parts) == "a|b|")
    #expect(try text(partsOnly, #"[{"role":"user","content":"c"}]"#) == "c|")
    #expect {
      _ = try text(Self.chatML, #"[{"role":"user","content":[{"type":"image","url":"u"}]}]"#)
    } throws: { "\($0)".contains("text only") }
  }

  @Test func `Templates are asked what they take`() throws {
    let tools = try ChatTemplate(Self.tools)
    #expect(tools.takesTools && tools.switchesThinking && tools.takesSystemMessage)
    let gemma = try ChatTemplate(Self.gemma)
    #expect(!gemma.takesTools && !gemma.switchesThinking && !gemma.takesSystemMessage)
    #expect(gemma.needs.joinsParts && !gemma.needs.argumentsAsText)
  }

  @Test func `Tools, arguments and the time reach the template`() throws {
    var conversation = try Conversation(
      json: Array(
        #"{"messages":[{"role":"user","content":"q"}],"tools":[{"type":"function","function":{"name":"f"}}]}"#
          .utf8), name: "test")
    conversation.setThinking(false)
    conversation.setArgument("dated", "true")
    let taken = ["2026-01-31", "tomorrow", "2026-01-31T23:59:59"].map { conversation.setNow($0) }
    #expect(taken == [true, false, true])
    let text = try ChatTemplate(Self.tools).render(conversation)
    #expect(text.string == "f;<user>q<think></think>31 Jan 2026")
  }

  @Test(arguments: [
    ("", "JSON"), ("[]", "empty"), ("{}", "list of messages"), (#"[{"content":"x"}]"#, "'role'"),
    ("[1]", "'role'"), (#"[{"role":"user","content":7}]"#, "neither text nor a list of parts"),
    (#"[{"role":"user","content":"\ud800"}]"#, "half a surrogate pair"),
    (#"[{"role":"user","content":NaN}]"#, "not text: it holds NaN"),
    (
      #"{"messages":[{"role":"user","content":"a"}],"add_generation_prompt":"no"}"#,
      "true nor false"
    ),
    (#"{"messages":[{"role":"user","content":"a"}],"chat_template_kwargs":[]}"#, "not an object"),
    (
      #"{"messages":[{"role":"user","content":"a"}],"chat_template_kwargs":{"messages":[]}}"#,
      "no argument's name"
    ),
  ]) func `Bad messages are refused`(json: String, reason: String) {
    #expect {
      _ = try Conversation(json: Array(json.utf8), name: "chat.json")
    } throws: { "\($0)".contains(reason) }
  }

  // MARK: Tokens

  /// Every byte, some merges over the border of `User: ` and `hi`, and tokens of each kind.
  private func tokenizer() throws -> Tokenizer {
    var tokens = PackedStrings()
    var kinds: [UInt8] = [2, 3, 3]
    for token in ["<unk>", "<s>", "</s>"] { tokens.append(token.utf8) }
    for byte in UInt8.min...UInt8.max {
      let digits = Array("0123456789ABCDEF")
      tokens.append("<0x\(digits[Int(byte >> 4)])\(digits[Int(byte & 15)])>".utf8)
      kinds.append(6)
    }
    for token in [
      "h", "i", "▁", "▁hi", "hi", "<", "/", "s", ">", "</", "s>", ":", "U",
    ] {
      tokens.append(token.utf8)
      kinds.append(1)
    }
    for (token, kind) in [("<|im_end|>", 3), ("<think>", 4), ("\n\n", 4), ("<h1>", 4)] {
      tokens.append(token.utf8)
      kinds.append(UInt8(kind))
    }
    return try Tokenizer(
      TokenizerDefinition(
        model: .sentencePieceBPE, tokens: tokens,
        scores: kinds.indices.map { $0 < 259 ? 0 : Float(-$0) }, kinds: kinds, bosToken: 1,
        eosToken: 2, unknownToken: 0, addsSpacePrefix: false))
  }

  private func tokens(_ template: String, _ content: String) throws -> [String] {
    let tokenizer = try tokenizer()
    let tokens = try tokenizer.encodeChat(
      Conversation([ChatMessage(role: .user, content)]), template: ChatTemplate(template))
    return tokens.map { token in
      var bytes: [UInt8] = []
      tokenizer.decode(token, into: &bytes, includesControl: true)
      return String(decoding: bytes, as: UTF8.self)
    }
  }

  @Test func `Text is not cut where a message begins`() throws {
    #expect(try tokens("U: {{ messages[0].content }}", "hi") == ["U", ":", " hi"])
  }

  @Test func `Control tokens are the template's alone, also in parts`() throws {
    let template =
      "{{ bos_token }}{% for m in messages %}<think>{{ m.content }}<|im_end|>{{ '<|im' + m.content }}"
      + "{% endfor %}"
    let harmless = try tokens(template, "hi")
    #expect(harmless.count { $0 == "<|im_end|>" } == 1 && harmless[0...1] == ["<s>", "<think>"])
    for content in ["<|im_end|>", "_end|>", "<s></s>", "</s>", "<think>", "|><|im_end|><|im_end|>"]
    {
      let typed = try tokens(template, content)
      for control in ["<|im_end|>", "<s>", "<think>"] {
        #expect(typed.count { $0 == control } == 1, "\(content): \(control)")
      }
      #expect(!typed.contains("</s>"), "\(content)")
    }
  }

  @Test func `Other added tokens are found in messages too`() throws {
    let template = "<think>\n\n{{ messages[0].content }}"
    #expect(try tokens(template, "\n\n<h1>") == ["<think>", "\n\n", "\n\n", "<h1>"])
  }

  @Test func `No BOS is added to what a template writes`() throws {
    #expect(try tokens("{{ messages[0].content }}", "hi") == ["hi"])
    #expect(try tokens("{{ bos_token + messages[0].content }}", "hi") == ["<s>", "hi"])
  }

  @Test func `Merging never makes a control token of text`() throws {
    let tokenizer = try tokenizer()
    #expect(try !tokenizer.encode("</s>".utf8).contains(2))
    #expect(try tokenizer.decode(tokenizer.encode("</s><s>".utf8)) == Array("</s><s>".utf8))
  }
}
