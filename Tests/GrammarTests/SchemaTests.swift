import Foundation
import Grammar
import ModelFormat
import TensorBasics
import TestSupport
import Testing

/// One line of `Schemas/schemas.jsonl`.
private struct SchemaCase {
  let line: String
  let schema: JSONValue
  let valid: [String]
  let invalid: [String]

  static func read() -> [SchemaCase] {
    let folder = "/" + #filePath.split(separator: "/").dropLast().joined(separator: "/")
    let text = try! String(contentsOfFile: "\(folder)/Schemas/schemas.jsonl", encoding: .utf8)
    return text.split(separator: "\n").map { line in
      let json = try! parseJSON(String(line))
      return SchemaCase(
        line: String(line), schema: json["schema"]!,
        valid: json["valid"]!.array!.map { $0.string! },
        invalid: json["invalid"]!.array!.map { $0.string! })
    }
  }
}

/// Answers under schemas are what Python's jsonschema takes for valid.
@Suite struct SchemaTests {
  @Test func `Two hundred schemas take their samples and refuse what is none`() throws {
    let cases = SchemaCase.read()
    #expect(cases.count >= 200)
    for item in cases {
      let grammar = try CompiledGrammar(jsonSchema: item.schema)
      for text in item.valid { #expect(grammar.matches(text), "\(text) of \(item.line)") }
      for text in item.invalid { #expect(!grammar.matches(text), "\(text) of \(item.line)") }
    }
  }

  private static let interpreter = ["/usr/bin/python3", "python3"].first {
    system("\($0) -c 'import jsonschema' 2>/dev/null") == 0
  }

  @Test(.enabled(if: interpreter != nil, "python3-jsonschema is not installed"))
  func `Random answers under two hundred schemas are valid`() throws {
    let cases = SchemaCase.read()
    var lines: [String] = []
    var count = 0
    for (number, item) in cases.enumerated() {
      let grammar = try CompiledGrammar(jsonSchema: item.schema)
      var generator = SeededGenerator(seed: UInt64(number))
      for _ in 0..<12 {
        guard
          let answer = grammar.randomAnswer(
            &generator, length: 120, favouring: Set("\"]}:,".utf8))
        else { continue }
        count += 1
        let text = String(validating: answer, as: UTF8.self)
        #expect(text != nil, "no UTF-8: \(item.line)")
        let line = JSONWriter.document {
          $0.number("schema", number)
          $0.text("text", text)
        }
        lines.append(String(decoding: line.filter { $0 != 0x0A }, as: UTF8.self))
      }
    }
    #expect(count > 6 * cases.count, "only \(count) answers ended")
    let folder = TemporaryFolder()
    let program = folder.write("check.py", Array(Self.program.utf8))
    let answers = folder.write("answers", Array(lines.joined(separator: "\n").utf8))
    let schemas = folder.write(
      "schemas", Array(cases.map(\.line).joined(separator: "\n").utf8))
    let status = system(
      "\(Self.interpreter!) \(program) \(schemas) \(answers) > \(folder.path)/errors 2>&1")
    #expect(status == 0, "\(String(decoding: folder.read("errors"), as: UTF8.self))")
  }

  private static let program = """
    import json, sys
    import jsonschema
    schemas = [json.loads(line)["schema"] for line in open(sys.argv[1], encoding="utf-8")]
    wrong = 0
    for line in open(sys.argv[2], encoding="utf-8", newline="\\n"):
        answer = json.loads(line)
        number, text = answer["schema"], answer["text"]
        schema = schemas[number]
        old = isinstance(schema, dict) and "draft-07" in schema.get("$schema", "")
        kind = jsonschema.Draft7Validator if old else jsonschema.Draft202012Validator
        try:
            error = next(kind(schema).iter_errors(json.loads(text)), None)
        except ValueError as problem:
            error = problem
        if error is not None:
            wrong += 1
            print(json.dumps(schema)[:300], text, str(error)[:200], sep="\\n  ")
    sys.exit(wrong > 0)
    """

  private static let refused: [(String, String, String)] = [
    (#"{"type": "array", "uniqueItems": true}"#, "#", "uniqueItems"),
    (#"{"properties": {"a/b": {"not": {}}}}"#, "#/properties/a~1b", "'not'"),
    (#"{"if": {}}"#, "#", "'if'"), (#"{"type": "text"}"#, "#", "'type'"),
    (#"{"contains": {}}"#, "#", "'contains'"), (#"{"items": {"format": "zip"}}"#, "#/items", "zip"),
    (##"{"$ref": "#/$defs/a"}"##, "#", "not there"), (#"{"$ref": "other.json"}"#, "#", "document"),
    (#"{"items": {"pattern": "a(?=b)"}}"#, "#/items/pattern", "look-around"),
    (#"{"oneOf": [{"type": "integer"}, {"type": "number"}]}"#, "#", "same time"),
    (#"{"items": {"multipleOf": 0.1}}"#, "#/items", "multipleOf"),
    (#"{"items": 3}"#, "#/items", "schema must be"), (#"{"minLength": -1}"#, "#", "minLength"),
    (#"{"type": "integer", "minimum": 3, "maximum": 2}"#, "#", "no text"),
    (#"{"dependentRequired": {}}"#, "#", "dependentRequired"), (#"{"enum": []}"#, "#", "'enum'"),
    (#"{"type": "object", "minProperties": 3}"#, "#", "minProperties"),
  ]

  @Test("What is not supported or wrong is refused by its name and place", arguments: refused)
  func refusals(schema: String, pointer: String, reason: String) {
    let error = #expect(throws: GrammarError.self) { try CompiledGrammar(jsonSchema: schema) }
    #expect(error?.reason.contains(reason) ?? false, "\(error.map { "\($0)" } ?? "")")
    #expect(
      error?.place == .pointer(pointer) || reason == "no text", "\(error.map { "\($0)" } ?? "")")
  }
}
