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

  /// The least that would do, in MiB, as a refusal tells it.
  private func leastBudget(_ refusal: Program.Result) throws -> Double {
    let told = try #require(refusal.errors.firstRange(of: "that works here is ")?.upperBound)
    return try #require(Double(refusal.errors[told...].prefix { $0 != " " }))
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

  @Test func `Prompts that begin alike are read from where a store has them`() throws {
    let shared = (0..<25).map { "\($0) words" }.joined(separator: ", ")
    let lines = (0..<6).map { #"{"prompt":"\#(shared) and \#($0 * $0)"}"# }
    let alone = try answer(lines)
    for round in 0..<2 {
      let stored = try answer(lines, ["--kv-store", folder.path + "/store", "--sequences", "2"])
      #expect(stored.status == 0, "\(stored.errors)")
      let reused = results(stored.output).map {
        value("reusedTokens", $0).flatMap { Int($0) } ?? -1
      }
      #expect(reused.count { $0 >= 128 } >= (round == 0 ? 1 : 6), "\(reused)")
      func text(_ output: String) -> [String] {
        results(output).map { "\(value("line", $0) ?? "") \(value("text", $0) ?? "")" }.sorted()
      }
      #expect(text(stored.output) == text(alone.output))
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
      (Self.lines, ["--kv-type", "q4"], "of another prompt"),
      (Self.lines, ["--kv-policy", "window=128"], "of another prompt"),
      (Self.lines, ["--context", "100"], "of another prompt"),
    ] {
      let result = try answer(lines, ["--output", output] + arguments)
      #expect(result.status == 64 && result.errors.contains(what), "\(result.errors)")
      #expect(folder.read("answers") == kept)
    }
    // A copy is the same model; with one weight that differs it is another.
    let weights = folder.read("model")
    folder.write("model", weights)
    let copy = try answer(Self.lines, ["--output", output])
    #expect(copy.status == 0 && folder.read("answers") == kept, "\(copy.errors)")
    var others = weights
    others[others.count - 100] ^= 1
    folder.write("model", others)
    let other = try answer(Self.lines, ["--output", output])
    #expect(other.status == 64 && other.errors.contains("of another prompt"), "\(other.errors)")
    folder.write("model", weights)
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
      (#"{"prompt":"a","temperature":"hot"}"#, "'temperature' must be a number"),
      (
        #"{"prompt":"a","seed":-1}"#, "'seed' must be a whole number from 0 to 9223372036854775807"
      ), (#"{"prompt":"a","seed":1.5}"#, "'seed'"),
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
    for arguments in [
      ["--json", "--logprobs", "2"], ["--attention", "in-storage:dense"], ["--tokens", "1"],
      ["--sequences", "0"],
    ] {
      let result = try answer(Self.lines, arguments)
      #expect(result.status == 64, "\(arguments): \(result.errors)")
    }
    for arguments in [["x", "--output", "y"], ["x", "--sequences", "2"]] {
      let result = try Program.run("flashinfer-run", [model, "--raw"] + arguments)
      #expect(result.status == 64 && result.errors.contains("--prompts"), "\(result.errors)")
    }
    #expect(mkfifo(folder.path + "/pipe", 0o600) == 0)
    let pipe = try answer(Self.lines, ["--output", folder.path + "/pipe"])
    #expect(pipe.status == 64 && pipe.errors.contains("a pipe keeps no results"), "\(pipe.errors)")
    let nowhere = try answer(Self.lines, ["--kv-store", ""])
    #expect(nowhere.status == 64 && nowhere.errors.contains("--kv-store"), "\(nowhere.errors)")
    let full = try answer(Self.lines, ["--output", "/dev/full"])
    #expect(full.status == 1 && full.errors.contains("No space left"), "\(full.errors)")
  }

  @Test func `Results are JSON with and without being asked`() throws {
    let lines = Array(Self.lines[..<3])
    let asked = try answer(lines, ["--json"])
    #expect(asked.status == 0, "\(asked.errors)")
    #expect(try results(asked.output).sorted() == results(answer(lines).output).sorted())
  }

  @Test func `An error is tried again, and its line may change`() throws {
    var lines = Array(Self.lines[..<3])
    let bad = #"{"prompt":"a","max_tokens":"#
    lines.insert(bad + "0}", at: 1)
    let first = try answer(lines, ["--output", output])
    #expect(first.status == 65 && first.errors.contains("1 line of"), "\(first.errors)")
    // Still wrong, but in another way: the last result of a line counts.
    lines[1] = #"{"max_tokens":4}"#
    let second = try answer(lines, ["--output", output])
    #expect(second.status == 65, "\(second.errors)")
    #expect(second.errors.contains("3 prompts were answered before"), "\(second.errors)")
    lines[1] = bad + "4}"
    let third = try answer(lines, ["--output", output])
    #expect(third.status == 0, "\(third.errors)")
    #expect(third.errors.contains("1 prompt, ") && third.errors.contains("1 answer at a time"))
    let results = results(String(decoding: folder.read("answers"), as: UTF8.self))
    #expect(results.map { value("line", $0) == "2" }.count { $0 } == 3)
    #expect(results.last.flatMap { value("tokens", $0) } == "4")
    let last = try answer(lines, ["--output", output])
    #expect(last.status == 0 && last.errors.contains("4 prompts were answered"), "\(last.errors)")
    // An answer does not become an error.
    lines[1] = bad + "0}"
    #expect(try answer(lines, ["--output", output]).status == 64)
  }

  @Test func `Checksums have sixteen digits, and those of earlier versions are known`() throws {
    #expect(try answer(Self.lines, ["--output", output]).status == 0)
    let whole = String(decoding: folder.read("answers"), as: UTF8.self)
    #expect(results(whole).allSatisfy { value("input", $0)?.utf8.count == 16 })
    var earlier = whole
    while let zero = earlier.firstRange(of: "\"input\":\"0") {
      earlier.replaceSubrange(zero, with: "\"input\":\"")
    }
    folder.write("answers", Array(earlier.utf8))
    let again = try answer(Self.lines, ["--output", output])
    #expect(again.status == 0 && again.errors.contains("40 prompts were"), "\(again.errors)")
  }

  @Test func `A run that is refused leaves no results file`() throws {
    for (lines, arguments) in [
      ([""], []), ([#"{"prompt":"a"}"#], ["--ram", "1MiB"]),
      ([#"{"prompt":"a"}"#], ["--kv-ram", "1KiB"]),
    ] as [([String], [String])] {
      let result = try answer(lines, ["--output", output] + arguments)
      #expect(result.status != 0 && access(output, F_OK) != 0, "\(result.errors)")
    }
    // One that was there is not removed.
    folder.write("answers", [])
    #expect(try answer([""], ["--output", output]).status == 65)
    #expect(access(output, F_OK) == 0)
  }

  @Test func `Files of prompts and results may be longer than any prompt`() throws {
    #expect(try answer(["", #"{"prompt":"a"}"#], ["--output", output]).status == 0)
    // Spaces at a line's end are no part of it.
    let blank = [UInt8](repeating: UInt8(ascii: " "), count: 40 << 20) + [10]
    let prompts = folder.write("long", blank + Array("{\"prompt\":\"a\"}\n".utf8) + blank)
    let answers = folder.read("answers")
    let padding =
      "{\"line\":2,\"error\":\"\(String(repeating: "x", count: 40 << 20))\",\"runSeed\":3,"
    let error = Array((padding + "\"input\":\"0\"}\n").utf8)
    folder.write("answers", error + error + answers)
    let arguments = [model, "--raw", "--seed", "3", "--max-tokens", "12", "--output", output]
    let run = try Program.run("flashinfer-run", arguments + ["--prompts", prompts])
    #expect(run.status == 0 && run.errors.contains("1 prompt was answered before"), "\(run.errors)")
    // A result has a bound.
    folder.write("answers", error.dropLast(4) + error)
    let long = try Program.run("flashinfer-run", arguments + ["--prompts", prompts])
    #expect(
      long.status == 65 && long.errors.contains("answers, line 1: longer than 64 MiB"),
      "\(long.errors)")
  }

  @Test func `A line that no prompt is as long as does not end the others`() throws {
    let long = "{\"prompt\":\"\(String(repeating: "x", count: 3 << 20))\"}"
    let run = try answer([#"{"prompt":"a"}"#, long, #"{"prompt":"b"}"#])
    #expect(run.status == 65, "\(run.errors)")
    let found = results(run.output)
    #expect(found.count == 3 && found.contains { $0.hasPrefix(#"{"line":2,"error":"#) })
    let error = found.first { $0.contains("error") }.flatMap { value("error", $0) }
    #expect(error?.contains("byte 131072") == true && error?.contains("128 KiB") == true)
  }

  @Test func `Lines are read when it is their turn, and one that was changed by then is refused`()
    throws
  {
    let line = #"{"prompt":"a","max_tokens":400}"#
    folder.write("prompts", Array(String(repeating: line + "\n", count: 400).utf8))
    let run = try Program.shell(
      """
      cd \(folder.path); sed s/a/b/ prompts > others
      $BIN/flashinfer-run model --raw --prompts prompts --ignore-eos --sequences 1 --output answers &
      while ! [ -s answers ]; do sleep 0.01; done
      dd if=others of=prompts conv=notrunc 2>/dev/null; wait $!
      """)
    #expect(run.status == 65 && run.errors.contains("was changed while"), "\(run.errors)")
  }

  @Test func `A file of prompts may be longer than the budget, also through a pipe`() throws {
    let one = try answer([#"{"prompt":"a"}"#], ["--ram", "1MiB"])
    let least = try leastBudget(one)
    let padding = String(repeating: " ", count: 1000)
    // What cannot be answered says so at once.
    let bad = Array(String(repeating: "{\"prompt\":5}\(padding)\n", count: 60_000).utf8)
    let prompts = folder.write("prompts", Array("{\"prompt\":\"a\"}\n".utf8) + bad)
    let arguments = [
      model, "--raw", "--ram", "\(least + 12)MiB", "--kv-dir", folder.path, "--max-tokens", "2",
    ]
    let file = try Program.run("flashinfer-run", arguments + ["--prompts", prompts, "--seed", "3"])
    #expect(file.status == 65 && file.output.contains("\"line\":60001"), "\(file.errors)")
    let pipe = try Program.shell(
      "cat \(prompts) | $BIN/flashinfer-run \(arguments.joined(separator: " ")) --prompts - --seed 3"
    )
    #expect(pipe.status == 65 && results(pipe.output).count == 60_001, "\(pipe.errors)")
  }

  @Test func `A budget that is enough for one answer at a time is enough for all prompts`() throws {
    // The least is told in quarters of a MiB.
    let tooLittle = try answer(Self.lines, ["--sequences", "1", "--ram", "1MiB"])
    let least = try leastBudget(tooLittle)
    for more in stride(from: 0.5, through: 8, by: 1.5) {
      let result = try answer(Self.lines, ["--ram", "\(least + more)MiB", "--context", "400"])
      #expect(result.status == 0, "\(least + more) MiB: \(result.errors)")
    }
  }

  @Test func `As many answers go at a time as their keys and values have room for`() throws {
    // A page of each of the two layers, and the room that pages need on their way.
    func run(_ lengths: [Int], _ arguments: [String]) throws -> Program.Result {
      try answer(
        lengths.map { #"{"prompt":"a","max_tokens":\#($0)}"# },
        ["--context", "2048", "--temperature", "0", "--kv-dir", folder.path] + arguments)
    }
    func countAtATime(_ result: Program.Result) -> Int? {
      #expect(result.status == 0, "\(result.errors)")
      let end = result.errors.firstRange(of: " at a time at most")?.lowerBound
      let words = end.map { result.errors[..<$0].split { $0 == " " } }
      return words?.dropLast().last.flatMap { Int($0) }
    }
    let short = [Int](repeating: 8, count: 20)
    let ample = try run(short, [])
    #expect(countAtATime(ample) == 20)
    #expect(!ample.errors.contains("one prompt is answered at a time"))
    // One long line does not keep the others waiting.
    let mixed = try run([2000] + short, ["--kv-ram", "3MiB"])
    #expect(countAtATime(mixed).map { $0 > 4 } == true, "\(mixed.errors)")
    // Where all are long, memory is for one.
    let long = try run([700, 700, 700], ["--kv-ram", "256KiB"])
    #expect(countAtATime(long) == 1)
    #expect(long.errors.contains("one prompt is answered at a time"), "\(long.errors)")
    let asked = try run([700, 700, 700], ["--kv-ram", "3MiB", "--sequences", "2"])
    #expect(countAtATime(asked) == 2)
    #expect(results(asked.output).sorted() == results(long.output).sorted())
  }
}
