import TestSupport
import Testing

/// `flashinfer-run --json-schema` and `--grammar`, of one prompt and of many.
@Suite(
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
final class GrammarOptionTests {
  private let folder = TemporaryFolder()

  init() { folder.write("model", TinyModel().gguf(seed: 1).bytes()) }

  private func run(_ arguments: [String], input: String = "") throws -> Program.Result {
    try Program.run(
      "flashinfer-run",
      [folder.path + "/model", "--raw", "--quiet", "--seed", "4", "--max-tokens", "60"] + arguments,
      input: Array(input.utf8))
  }

  @Test func `The answer is what the grammar or the schema allows`() throws {
    let grammar = folder.write("form.gbnf", Array(#"root ::= "yes" | "no""#.utf8))
    let answer = try run(["then", "--grammar", grammar])
    #expect(answer.status == 0 && ["yes\n", "no\n"].contains(answer.output), "\(answer.errors)")
    let piped = try run(["then", "--grammar", "-"], input: #"root ::= "yes" | "no""#)
    #expect(piped.output == answer.output)
    let schema = folder.write("form.json", Array(#"{"enum": [[1], {"a": "b"}]}"#.utf8))
    let json = try run(["then", "--json-schema", schema])
    let text = json.output.filter { !$0.isWhitespace }
    #expect(json.status == 0 && ["[1]", #"{"a":"b"}"#].contains(text), "\(json.errors)")
  }

  @Test func `Lines of prompts have forms of their own, or the options'`() throws {
    let grammar = folder.write("form.gbnf", Array(#"root ::= "yes" | "no""#.utf8))
    let lines = [
      #"{"prompt": "a"}"#, #"{"prompt": "b", "grammar": "root ::= \"maybe\""}"#,
      #"{"prompt": "c", "json_schema": {"const": 7}}"#,
      #"{"prompt": "d", "json_schema": {"items": {"not": {}}}}"#,
      #"{"prompt": "e", "json_schema": {}, "grammar": "root ::= \"x\""}"#,
    ]
    let prompts = folder.write("prompts", Array(lines.joined(separator: "\n").utf8))
    let result = try run(["--prompts", prompts, "--grammar", grammar])
    #expect(result.status == 65)
    let found = result.output.split(separator: "\n").sorted()
    let expected = [
      "\"text\":\"(yes|no)\"", "\"text\":\"maybe\"", "\"text\":\"7\"",
      "#/items: 'not' is not supported",
      "both 'json_schema' and 'grammar'",
    ]
    try #require(found.count == 5)
    #expect(found[0].contains("\"text\":\"yes\"") || found[0].contains("\"text\":\"no\""))
    for (line, text) in zip(found, expected).dropFirst() {
      #expect(line.contains(text), "\(line)")
    }
  }

  @Test(
    arguments: [
      (["--grammar", "form", "--json-schema", "form"], 64, "not both"),
      (["--grammar", "form"], 65, "form: at byte 9: the rule 'x' is not defined"),
      (["--json-schema", "form"], 65, "not valid JSON"), (["--grammar", "none"], 66, "none"),
    ] as [([String], Int32, String)])
  func `What cannot be understood is told with its place`(
    arguments: [String], status: Int32, message: String
  ) throws {
    folder.write("form", Array("root ::= x".utf8))
    let paths = arguments.map { $0.hasPrefix("-") ? $0 : folder.path + "/" + $0 }
    let result = try run(["then"] + paths)
    #expect(result.status == status && result.errors.contains(message), "\(result.errors)")
  }
}
