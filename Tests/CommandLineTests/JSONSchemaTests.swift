import Glibc
import TestSupport
import Testing

/// Python's jsonschema, where it is installed, on `docs/json.schema.json`.
private enum JSONValidator {
  static let canValidate = interpreter != nil

  /// A Python that has the package: the first on PATH, or the system's, which Debian's packages are for.
  private static let interpreter = ["python3", "/usr/bin/python3"].first {
    run($0, "import jsonschema.validators", []) == nil
  }

  private static let schema =
    "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    + "/docs/json.schema.json"

  /// Runs a Python program; nil where it ended well, otherwise what it said.
  private static func run(
    _ interpreter: String, _ program: String, _ arguments: [String]
  ) -> String? {
    let folder = TemporaryFolder()
    let script = folder.write("program.py", Array(program.utf8))
    let result = try? Program.run(
      "", [], launcher: ["/usr/bin/env", interpreter, script] + arguments)
    guard let result else { return "python3 cannot be started" }
    return result.status == 0 ? nil : result.output + result.errors
  }

  /// Validates each line of a file; says which lines are wrong, where and why.
  private static let validator = """
    import json, sys
    from jsonschema import Draft202012Validator
    schema = json.load(open(sys.argv[1]))
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    def refuse(name): raise ValueError(name + " is not JSON")
    def unique(pairs):
        if len(dict(pairs)) < len(pairs): raise ValueError("a name twice: " + str([p[0] for p in pairs]))
        return dict(pairs)
    wrong = 0
    for number, line in enumerate(open(sys.argv[2], encoding="utf-8", newline="\\n")):
        try:
            document = json.loads(line, parse_constant=refuse, object_pairs_hook=unique)
            errors = list(validator.iter_errors(document))
        except ValueError as error:
            errors = [error]
        if not errors: continue
        wrong += 1
        print("line", number, line[:300])
        for error in errors[:3]:
            print("  ", getattr(error, "json_path", ""), str(getattr(error, "message", error))[:300])
            for cause in getattr(error, "context", None) or []:
                print("     ", list(cause.schema_path)[:3], cause.json_path, cause.message[:200])
    sys.exit(wrong > 0)
    """

  static func validate(_ lines: [String]) -> String? {
    let folder = TemporaryFolder()
    let path = folder.write("lines", Array((lines.joined(separator: "\n") + "\n").utf8))
    return run(interpreter ?? "python3", validator, [schema, path])
  }
}

/// What `--json` prints, against `docs/json.schema.json`.
@Suite(
  .serialized,
  .enabled(
    if: Program.isBuilt, "the executables are not built beside the tests: swift build first"),
  .enabled(if: JSONValidator.canValidate, "python3-jsonschema is not installed")
)
struct JSONSchemaTests {
  @Test func `What 200 calls of all commands print fits the schema`() throws {
    let folder = TemporaryFolder()
    var combinations = try JSONCombinations(folder, seed: 15)
    var lines: [String] = []
    for index in 0..<200 {
      let call = combinations.call(index)
      let result = try Program.run(call.program, call.arguments)
      let command = ([call.program] + call.arguments).joined(separator: " ")
      #expect(result.status == 0, "\(index): \(command): \(result.errors)")
      #expect(
        result.output.last == "\n" && result.output.filter { $0 == "\n" }.count == 1,
        "\(index): \(command)")
      lines.append(String(result.output.dropLast()))
    }
    let problems = JSONValidator.validate(lines)
    #expect(problems == nil, "\(problems ?? "")")
  }

  @Test func `The schema refuses what is not in it`() throws {
    let folder = TemporaryFolder()
    let model = folder.write("model", TinyModel().gguf(seed: 1).bytes())
    let output = try Program.run(
      "flashinfer-bench", ["decode", model, "--tokens", "2", "--json"]
    ).output.dropLast()
    #expect(JSONValidator.validate([String(output)]) == nil)
    for (part, other) in [
      ("\"value\":", "\"value\":NaN,\"was\":"), ("\"value\":", "\"value\":null,\"limit\":"),
      ("\"schemaVersion\":1", "\"schemaVersion\":1,\"more\":2"),
      ("\"unit\":\"B\"", "\"unit\":\"\""),
      ("\"command\":\"flashinfer-bench decode\"", "\"command\":\"flashinfer-bench\""),
      ("\"options\":", "\"option\":"),
    ] {
      var changed = String(output)
      changed.replaceSubrange(try #require(changed.firstRange(of: part)), with: other)
      #expect(JSONValidator.validate([changed]) != nil, "\(other)")
    }
  }

  @Test func `A figure without a value says why`() throws {
    let folder = TemporaryFolder()
    let model = folder.write("model", TinyModel().gguf(seed: 1).bytes())
    let text = folder.write("text", Array(String(repeating: "the rain on ", count: 90).utf8))
    let arguments = [
      "policy", model, text, "--context", "200", "--positions", "2", "--kv-policy", "window=128",
    ]
    let result = try Program.run("flashinfer-bench", arguments + ["--json"])
    #expect(result.status == 0, "\(result.errors)")
    #expect(
      result.output.contains("\"name\":\"kvByteFraction\",\"value\":null,\"unit\":\"fraction\""))
    #expect(result.output.contains("nothing can be divided by it"))
    let lines = try Program.run("flashinfer-bench", arguments)
    #expect(lines.status == 0 && !lines.output.contains("nan"), "\(lines.output)")
  }

  @Test func `Options are those that were given and are not the default`() throws {
    let folder = TemporaryFolder()
    let model = folder.write("model", TinyModel().gguf(seed: 1).bytes())
    let result = try Program.run(
      "flashinfer-run",
      [
        model, "--raw", "--max-tokens=2", "--temperature", "0.7", "--seed", "1", "--seed", "5",
        "--mirror", model, "--json", "--", "-1 + 1",
      ])
    #expect(result.status == 0, "\(result.errors)")
    let options =
      "\"options\":{\"json\":true,\"max-tokens\":\"2\",\"mirror\":[\"\(model)\"],"
      + "\"model\":\"\(model)\",\"prompt\":\"-1 + 1\",\"raw\":true,\"seed\":\"5\"}"
    #expect(result.output.contains(options), "\(result.output)")
    #expect(result.output.contains("\"seed\":5,"))
  }

  @Test func `A seed that was drawn gives the same answer again`() throws {
    let folder = TemporaryFolder()
    let model = folder.write("model", TinyModel().gguf(seed: 1).bytes())
    let arguments = [model, "--tokens", "5,6", "--max-tokens", "8", "--ignore-eos", "--json"]
    let first = try Program.run("flashinfer-run", arguments)
    let seed = try #require(first.output.firstMatch(of: /"seed":(\d+)/)).output.1
    let second = try Program.run("flashinfer-run", arguments + ["--seed", String(seed)])
    func tokens(_ output: String) -> Substring? {
      output.firstMatch(of: /"tokens":(\[[^\]]*\])/)?.output.1
    }
    #expect(tokens(first.output) != nil && tokens(first.output) == tokens(second.output))
  }
}
