import Grammar
import TensorBasics
import TestSupport
import Testing

/// What grammars accept and what they refuse.
@Suite struct CompiledGrammarTests {
  private static let notations: [(String, [String], [String])] = [
    (#"root ::= "yes" | "no""#, ["yes", "no"], ["", "y", "yesno", "YES"]),
    ("root ::= [a-c]+ # letters\n", ["a", "cab"], ["", "d", "ad"]),
    ("root ::= [^\\x00-\\x1F\"]{2,3}", ["ab", "äöü", "日本"], ["a", "abcd", "a\"", "a\n"]),
    ("root ::= item (\",\" item)*\nitem ::= [0-9]{2}", ["12", "12,34"], ["1", "12,", "123"]),
    ("root ::= (\"a\" |\n \"b\" # one\n )? \"c\"", ["c", "ac", "bc"], ["abc", "a"]),
    (#"root ::= "\x41\u00e9\U0001F600\n" ."#, ["A\u{e9}\u{1F600}\nz"], ["A\u{e9}\u{1F600}\n"]),
    ("root ::= \"a\"{3}", ["aaa"], ["aa", "aaaa"]),
    ("root ::= \"a\"{2,}", ["aa", "aaaaa"], ["a"]),
    ("root ::= (\"a\"?)* \"b\"", ["b", "aaab"], ["a"]),
    ("root ::= \"(\" root \")\" | \"\"", ["", "()", "((()))"], ["(", "())"]),
    (
      "root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"d\"", ["d", "aadbc", "adc"], ["adbb", "a"]
    ),
    ("root ::= a-b \" \"\na-b ::=\n  [A-Z\\-\\]]", ["X ", "- ", "] "], ["a "]),
  ]

  @Test("GBNF is read as llama.cpp reads it", arguments: notations)
  func notation(grammar: String, accepted: [String], refused: [String]) throws {
    let grammar = try CompiledGrammar(gbnf: grammar)
    for text in accepted { #expect(grammar.matches(text), "\(text)") }
    for text in refused { #expect(!grammar.matches(text), "\(text)") }
  }

  @Test func `Text has forms where their mark is, and only there`() throws {
    let form = CompiledGrammar.Form(prefix: "<c>", schema: .object, suffix: "</c>")
    for (areMany, more) in [
      (true, ["<c>{}</c> and <c>{\"a\":1}</c>", "é<c>{}</c><c>{}</c>é"]), (false, []),
    ] {
      let grammar = try CompiledGrammar(text: "<c>", [form], areMany: areMany)
      for text in ["", "a", "<", "<c", "a<<c< c>", "ü\n<c>{}</c>", "<<c>{\"a\":[1]}</c>"] + more {
        #expect(grammar.matches(text), "\(text)")
      }
      for text in ["<c>", "<c>a", "a<c>[]</c>", "<c>{}", "<c>{}</c", "<<c> {}</c><c>"] {
        #expect(!grammar.matches(text), "\(text)")
      }
      #expect(grammar.matches("<c>{}</c>a") == areMany)
    }
  }

  @Test func `Text that begins with a bracket is a form`() throws {
    let form = CompiledGrammar.Form(prefix: "{\"n\": ", schema: .object, suffix: "}")
    for separator in [nil, ";"] {
      let grammar = try CompiledGrammar(textOrForms: [form], separator: separator)
      for text in ["", " \n", "a {", " é{\"n\": 5}", "{\"n\": {}}"] {
        #expect(grammar.matches(text), "\(text)")
      }
      for text in ["{", " {}", "{\"n\": 5}", "{\"n\": {}} ", "{\"n\": {}};"] {
        #expect(!grammar.matches(text), "\(text)")
      }
      #expect(grammar.matches("{\"n\": {}};{\"n\": {\"a\":1}}") == (separator != nil))
    }
  }

  @Test(arguments: 1...4)
  func `Automata without a word accept what does not have it`(seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    func text(_ count: Int) -> [UInt8] {
      (0..<count).map { _ in UInt8.random(in: 97...98, using: &generator) }
    }
    for _ in 0..<50 {
      let word = text(Int.random(in: 1...5, using: &generator))
      let form = CompiledGrammar.Form(
        prefix: String(decoding: word, as: UTF8.self), schema: .object)
      let grammar = try CompiledGrammar(text: form.prefix, [form], areMany: true)
      for _ in 0..<50 {
        let other = String(decoding: text(Int.random(in: 0...12, using: &generator)), as: UTF8.self)
        #expect(grammar.matches(other) == !other.contains(form.prefix), "\(other), \(form.prefix)")
      }
    }
  }

  private static let mistakes: [(String, Int, String)] = [
    ("", 0, "no rule 'root'"), ("root ::= other", 9, "'other' is not defined"),
    ("root ::= \"a", 9, "not closed"), ("root ::= [a", 9, "not closed"),
    ("root ::= (\"a\"", 9, "not closed"), ("root ::= [z-a]", 9, "wrong way round"),
    ("root ::= \"a\"{3,2}", 13, "wrong way round"), ("root ::= \"\\q\"", 10, "unknown"),
    ("root = \"a\"", 5, "':' is missing"), ("root ::= \"a\"\nroot ::= \"b\"", 13, "twice"),
    ("root ::= root \"a\" | \"b\"", 0, "left recursion"),
    ("root ::= \"b\"? b\nb ::= root \"c\"", 0, "left recursion"),
    ("root ::= \"a\" root", 0, "no text matches"), ("root ::= \"a\"{99999999}", 13, "above"),
    ("root ::= <[12]>", 9, "tokens"), ("root ::= \"\\ud800\"", 10, "surrogate"),
  ]

  @Test("What is wrong with a grammar is told with its place", arguments: mistakes)
  func errors(grammar: String, offset: Int, reason: String) {
    let error = #expect(throws: GrammarError.self) { try CompiledGrammar(gbnf: grammar) }
    #expect(error?.place == .offset(offset), "\(error.map { "\($0)" } ?? "")")
    #expect(error?.reason.contains(reason) ?? false, "\(error.map { "\($0)" } ?? "")")
  }

  private static let wholes: [(String, [String], [String])] = [
    (#"^[a-z]+\d{2,3}$"#, ["ab12", "z999"], ["12", "ab1", "ab1234", "ab12 "]),
    (#"(?:foo|ba[rz])+?"#, ["foo", "barbaz"], ["", "bax"]),
    (#"\w+@\w+\.(com|org)"#, ["a_1@b.org"], ["a@b.net", "é@b.org"]),
    (#".*"#, ["", "日本語 x"], ["a\nb"]), (#"[\s\S]*"#, ["a\nb"], []),
    (#"\u00e9\x41\t[\]\-^]"#, ["éA\t]", "éA\t-", "éA\t^"], ["eA\t]"]),
    (#"a{2}{"#, [], []), (#"a{,2}b|x{y"#, ["a{,2}b", "x{y"], ["aab"]),
    (#"\ud83d\ude00"#, ["😀"], []), (#"(?<year>[0-9]{4})"#, ["2026"], ["26"]),
    (#"(^a|b$)|^c$"#, ["a", "b", "c"], ["ab"]),
  ]

  @Test("Patterns are matched whole", arguments: wholes)
  func patterns(pattern: String, accepted: [String], refused: [String]) {
    guard let grammar = try? CompiledGrammar(pattern: pattern) else {
      #expect(accepted.isEmpty, "\(pattern)")
      return
    }
    for text in accepted { #expect(grammar.matches(text), "\(text)") }
    for text in refused { #expect(!grammar.matches(text), "\(text)") }
  }

  private static let unsupported: [(String, Int)] = [
    (#"a(?=b)"#, 1), (#"(a)\1"#, 3), (#"\bword"#, 0), (#"\p{L}"#, 0), ("a**", 2), ("*a", 0),
    ("(a", 0), ("a)", 1), ("[a", 0), ("[z-a]", 0), ("a^b", 1), ("x(^a)", 1), (#"\ud800"#, 0),
    ("a{3,1}", 2), (#"\"#, 1),
  ]

  @Test("What no pattern can say is refused with its place", arguments: unsupported)
  func patternErrors(pattern: String, offset: Int) {
    let error = #expect(throws: GrammarError.self) { try CompiledGrammar(pattern: pattern) }
    #expect(error?.place == .offset(offset), "\(error.map { "\($0)" } ?? "")")
  }

  @Test func `Choices are exactly those that are given`() throws {
    let grammar = try CompiledGrammar(choices: ["red", "reddish", "grün", ""])
    for text in ["red", "reddish", "grün", ""] { #expect(grammar.matches(text)) }
    for text in ["re", "redd", "gru"] { #expect(!grammar.matches(text)) }
    #expect(throws: GrammarError.self) { try CompiledGrammar(choices: []) }
  }

  @Test func `Equal texts are equal grammars`() throws {
    let text = #"root ::= "a" | [b-d]{3}"#
    let (first, second) = (try CompiledGrammar(gbnf: text), try CompiledGrammar(gbnf: text))
    #expect(first == second && first.hashValue == second.hashValue)
    #expect(first != (try CompiledGrammar(gbnf: #"root ::= "a" | [b-d]{4}"#)))
  }

  @Test func `Forms are JSON between texts, one or several`() throws {
    let schema = try parseJSON(
      #"{"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": false}"#
    )
    let forms = [
      CompiledGrammar.Form(prefix: "<f>", schema: .schema(schema), suffix: "</f>"),
      CompiledGrammar.Form(prefix: "<g>", schema: .object, suffix: "</g>"),
    ]
    let one = try CompiledGrammar(forms: forms)
    #expect(one.matches(#"<f>{"x": 1}</f>"#) && one.matches(#"<g>{"y": []}</g>"#))
    #expect(!one.matches(#"<f>{"y": 1}</f>"#))
    #expect(!one.matches(#"<f>{"x": 1}</f>\#n<g>{}</g>"#))
    let several = try CompiledGrammar(forms: forms, separator: "\n")
    #expect(several.matches("<f>{\"x\": 1}</f>\n<g>{}</g>"))
  }
}
