import TestSupport
import Testing

/// What every program says of itself.
@Suite(
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
struct HelpTests {
  private static let programs = [
    "flashinfer-run", "flashinfer-convert", "flashinfer-inspect", "flashinfer-bench",
  ]
  private static let benches = [
    "load", "decode", "prefill", "perplexity", "logits", "experts", "sparse", "attention", "policy",
    "speculate", "activations", "in-storage", "sparf", "products",
  ]

  @Test func `Every command has a version`() throws {
    let commands = Self.programs.map { [$0] } + Self.benches.map { ["flashinfer-bench", $0] }
    var versions: Set<String> = []
    for command in commands {
      let result = try Program.run(command[0], command.dropFirst() + ["--version"])
      #expect(result.status == 0 && result.errors.isEmpty, "\(command): \(result.errors)")
      versions.insert(result.output)
    }
    #expect(versions.count == 1, "\(versions)")
  }

  @Test func `Refusals begin with error, in small letters`() throws {
    for arguments in [
      ["--nonsense"], [], ["m", "p", "--max-tokens", "x"], ["m", "p", "--max-tokens", "0"],
      ["m", "p", "q"], ["/nowhere", "p"], ["m", "p", "--temperature"],
    ] {
      let result = try Program.run("flashinfer-run", arguments)
      #expect(result.status == 64 || result.status == 66, "\(arguments): \(result.errors)")
      #expect(result.errors.hasPrefix("error: "), "\(arguments): \(result.errors)")
    }
  }

  @Test func `A name that is no subcommand, and none at all, are usage errors`() throws {
    let none = try Program.run("flashinfer-bench", [])
    #expect(none.status == 64 && none.output.isEmpty && none.errors.contains("SUBCOMMANDS"))
    let wrong = try Program.run("flashinfer-bench", ["help", "nonsense"])
    #expect(wrong.status == 64 && wrong.errors.contains("'nonsense'"), "\(wrong.errors)")
    #expect(wrong.errors.contains("prefill") && wrong.output.isEmpty)
    let right = try Program.run("flashinfer-bench", ["help", "load"])
    #expect(right.status == 0 && right.output.contains("--tune"))
  }

  @Test func `A negative value is refused for what it is`() throws {
    for (option, range) in [
      ("--temperature", "0 or more"), ("--top-k", "0 or more"), ("--top-p", "above 0"),
      ("--min-p", "between 0 and 1"), ("--repetition-penalty", "above 0"),
      ("--max-tokens", "between 1"), ("--threads", "between 1"), ("--context", "between 1"),
      ("--logprobs", "between 1"), ("--seed", "a whole number from 0 to 9223372036854775807"),
    ] {
      let result = try Program.run("flashinfer-run", ["m", "p", option, "-1"])
      #expect(result.status == 64, "\(option)")
      #expect(
        result.errors.hasPrefix("error: \(option) must be \(range)"), "\(option): \(result.errors)")
    }
    for seed in ["9223372036854775808", "1.5", "x", ""] {
      let result = try Program.run("flashinfer-run", ["m", "p", "--seed", seed])
      #expect(
        result.status == 64 && result.errors.contains("from 0 to 9223372036854775807, not \(seed)"))
    }
  }

  @Test func `Help is grouped by what one wants, simulated drives last, with examples`() throws {
    let help = try Program.run("flashinfer-run", ["--help"]).output
    var rest = help[...]
    for title in [
      "Examples:", "PROMPT", "ANSWER", "MEMORY, PROCESSORS AND DRIVE", "OUTPUT",
      "KEYS AND VALUES", "EXPERTS AND NEURONS", "ATTENTION IN SIMULATED DRIVES",
    ] {
      let found = try #require(rest.firstRange(of: title), "\(title) in \(help)")
      rest = rest[found.upperBound...]
    }
    for bench in Self.benches {
      let help = try Program.run("flashinfer-bench", [bench, "--help"]).output
      #expect(help.contains("flashinfer-bench \(bench) "), "\(bench): \(help)")
      #expect(help.contains("Examples:") && help.contains("--quiet"), "\(bench): \(help)")
    }
  }

  @Test func `Every script answers --help with its usage`() throws {
    let root = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    for script in [
      "cut-layers", "demo", "distil", "enlarge", "fuzz", "gates", "install", "stress-kv-store",
      "test", "train-selector",
    ].map({ "tools/\($0)" }) + ["benchmarks/budget"] {
      let result = try Program.shell("exec '\(root)/\(script)' --help")
      #expect(result.status == 0, "\(script): \(result.errors)")
      #expect(result.output.contains("usage: \(script)"), "\(script): \(result.output)")
    }
  }

  @Test(arguments: ["bash", "zsh", "fish"])
  func `Every program writes its completions, and describes itself for a manual`(shell: String)
    throws
  {
    for program in Self.programs {
      let script = try Program.run(program, ["--generate-completion-script", shell])
      #expect(script.status == 0 && script.output.contains("quiet"), "\(program): \(script.errors)")
      let manual = try Program.run(program, ["--experimental-dump-help"])
      #expect(manual.status == 0 && manual.output.first == "{", "\(program): \(manual.errors)")
    }
  }
}
