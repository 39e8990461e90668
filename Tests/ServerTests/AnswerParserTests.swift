import Server
import TensorBasics
import TestSupport
import Testing
import Tokenization

/// What a model wrote, told apart: the same however its bytes come.
@Suite struct AnswerParserTests {
  enum Form: CaseIterable { case plain, hermes, thinking, one, mistral, llama }

  struct Case: Sendable {
    let form: Form
    let text: String
    let pieces: String

    init(_ form: Form, _ text: String, _ pieces: String) {
      (self.form, self.text, self.pieces) = (form, text, pieces)
    }
  }

  private static func syntax(_ form: Form) -> AnswerSyntax {
    var syntax = AnswerSyntax()
    let marks = { AnswerSyntax.Marks($0, $1) }
    syntax.toolNames = ["f", "g"]
    switch form {
    case .plain: break
    case .hermes, .thinking, .one:
      syntax.reasoning = marks("<think>", "</think>")
      syntax.calls = .marked(marks("<tool_call>", "</tool_call>"))
      syntax.beginsInReasoning = form == .thinking
      syntax.allowsManyCalls = form != .one
    case .mistral: syntax.calls = .announced(Array("[TOOL_CALLS]".utf8))
    case .llama: syntax.calls = .plain(Array("<|python_tag|>".utf8))
    }
    return syntax
  }

  private static func pieces(_ form: Form, _ parts: [ArraySlice<UInt8>]) -> [AnswerPiece] {
    var (parser, all) = (AnswerParser(syntax(form)), [AnswerPiece]())
    for part in parts {
      var pieces: [AnswerPiece] = []
      parser.append(Array(part), to: &pieces)
      for piece in pieces { all.add(piece) }
    }
    var pieces: [AnswerPiece] = []
    parser.finish(&pieces)
    for piece in pieces { all.add(piece) }
    return all
  }

  private static func words(_ pieces: [AnswerPiece]) -> String {
    pieces.map { piece in
      switch piece {
      case .text(let text): "T(\(String(decoding: text, as: UTF8.self)))"
      case .reasoning(let text): "R(\(String(decoding: text, as: UTF8.self)))"
      case .call(let index, let name): "C\(index)(\(name))"
      case .arguments(let index, let text): "A\(index)(\(String(decoding: text, as: UTF8.self)))"
      }
    }.joined(separator: " ")
  }

  /// The whole at once, cut in two anywhere, and byte by byte.
  private static func check(_ form: Form, _ text: String, _ expected: [AnswerPiece]) {
    let bytes = Array(text.utf8)
    for cut in stride(from: 0, through: bytes.count, by: bytes.count < 1000 ? 1 : bytes.count / 8) {
      let cutPieces = pieces(form, [bytes[..<cut], bytes[cut...]])
      #expect(cutPieces == expected, "\(text.debugDescription) cut at \(cut): \(words(cutPieces))")
    }
    guard bytes.count < 10_000 else { return }
    let single = pieces(form, bytes.indices.map { bytes[$0...$0] })
    #expect(single == expected, "\(text.debugDescription) byte by byte: \(words(single))")
  }

