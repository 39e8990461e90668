import Grammar
import TensorBasics
import Testing

/// Grammars that are made to cost: each is refused or answered soon, with bounded memory.
@Suite struct HostileGrammarTests {
  private static func nested(_ open: String, _ body: String, _ close: String) -> String {
    String(repeating: open, count: 5000) + body + String(repeating: close, count: 5000)
  }

  private static var grammars: [String] {
    var result: [String] = []
    result.append("root ::= " + nested("(", "\"a\"", ")"))
    let long = String(repeating: "z", count: 400_000)
    result.append("root ::= ((\"ab\" [^x]){9999}){9999} \"" + long + "\"")
    result.append("root ::= \"a\"" + String(repeating: "+", count: 500))
    result.append("root ::= \"a\"" + String(repeating: "{9,99999}", count: 50))
    var rules = ""
    for number in 0..<70_000 { rules += "r\(number) ::= \"a\"\n" }
    result.append(rules)
    result.append("root ::= a\na ::= b\nb ::= c?\nc ::= \"\" a")
    result.append(String(repeating: "x", count: 2_000_000))
    return result
  }

  @Test(arguments: 0..<7)
  func `Hostile grammars are refused`(number: Int) {
    #expect(throws: GrammarError.self) { try CompiledGrammar(gbnf: Self.grammars[number]) }
  }

  private static var patterns: [String] {
    var result: [String] = []
    result.append(nested("(", "x", ")"))
    result.append("((((a{999}){999}){999}){999})b{262145}")
    result.append("[" + String(repeating: "a-z", count: 400_000))
    return result
  }

  @Test(arguments: 0..<3)
  func `Hostile patterns are refused`(number: Int) {
    #expect(throws: GrammarError.self) { try CompiledGrammar(pattern: Self.patterns[number]) }
  }

  private static var schemas: [String] {
    var result: [String] = []
    result.append(#"{"type": "string", "pattern": "(a|b)*a(a|b){40}$"}"#)
    result.append(#"{"type": "string", "pattern": "^((a{900}){900}){900}$"}"#)
    result.append(#"{"type": "string", "pattern": "^a*$", "minLength": 100000}"#)
    result.append(#"{"type": "string", "minLength": 100000000}"#)
    let branch = #"{"anyOf": [{"minimum": 1}, {"maximum": 2}, {"type": "null"}]}"#
    let branches = String(repeating: branch + ",", count: 12)
    result.append(#"{"allOf": ["# + branches + branch + "]}")
    result.append(#"{"type": "array", "minItems": 1000000000}"#)
    result.append(##"{"anyOf": [{"$ref": "#/anyOf/0"}]}"##)
    result.append(
      ##"{"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}"##)
    let deep = String(repeating: #"{"items":"#, count: 60_000)
    result.append(deep + "{}" + String(repeating: "}", count: 60_000))
    var definitions = ""
    for number in 0..<40 {
      let next = "{\"$ref\": \"#/$defs/a\(number + 1)\"}"
      definitions += "\"a\(number)\": {\"anyOf\": [\(next), \(next)]},"
    }
    definitions += "\"a40\": true"
    result.append("{\"$defs\": {\(definitions)}, \"$ref\": \"#/$defs/a0\", \"minimum\": \"x\"}")
    return result
  }

  @Test(arguments: 0..<10)
  func `Hostile schemas are refused`(number: Int) {
    #expect(throws: GrammarError.self) { try CompiledGrammar(jsonSchema: Self.schemas[number]) }
  }

  private static let ambiguous: [String] = [
    "root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"a\" root root | \"d\"",
    "root ::= \"(\" root \")\" | \"((\" root \")\" | \"(\" root \"))\" | \"x\"",
    "root ::= (\"a\" | \"aa\" | \"aaa\")* (\"a\" | \"aa\")* \"b\"",
    "root ::= s s s s s s s s\ns ::= (\"a\" | \"(\" s \")\")*",
  ]

  @Test(arguments: 0..<4)
  func `Ambiguous grammars and deep answers stay small`(number: Int) throws {
    let grammar = try CompiledGrammar(gbnf: Self.ambiguous[number])
    var walk = GrammarWalk(grammar)
    var generator = SeededGenerator(seed: 7)
    for _ in 0..<600 {
      guard case .tokens = walk.next() else { break }
      let allowed = walk.allowed
      let deeper = allowed.filter { "(a".utf8.contains(UInt8($0)) }
      walk.append((deeper.isEmpty ? allowed : deeper).randomElement(using: &generator)!)
    }
    #expect(walk.byteCount < 64 << 20)
  }

  @Test func `Grammars of random bytes never trap`() {
    var generator = SeededGenerator(seed: 3)
    let pieces: [Character] = Array("root ::= a|\"()[]{}*+?\\^$-,.#\n019xuU<é\u{1F600}")
    for _ in 0..<4000 {
      var text = ""
      for _ in 0..<Int.random(in: 0...24, using: &generator) {
        text.append(pieces.randomElement(using: &generator)!)
      }
      _ = try? CompiledGrammar(gbnf: "root ::= " + text)
      _ = try? CompiledGrammar(pattern: text)
    }
  }
}
