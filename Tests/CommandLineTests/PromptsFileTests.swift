import Glibc
import TensorBasics
import TestSupport
import Testing

/// `flashinfer-run --prompts`: each line answered once, as it would be alone.
@Suite(
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
final class PromptsFileTests {
  private let folder = TemporaryFolder()
  private var model: String { folder.path + "/model" }
  private var output: String { folder.path + "/answers" }

  init() { folder.write("model", TinyModel().gguf(seed: 1).bytes()) }

  private func answer(
    _ lines: [String], _ arguments: [String] = [], signal: (Int32, UInt32)? = nil
  ) throws -> Program.Result {
    let prompts = folder.write("prompts", Array((lines.joined(separator: "\n") + "\n").utf8))
    return try Program.run(
      "flashinfer-run",
      [model, "--raw", "--prompts", prompts, "--seed", "3", "--max-tokens", "12"] + arguments,
      signal: signal)
  }

  /// The value of a text or number of a result.
  private func value(_ name: String, _ result: some StringProtocol) -> String? {
    guard let start = result.firstRange(of: "\"\(name)\":")?.upperBound else { return nil }
    let rest = result[start...]
    guard rest.hasPrefix("\"") else { return String(rest.prefix { $0 != "," && $0 != "}" }) }
    return String(rest.dropFirst().prefix { $0 != "\"" })
  }

  private func results(_ text: String) -> [Substring] { text.split(separator: "\n") }

  private static let lines = (0..<40).map { index in
    #"{"prompt":"a line with the number \#(index * index)","id":"p\#(index)""#
      + [#","max_tokens":3}"#, "}", #","temperature":0}"#, #","seed":9}"#][index % 4]
  }

  @Test func `An answer does not depend on how many are under way`() throws {
    let alone = try answer(Self.lines, ["--sequences", "1"])
    #expect(alone.status == 0, "\(alone.errors)")
    #expect(results(alone.output).count == Self.lines.count)
    for arguments in [["--sequences", "7"], ["--sequences", "40", "--threads", "3"], []] {
      let together = try answer(Self.lines, arguments)
      #expect(together.status == 0, "\(together.errors)")
      #expect(results(together.output).sorted() == results(alone.output).sorted())
    }
  }

  @Test func `An answer is that of the prompt alone with its seed`() throws {
    for result in results(try answer(Array(Self.lines[..<4])).output) {
      let index = try #require(value("line", result).flatMap { Int($0) }) - 1
      let seed = try #require(value("seed", result))
      let count = index % 4 == 0 ? "3" : "12"
      let temperature = index % 4 == 2 ? "0" : "0.7"
      let alone = try Program.run(
        "flashinfer-run",
        [
          model, "--raw", "--json", "a line with the number \(index * index)", "--seed", seed,
          "--max-tokens", count, "--temperature", temperature,
        ])
      #expect(value("text", result) == value("text", alone.output), "\(result)")
    }
  }

  @Test func `A run that was killed goes on where it was`() throws {
    let whole = results(try answer(Self.lines).output).sorted()
    var generator = SeededGenerator(seed: 4)
    for round in 0..<12 {
      unlink(output)
      for _ in 0..<3 {
        _ = try answer(
          Self.lines, ["--output", output, "--sequences", "3"],
          signal: (SIGKILL, UInt32.random(in: 5...120, using: &generator)))
      }
      // What a full disk leaves of a line.
      if round % 3 == 0 {
        var bytes = folder.read("answers")
        bytes.removeLast(min(bytes.count, 7))
        folder.write("answers", bytes)
      }
      let last = try answer(Self.lines, ["--output", output])
      #expect(last.status == 0, "\(last.errors)")
      #expect(results(String(decoding: folder.read("answers"), as: UTF8.self)).sorted() == whole)
    }
  }

  @Test func `Results of another input are not mixed with these`() throws {
    #expect(try answer(Self.lines, ["--output", output]).status == 0)
    let kept = folder.read("answers")
    var changed = Self.lines
    changed[5] = #"{"prompt":"another"}"#
    for (lines, arguments, what) in [
      (changed, [], "line 6"), (Self.lines, ["--temperature", "0.1"], "of another prompt"),
      (Array(Self.lines[..<9]), [], "of another prompt"),
      (Self.lines, ["--seed", "4"], "--seed 3"),
    ] {
      let result = try answer(lines, ["--output", output] + arguments)
      #expect(result.status == 64 && result.errors.contains(what), "\(result.errors)")
      #expect(folder.read("answers") == kept)
    }
    folder.write("answers", Array("{\"line\":1}\n".utf8))
    let foreign = try answer(Self.lines, ["--output", output])
    #expect(foreign.status == 65 && foreign.errors.contains("line 1"), "\(foreign.errors)")
  }

  @Test func `A line that is not valid says why and does not end the others`() throws {
    let bad = [
      ("{", "not valid JSON"), ("[1]", "must be a JSON object"), ("{}", "either 'prompt'"),
      (#"{"prompt":"a","messages":[]}"#, "either 'prompt'"), (#"{"prompt":""}"#, "not empty"),
      (#"{"prompt":1}"#, "not empty"), (#"{"prompt":"a","max_tokens":0}"#, "'max_tokens'"),
      (#"{"prompt":"a","max_tokens":1e99}"#, "'max_tokens'"),
      (#"{"prompt":"a","temperature":-1}"#, "'temperature'"),
      (#"{"prompt":"a","seed":-1}"#, "'seed'"), (#"{"prompt":"a","seed":1.5}"#, "'seed'"),
      (#"{"prompt":"a","stop":[""]}"#, "'stop'"), (#"{"prompt":"a","stop":7}"#, "'stop'"),
      (#"{"prompt":"a","id":{}}"#, "'id'"), (#"{"prompt":"a","top_q":1}"#, "'top_q'"),
      (#"{"prompt":"\#(String(repeating: "long ", count: 3000))"}"#, "has room for"),
    ]
    let lines = bad.map(\.0) + ["", #"{"prompt":"good"}"#]
    let run = try answer(lines)
    #expect(run.status == 65 && run.errors.contains("\(bad.count) lines"), "\(run.errors)")
    let results = results(run.output)
    #expect(results.count == bad.count + 1)
    for (index, (line, reason)) in bad.enumerated() {
      let result = results.first { value("line", $0) == "\(index + 1)" }
      #expect(result?.contains("\"error\":") == true, "\(line)")
      #expect(result?.contains(reason) == true, "\(line): \(result ?? "")")
    }
    #expect(results.last.flatMap { value("line", $0) } == "\(lines.count)")
    // The next run with the same output has nothing to do, and says the same.
    for _ in 0..<2 { #expect(try answer(lines, ["--output", output]).status == 65) }
    #expect(folder.read("answers").count { $0 == 10 } == bad.count + 1)
  }

  @Test func `What cannot be combined with many prompts is refused`() throws {
    for arguments in [["--json"], ["--kv-store", "x"], ["--tokens", "1"], ["--sequences", "0"]] {
      let result = try answer(Self.lines, arguments)
      #expect(result.status == 64, "\(arguments): \(result.errors)")
    }
    for arguments in [["x", "--output", "y"], ["x", "--sequences", "2"]] {
      let result = try Program.run("flashinfer-run", [model, "--raw"] + arguments)
      #expect(result.status == 64 && result.errors.contains("--prompts"), "\(result.errors)")
    }
    let full = try answer(Self.lines, ["--output", "/dev/full"])
    #expect(full.status == 1 && full.errors.contains("No space left"), "\(full.errors)")
  }
}
