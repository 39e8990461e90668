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
      typing: [("reading model", "\u{3}")])
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

  /// A library before the C library's own, with which reads take as long as from a drive of 10 MB/s.
  private func slowReads() throws -> [String] {
    let source = """
      #define _GNU_SOURCE
      #include <dlfcn.h>
      #include <pthread.h>
      #include <unistd.h>
      static pthread_mutex_t drive = PTHREAD_MUTEX_INITIALIZER;
      ssize_t pread64(int file, void *bytes, size_t count, off64_t offset) {
        ssize_t (*real)(int, void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pread64");
        if (count >= 65536) {
          pthread_mutex_lock(&drive);
          usleep(count / 10);
          pthread_mutex_unlock(&drive);
        }
        return real(file, bytes, count, offset);
      }
      ssize_t pread(int file, void *bytes, size_t count, off_t offset) { return pread64(file, bytes, count, offset); }

      """
    let path = folder.write("slow.c", Array(source.utf8))
    let library = folder.path + "/slow.so"
    let compiled = try Program.shell("clang -shared -fPIC -o '\(library)' '\(path)' -ldl")
    #expect(compiled.status == 0, "\(compiled.errors)")
    return ["LD_PRELOAD=" + library]
  }

  @Test func `A token that takes long shows what is read, below the answer, until it comes`() throws
  {
    var wide = TinyModel()
    (wide.layerCount, wide.hiddenSize, wide.feedForwardLength) = (16, 512, 1536)
    (wide.queryHeadCount, wide.headDim) = (8, 64)
    let path = folder.write("wide", wide.gguf(seed: 1).bytes())
    let arguments = [
      path, "--raw", "the", "--ram", "40MiB", "--io", "pread", "--temperature", "0",
      "--ignore-eos", "--max-tokens", "3", "--no-expert-history",
    ]
    let answer = try Program.run("flashinfer-run", arguments).output.dropLast()
    let first = try Program.run("flashinfer-run", arguments + ["--max-tokens", "1"]).output
      .dropLast()
    try #require(answer.hasPrefix(first) && answer.allSatisfy { $0 != "\n" }, "\(answer)")
    let environment = try slowReads()
    // On the narrow one the first token fills the row: the next begins another.
    for columns in [80, max(1, first.count)] {
      let screen = try Program.onTerminal(
        "flashinfer-run", arguments, environment: environment, columns: UInt16(columns))
      #expect(screen.status == 0)
      // Drawn below, and the cursor is back.
      let drawing = String("next token: 2 s, ".prefix(columns - 1))
      let shown = screen.transcript.split(separator: "\u{1B}[B\r\u{1B}[K" + drawing)
      #expect(shown.count >= 3, "\(screen.transcript)")
      if columns == 80 { #expect(screen.transcript.contains(" MiB read\u{1B}8")) }
      let rows = screen.rows(columns: columns)
      #expect(rows.joined().hasPrefix(answer), "\(rows)")
      #expect(!rows.contains { $0.contains("next token") }, "\(rows)")
    }
    let piped = try Program.run("flashinfer-run", arguments, environment: environment)
    #expect(piped.status == 0 && piped.output.dropLast() == answer)
    #expect(!piped.errors.contains("next token") && !piped.errors.contains("\u{1B}"))
  }

  @Test func `A summary fits 80 columns and says why the answer ended, or keeps still`() throws {
    func run(_ arguments: [String]) throws -> Program.Result {
      try Program.run("flashinfer-run", [model, "--raw", "the", "--ignore-eos"] + arguments)
    }
    let short = try run(["--max-tokens", "5", "--kv-type", "q8", "--kv-policy", "window=128"])
    #expect(short.status == 0 && short.errors.contains("answer: 5 tokens"), "\(short.errors)")
    #expect(short.errors.contains("cut off at 5 tokens: raise --max-tokens"), "\(short.errors)")
    #expect(short.errors.split(separator: "\n").allSatisfy { $0.count < 80 }, "\(short.errors)")
    #expect(!short.errors.contains(" 0 B") && short.errors.contains("seed "))
    let full = try run(["--context", "8", "--max-tokens", "100"])
    #expect(full.errors.contains("the context of 8 tokens is full; --context"), "\(full.errors)")
    let quiet = try run(["--max-tokens", "5", "--quiet"])
    #expect(quiet.status == 0 && quiet.errors.isEmpty && !quiet.output.isEmpty)
  }
}
