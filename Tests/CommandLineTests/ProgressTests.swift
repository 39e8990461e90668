import Glibc
import TestSupport
import Testing

/// What is seen while a command works, on a terminal and elsewhere.
@Suite(
  .serialized,
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
final class ProgressTests {
  private let folder = TemporaryFolder()
  private var model: String { folder.path + "/model" }

  init() { folder.write("model", TinyModel().gguf(seed: 1).bytes()) }

  private var load: [String] { ["load", model, "--io", "pread", "--seconds", "1.2"] }

  @Test func `Work of a second shows a line on a terminal, which is gone at the end`() throws {
    let screen = try Program.onTerminal("flashinfer-bench", load)
    #expect(screen.status == 0)
    let draws = screen.transcript.split(separator: "\r\u{1B}[K").filter {
      $0.contains("reading model") && $0.contains(" s left")
    }
    #expect(draws.count >= 5, "\(screen.transcript)")
    #expect(draws.allSatisfy { $0.contains("█") || $0.contains("░") })
    #expect(!screen.lines.contains { $0.contains("reading model") }, "\(screen.lines)")
    #expect(screen.lines.first?.hasPrefix("load ") == true, "\(screen.lines)")
  }

  @Test(arguments: [40, 80, 132] as [UInt16])
  func `A line fits the terminal`(columns: UInt16) throws {
    let screen = try Program.onTerminal("flashinfer-bench", load, columns: columns)
    let draws = screen.transcript.split(separator: "\r\u{1B}[K").filter {
      $0.contains("reading model")
    }
    #expect(!draws.isEmpty && draws.allSatisfy { $0.count < Int(columns) }, "\(draws)")
  }

  @Test func `--quiet, and a standard error that is no terminal, show no line`() throws {
    let quiet = try Program.onTerminal("flashinfer-bench", load + ["--quiet"])
    #expect(quiet.status == 0 && !quiet.transcript.contains("reading model"))
    #expect(!quiet.transcript.contains("\u{1B}"))
    let piped = try Program.run("flashinfer-bench", load)
    #expect(piped.status == 0 && piped.errors.isEmpty, "\(piped.errors)")
  }

  @Test func `Ctrl-C takes the line away, and says so on a line of its own`() throws {
    let screen = try Program.onTerminal(
      "flashinfer-bench", ["load", model, "--io", "pread", "--seconds", "60"],
      type: ("reading model", "\u{3}"))
    #expect(screen.status == 130)
    #expect(screen.lines == ["error: interrupted"], "\(screen.lines)")
  }

  @Test func `An error after half an answer begins a line`() throws {
    // Drives fail when they are first read from: once what they hold in memory is full.
    var tiny = TinyModel()
    (tiny.layerCount, tiny.headDim, tiny.keyValueHeadCount) = (6, 128, 4)
    folder.write("deep", tiny.gguf(seed: 1).bytes())
    let result = try Program.shell(
      """
      exec "$BIN"/flashinfer-run '\(folder.path)/deep' --tokens 7 --temperature 0 --ignore-eos \
        --max-tokens 100 --kv-dir '\(folder.path)' --attention in-storage --device-bit-errors 0.3 2>&1
      """)
    #expect(result.status == 1, "\(result.output)")
    let start = try #require(result.output.firstRange(of: "error: ")?.lowerBound)
    try #require(start > result.output.startIndex, "there is no half answer before the error")
    #expect(result.output[result.output.index(before: start)] == "\n", "\(result.output)")
  }

  @Test(
    .enabled(if: RealModels.smolLM2 != nil, "SmolLM2 is not there"))
  func `Reading a long prompt shows how far it has come before the first word`() throws {
    let model = try #require(RealModels.smolLM2)
    let prompt = String(repeating: "The quick brown fox jumps over the lazy dog. ", count: 40)
    let screen = try Program.onTerminal(
      "flashinfer-run",
      [model, "--raw", prompt, "--ram", "33MiB", "--max-tokens", "4", "--temperature", "0"])
    #expect(screen.status == 0)
    let first = try #require(screen.transcript.firstRange(of: "reading the prompt"))
    let answer = try #require(screen.transcript.firstRange(of: "The quick"))
    #expect(first.lowerBound < answer.lowerBound)
    #expect(!screen.lines.contains { $0.contains("reading the prompt") }, "\(screen.lines)")
    #expect(screen.lines.allSatisfy { $0.count < 80 }, "\(screen.lines)")
  }

  @Test func `A summary fits 80 columns and says why the answer ended, or keeps still`() throws {
    func run(_ arguments: [String]) throws -> Program.Result {
      try Program.run("flashinfer-run", [model, "--raw", "the", "--ignore-eos"] + arguments)
    }
    let short = try run(["--max-tokens", "5", "--kv-type", "q8", "--kv-policy", "window=128"])
    #expect(short.status == 0 && short.errors.contains("answer: 5 tokens"), "\(short.errors)")
    #expect(short.errors.contains("cut off at 5 tokens: --max-tokens"), "\(short.errors)")
    #expect(short.errors.split(separator: "\n").allSatisfy { $0.count < 80 }, "\(short.errors)")
    #expect(!short.errors.contains(" 0 B") && short.errors.contains("seed "))
    let full = try run(["--context", "8", "--max-tokens", "100"])
    #expect(full.errors.contains("the context of 8 tokens is full; --context"), "\(full.errors)")
    let quiet = try run(["--max-tokens", "5", "--quiet"])
    #expect(quiet.status == 0 && quiet.errors.isEmpty && !quiet.output.isEmpty)
  }
}