  private static let cases: [Case] = [
    Case(.hermes, " plain text\n", "T( plain text\n)"),
    Case(.hermes, "<think>\n so \n</think>\n\n answer ", "R(so) T(answer )"),
    Case(.hermes, "<think>a<think>b</think>c</think>d", "R(a<think>b) T(c</think>d)"),
    Case(.hermes, "x <think>a</think>", "T(x <think>a</think>)"),
    Case(.thinking, "\nso </thin k\n</think>\n\nx", "R(so </thin k) T(x)"),
    Case(.thinking, "never ends </think", "R(never ends </think)"),
    Case(
      .hermes,
      "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}\\\"{\", \"b\": [1, {}]}}\n</tool_call>\n"
        + "<tool_call>{\"arguments\": {\"x\": 1} , \"name\": \"g\"}</tool_call>\n",
      "T(Let me see.) C0(f) A0({\"a\": \"}\\\"{\", \"b\": [1, {}]}) C1(g) A1({\"x\": 1})"),
    Case(
      .hermes, "<think>t</think><tool_call>{\"name\": \"f\"}</tool_call> then",
      "R(t) C0(f) A0({}) T(then)"),
    Case(
      .hermes, "<tool_call>{\"n\\u0061me\": \"\\u0066\", \"arguments\": null}</tool_call>",
      "C0(f) A0({})"),
    Case(
      .hermes,
      "<tool_call>[{\"name\":\"f\",\"arguments\":{}}, {\"name\":\"g\",\"arguments\":{\"q\":2}}]</tool_call>",
      "C0(f) A0({}) C1(g) A1({\"q\":2})"),
    Case(
      .mistral,
      "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"id\": \"abc\"}, {\"name\":\"g\"}]",
      "C0(f) A0({\"a\": 1}) C1(g) A1({})"),
    Case(
      .mistral, "ok[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]g{\"b\":2}",
      "T(ok) C0(f) A0({\"a\": 1}) C1(g) A1({\"b\":2})"),
    Case(.mistral, "[TOOL_CALLS]f[CALL_ID]a1[ARGS]{}", "C0(f) A0({})"),
    Case(
      .llama,
      "{\"name\": \"f\", \"parameters\": {\"a\": 1}}; {\"name\": \"g\", \"parameters\": {}}",
      "C0(f) A0({\"a\": 1}) C1(g) A1({})"),
    Case(
      .llama, " <|python_tag|>{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}",
      "C0(f) A0({})"),
    Case(
      .one, "<tool_call>{\"name\":\"f\"}</tool_call><tool_call>{\"name\":\"g\"}</tool_call>",
      "C0(f) A0({})"),
    Case(.one, "<tool_call>[{\"name\":\"f\"}, {\"name\":\"g\"}]</tool_call>", "C0(f) A0({})"),
    // Arguments that break off are as far as they go.
    Case(.hermes, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":tr", "C0(f) A0({\"a\":tr)"),
    Case(
      .hermes, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1]} more",
      "C0(f) A0({\"a\":1) T(]} more)"),
    Case(
      .hermes, "<tool_call><tool_call>{\"name\":\"f\"}</tool_call>", "T(<tool_call>) C0(f) A0({})"),
  ]

  @Test func `Text, reasoning and calls are told apart, however the bytes come`() {
    for test in Self.cases {
      let whole = Self.pieces(test.form, [Array(test.text.utf8)[...]])
      #expect(Self.words(whole) == test.pieces, "\(test.text.debugDescription)")
      Self.check(test.form, test.text, whole)
    }
  }

  /// Whatever looks like a call and is none.
  private static let texts: [(Form, String)] = [
    (.hermes, "x <tool_call>{nonsense}</tool_call> y"), (.hermes, "<tool_call>{\"na"),
    (.hermes, "a <tool_c"),
    (.hermes, "<tool_call>{\"name\":\"f\",\"arguments\":\"{}\"}</tool_call>"),
    (.hermes, "<tool_call>{\"name\":3,\"arguments\":{}}</tool_call>"),
    (.hermes, "<tool_call>{\"name\":\"\",\"arguments\":{}}</tool_call>"),
    (.hermes, "<tool_call>{\"arguments\":{}}</tool_call>"), (.hermes, "</tool_call>"),
    (.hermes, "<tool_call>{\"name\":\"f\",\"name\":\"g\"}</tool_call>"),
    (.hermes, "<tool_call>{\"name\":\"f\",,}"), (.hermes, "<tool_call>[[{\"name\":\"f\"}]]"),
    (.hermes, "<tool_call>" + String(repeating: "{\"a\":", count: 100)),
    (
      .hermes, "<tool_call>{\"a\":\"" + String(repeating: "x", count: 70_000) + "\",\"name\":\"f\"}"
    ),
    (.hermes, String(repeating: " \n", count: 5000)),
    (.mistral, "[TOOL_CALLS] no call at all"), (.mistral, "[TOOL_CALLS]f(x)"),
    (.mistral, "[TOOL_CALLS]"),
    // What names no tool that was offered.
    (.llama, "{\"name\": \"unknown\", \"parameters\": {}}"),
    (.hermes, "<tool_call>{\"name\": \"h\", \"arguments\": {}}</tool_call>"),
    (.hermes, "<tool_call>{\"arguments\": {}, \"name\": \"F\"}"),
    (.mistral, "[TOOL_CALLS]h[ARGS]{\"a\": 1}"), (.mistral, "[TOOL_CALLS][{\"name\": \"\"}]"),
    (.llama, "{\"a\": 1} {\"name\": \"f\"}"),
    (.llama, "text {\"name\": \"f\", \"parameters\": {}}"), (.llama, "\n\n"), (.llama, "{"),
    (.llama, ""),
    (.llama, "<|python_tag|>print(1)"),
    (.plain, "<think>a</think><tool_call>{\"name\":\"f\"}</tool_call>"),
  ]

  @Test func `What is no call stays text, every byte of it`() {
    for (form, text) in Self.texts {
      let expected: [AnswerPiece] = text.isEmpty ? [] : [.text(Array(text.utf8))]
      Self.check(form, text, expected)
    }
  }

  @Test(arguments: [1, 2, 3, 4])
  func `Whatever a model writes, cuts change nothing and no text is lost`(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let fragments = [
      "<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]",
      "<|python_tag|>", "{", "}", "[", "]", ",", ":", ";", "\"", "\\", " ", "\n", "\"name\"",
      "\"f\"",
      "\"arguments\"", "\"parameters\"", "null", "1.5", "x", "ü", "f", "<", "{\"name\":\"f\"",
      "{\"name\": \"g\", \"arguments\": {\"a\": [1]}}",
    ]
    for _ in 0..<200 {
      let form = Form.allCases.randomElement(using: &generator)!
      let text = (0..<Int.random(in: 0...20, using: &generator)).map { _ in
        fragments.randomElement(using: &generator)!
      }.joined()
      let bytes = Array(text.utf8)
      let whole = Self.pieces(form, [bytes[...]])
      Self.check(form, text, whole)
      guard !whole.contains(where: { if case .text = $0 { false } else { true } }) else { continue }
      // Without marks that were understood it is what the model wrote; white space beside marks may be left out.
      if !text.contains("think>"), !text.contains("[TOOL"), !text.contains("tool_call>") {
        #expect(whole == (text.isEmpty ? [] : [.text(bytes)]), "\(form) \(text.debugDescription)")
      }
    }
  }

  @Test func `Control tokens are marks where they are expected, and nothing else`() {
    func pieces(_ form: Form, _ parts: [(isControl: Bool, text: String)]) -> String {
      var (parser, pieces) = (AnswerParser(Self.syntax(form)), [AnswerPiece]())
      for part in parts {
        let bytes = Array(part.text.utf8)
        if part.isControl {
          parser.append(control: bytes, to: &pieces)
        } else {
          parser.append(bytes, to: &pieces)
        }
      }
      parser.finish(&pieces)
      return Self.words(pieces)
    }
    let call = (true, "[TOOL_CALLS]")
    #expect(
      pieces(.mistral, [(false, "a "), call, (false, "[{\"name\":\"f\"}]")]) == "T(a) C0(f) A0({})"
    )
    #expect(
      pieces(.mistral, [call, (false, "f"), (true, "[ARGS]"), (false, "{}"), call, (false, "g{}")])
        == "C0(f) A0({}) C1(g) A1({})")
    // What stays text has none of the token.
    #expect(pieces(.mistral, [(false, "a"), call, (false, " b")]) == "T(a b)")
    #expect(
      pieces(.mistral, [call, (false, "[{\"na"), call, (false, "f{}")]) == "T([{\"na) C0(f) A0({})")
    #expect(pieces(.llama, [(true, "<|python_tag|>"), (false, "{\"x\"")]) == "T({\"x\")")
    #expect(
      pieces(.llama, [(true, "<|other|>"), (false, "x"), (true, "<|python_tag|>")]) == "T(x)")
    #expect(
      pieces(.hermes, [(true, "<think>"), (false, "a"), (true, "</think>"), (false, "b")])
        == "R(a) T(b)")
    #expect(pieces(.plain, [(true, "[TOOL_CALLS]"), (false, "x")]) == "T(x)")
  }

  @Test func `Forms are found from what a template writes`() throws {
    let tools = "{% for t in tools %}{{ t | tojson }}{% endfor %}{{ messages[0].content }}"
    for (source, calls, reasons) in [
      (tools + "<tool_call>{</tool_call>", Self.syntax(.hermes).calls, false),
      (tools + "{% if x %}[TOOL_CALLS]{% endif %}", Self.syntax(.mistral).calls, false),
      (tools, Self.syntax(.llama).calls, false), ("{{ messages[0].content }}<think>", nil, true),
      ("{# <think> #}{{ messages[0].content }}", nil, false),
    ] as [(String, AnswerSyntax.CallForm?, Bool)] {
      let syntax = AnswerSyntax(of: try ChatTemplate(source))
      #expect(syntax.calls == calls, "\(source)")
      #expect((syntax.reasoning != nil) == reasons, "\(source)")
    }
  }
}
