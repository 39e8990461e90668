import Glibc
import TestSupport
import Testing

/// What the executables write, and what they never write over.
@Suite(
  .serialized,
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
final class OutputTests {
  private let folder = TemporaryFolder()
  private let bytes = TinyModel().gguf(seed: 1).bytes()
  private func path(_ name: String) -> String { "\(folder.path)/\(name)" }

  init() {
    folder.write("model", bytes)
    folder.write("copy", bytes)
    folder.write("text", Array("the quick brown fox jumps over the lazy dog".utf8))
    link(path("model"), path("hard"))
    symlink("model", path("soft"))
    symlink("nothing", path("dangling"))
    mkfifo(path("pipe"), 0o600)
  }

  /// Every command that writes a file, to be given its name.
  private var writers: [[String]] {
    [
      ["flashinfer-convert", path("model"), "--force"],
      ["flashinfer-convert", path("model"), path("new"), "--force", "--stripe"],
      ["flashinfer-bench", "logits", path("model"), "--tokens", "1,2", "--output"],
      [
        "flashinfer-bench", "logits", path("copy"), "--mirror", path("model"), "--tokens", "1,2",
        "--output",
      ],
      ["flashinfer-bench", "activations", path("model"), path("text"), "--output"],
    ]
  }

  @Test func `No command writes over what it reads, or over what is no regular file`() throws {
    let before = folder.entries
    for writer in writers {
      for name in ["model", "hard", "soft", "pipe", "dangling", "."] {
        let result = try Program.run(writer[0], Array(writer[1...]) + [path(name)])
        #expect(result.status == 64, "\(writer[1...]) \(name): \(result.errors)")
        #expect(result.errors.contains(path(name)), "\(result.errors)")
      }
    }
    let text = ["activations", path("model"), path("text"), "--output", path("text")]
    #expect(try Program.run("flashinfer-bench", text).status == 64)
    #expect(folder.entries == before)
    #expect(folder.read("model") == bytes && folder.read("copy") == bytes)
    var status = stat()
    #expect(lstat(path("pipe"), &status) == 0 && status.st_mode & S_IFMT == S_IFIFO)
    #expect(lstat(path("soft"), &status) == 0 && status.st_mode & S_IFMT == S_IFLNK)
  }

  @Test func `No command replaces what the shell has opened for it, nor writes to an empty path`()
    throws
  {
    symlink("/dev/stdout", path("link"))
    let before = folder.entries
    for writer in writers {
      // Standard output is a file here, as behind `>log`.
      for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/2", path("link"), ""] {
        let result = try Program.run(writer[0], Array(writer[1...]) + [name])
        #expect(result.status == 64, "\(writer[1...]) \(name): \(result.errors)")
        let reason = name.isEmpty ? "the path is empty" : "that a process has open"
        #expect(result.errors.contains(reason) && result.output.isEmpty, "\(result.errors)")
      }
    }
    #expect(folder.entries == before)
  }

  @Test(
    "Where descriptors run out, a conversion names the file that it could not open",
    .enabled(if: access("/usr/bin/prlimit", X_OK) == 0, "prlimit is missing"))
  func descriptors() throws {
    var isEnough = false
    for count in 4...24 where !isEnough {
      let command =
        "cd '\(folder.path)' && exec prlimit --nofile=\(count) \"$BIN/flashinfer-convert\" model new --force"
      let result = try Program.shell(command)
      isEnough = result.status == 0
      guard !isEnough, result.errors.contains("open: `ulimit") else { continue }
      #expect(result.status == 69, "\(count): \(result.errors)")
      let names = ["'new'", "'model'", "io_uring", "a thread"]
      #expect(names.contains { result.errors.contains($0) }, "\(count): \(result.errors)")
    }
    #expect(isEnough)
    #expect(folder.entries.filter { $0.hasPrefix("new") } == ["new"])
  }

  @Test func `A trace is not recorded over the one that is replayed`() throws {
    let record = ["experts", "--synthetic", "uniform", "--slots", "64", "--layers", "2"]
    let first = try Program.run("flashinfer-bench", record + ["--record", path("trace")])
    #expect(first.status == 0, "\(first.errors)")
    let trace = folder.read("trace")
    #expect(!trace.isEmpty)
    let replay = ["experts", "--replay", path("trace"), "--slots", "64", "--record"]
    #expect(try Program.run("flashinfer-bench", replay + [path("trace")]).status == 64)
    #expect(folder.read("trace") == trace)
    #expect(try Program.run("flashinfer-bench", replay + [path("again")]).status == 0)
    #expect(folder.read("again") == trace)
  }

  @Test func `Members of a stripe are not each other, under whatever name`() throws {
    symlink(".", path("here"))
    folder.write("old", [1])
    link(path("old"), path("older"))
    let before = folder.entries
    for (first, second) in [
      ("new", "new"), ("new", "here/new"), ("new", "./new"), ("old", "older"),
    ] {
      let result = try Program.run(
        "flashinfer-convert", [path("model"), path(first), "--stripe", path(second), "--force"])
      #expect(result.status == 64, "\(first) \(second): \(result.errors)")
    }
    #expect(folder.entries == before && folder.read("old") == [1])
  }

  @Test
  func `Crash: a command that is killed leaves the old file, or the new one, and nothing else`()
    throws
  {
    let source = folder.path + "/model"
    let whole = try Program.run("flashinfer-convert", [source, path("whole")])
    #expect(whole.status == 0)
    let image = folder.read("whole")
    var generator = SeededDelays()
    var killed = 0
    for _ in 0..<25 {
      folder.write("image", [1, 2, 3])
      let before = folder.entries
      let result = try Program.run(
        "flashinfer-convert", [source, path("image"), "--force"],
        signal: (SIGKILL, generator.next()))
      killed += result.status == 128 + SIGKILL ? 1 : 0
      // Killed between giving the image a name and putting it in place; the next run takes it away.
      if folder.entries.count(where: { $0.hasPrefix("image.part-") }) == 1 {
        let again = try Program.run("flashinfer-convert", [source, path("image"), "--force"])
        #expect(again.status == 0)
      }
      #expect(folder.entries == before)
      #expect([[1, 2, 3], image].contains(folder.read("image")))
    }
    #expect(killed > 0)
  }

  @Test func `A file that may not grow so long is an error, and nothing is left of it`() throws {
    folder.write("old", [1, 2, 3])
    let before = folder.entries
    for (number, writer) in writers.enumerated() {
      for name in ["old", "new-\(number)"] {
        let words = (writer + [path(name)]).map { "'\($0)'" }.joined(separator: " ")
        let result = try Program.shell("ulimit -f 1; exec \"$BIN\"/\(words)")
        #expect(result.status == 1, "\(words): \(result.status) \(result.errors)")
        #expect(result.errors.contains(path(name)) || result.errors.contains(path("new")))
        #expect(folder.entries == before)
      }
    }
    #expect(folder.read("old") == [1, 2, 3])
  }

  @Test func `Paths are bytes and need not be UTF-8`() throws {
    // One letter of Latin-1 in a folder's name, another in the files'.
    let set = """
      set -e; cd '\(folder.path)'; D=$(printf 'ge\\344ndert'); mkdir "$D"; cd "$D"
      F=$(printf 'mod\\350le'); cp ../model "$F"
      """
    let commands = [
      "\"$BIN\"/flashinfer-run \"$F\" --raw the --max-tokens 3 --temperature 0",
      "\"$BIN\"/flashinfer-run ../model --raw the --mirror=\"$F\" --max-tokens 3 --temperature 0",
      "\"$BIN\"/flashinfer-inspect \"$F\"",
      "\"$BIN\"/flashinfer-convert \"$F\" \"$F.bin\" && \"$BIN\"/flashinfer-inspect --verify \"$F.bin\"",
      """
      "$BIN"/flashinfer-convert "$F" "$F.a" --stripe "$PWD/$F.b" && test -s "$F.b" &&
        "$BIN"/flashinfer-inspect --verify "$F.b"
      """,
      "echo the > \"$F.txt\"; \"$BIN\"/flashinfer-run \"$F\" --raw --prompt-file \"$F.txt\" --max-tokens 1",
      "\"$BIN\"/flashinfer-bench logits \"$F\" --tokens 1,2 --output \"$F.logits\"; test -s \"$F.logits\"",
    ]
    for command in commands {
      let result = try Program.shell("\(set)\n\(command)")
      #expect(result.status == 0, "\(command): \(result.errors)")
      _ = try Program.shell("rm -r '\(folder.path)'/ge*")
    }
    let missing = try Program.shell("\(set)\nexec \"$BIN\"/flashinfer-run \"$F.none\" x")
    #expect(
      missing.status == 66 && missing.errors.contains(#"mod\xe8le.none"#), "\(missing.errors)")
    _ = try Program.shell("rm -r '\(folder.path)'/ge*")
  }
}

/// Milliseconds from nothing to as long as a conversion takes.
private struct SeededDelays {
  private var state: UInt32 = 7

  mutating func next() -> UInt32 {
    state = state &* 1_664_525 &+ 1_013_904_223
    return (state >> 16) % 40
  }
}
