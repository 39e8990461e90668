import Glibc
import TestSupport
import Testing

/// `flashinfer-bench load` and `flashinfer-inspect --plan`, with a cache folder of their own.
@Suite(
  .serialized,
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
final class CalibrationTests {
  private let folder = TemporaryFolder()
  private var model: String { folder.path + "/model" }
  private let cache: String

  init() {
    folder.write("model", TinyModel().gguf(seed: 1).bytes())
    cache = folder.path + "/flashinfer/calibration"
  }

  deinit {
    for name in names() { unlink("\(cache)/\(name)") }
    rmdir(cache)
    rmdir(folder.path + "/flashinfer")
  }

  private func run(_ program: String, _ arguments: [String]) throws -> Program.Result {
    try Program.run(program, arguments, environment: ["XDG_CACHE_HOME=\(folder.path)"])
  }

  /// Keeps what is measured, however busy the machine is.
  private let anySpread = ["--max-spread", "100"]

  /// Files in the cache.
  private func names() -> [String] {
    guard let directory = opendir(cache) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if !name.hasPrefix(".") { names.append(name) }
    }
    return names.sorted()
  }

  @Test("load prints its figures through every back end", arguments: ["auto", "pread", "mmap"])
  func load(backEnd: String) throws {
    let options = ["--block-size", "64KiB", "--queue-depth", "4", "--seconds", "0.05"]
    for more in [[], ["--random"]] {
      let result = try run(
        "flashinfer-bench", ["load", model, "--io", backEnd, "--json"] + options + more)
      #expect(result.status == 0, "\(result.errors)")
      #expect(result.output.filter { $0 == "\n" }.count == 1)
      for name in [
        "loadBytesPerSecond", "bytesRead", "requests", "seconds", "latencyMedianMicroseconds",
        "latencyP99Microseconds", "cpuSecondsPerGigabyte",
      ] { #expect(result.output.contains("\"name\":\"\(name)\""), "\(name)") }
    }
    #expect(names().isEmpty, "only --tune keeps anything")
  }

  @Test("load --tune shows the curve, marks the choice and keeps it") func tune() throws {
    let result = try run(
      "flashinfer-bench",
      ["load", model, "--tune", "--seconds", "0.2", "--max-spread", "100", "--io", "pread"])
    #expect(result.status == 0, "\(result.errors)")
    #expect(result.output.contains("[") && result.output.contains("64 KiB"))
    #expect(result.output.contains("chosen block"))
    #expect(names().count == 1 && names().allSatisfy { $0.hasPrefix("drive-") })
    let json = try run(
      "flashinfer-bench",
      [
        "load", model, "--tune", "--seconds", "0.2", "--max-spread", "100", "--io", "pread",
        "--json",
      ])
    #expect(json.status == 0 && json.output.contains("\"name\":\"loadBytesPerSecond/64KiB×1\""))
    let plan = try run(
      "flashinfer-inspect", [model, "--plan", "--ram", "100MiB", "--io", "pread"])
    #expect(plan.output.contains("the drive is measured"), "\(plan.output)")
    #expect(plan.output.contains("--calibrate"), "\(plan.output)")
  }

  @Test("load --tune keeps nothing of a machine that is too busy") func busy() throws {
    let result = try run(
      "flashinfer-bench",
      ["load", model, "--tune", "--seconds", "0.2", "--max-spread", "0", "--io", "pread"])
    #expect(result.status == 0 && result.errors.contains("too busy"), "\(result.errors)")
    #expect(names().isEmpty)
  }

  @Test(
    "inspect --calibrate keeps nothing of a machine that is too busy, and predicts all the same")
  func busyCalibration() throws {
    // Long enough for points of the drive's curve to be measured several times.
    var long = TinyModel()
    long.vocabularyCount = 40_000
    folder.write("long", long.gguf(seed: 1).bytes())
    let plan = [folder.path + "/long", "--plan", "--ram", "100MiB", "--io", "pread"]
    let result = try run("flashinfer-inspect", plan + ["--calibrate", "--max-spread", "0"])
    #expect(result.status == 0 && result.output.contains("predicted decode"), "\(result.errors)")
    for name in ["the drive", "the processor"] {
      #expect(
        result.errors.contains("too busy to be believed: measurements of \(name) differ by"),
        "\(result.errors)")
    }
    #expect(names().isEmpty)
    #expect(try run("flashinfer-inspect", plan + ["--max-spread", "-1"]).status == 64)
    let kept = try run("flashinfer-inspect", plan + ["--calibrate", "--max-spread", "100"])
    #expect(kept.status == 0 && !kept.errors.contains("too busy") && names().count == 2)
  }

  @Test("inspect --plan plans for several sequences") func sequences() throws {
    func plan(_ more: [String]) throws -> Program.Result {
      try run(
        "flashinfer-inspect",
        [model, "--plan", "--ram", "100MiB", "--context", "32", "--json"] + more)
    }
    let (one, eight) = (try plan([]), try plan(["--sequences", "8"]))
    #expect(one.output.contains("\"sequences\":1") && eight.output.contains("\"sequences\":8"))
    #expect(try plan(["--sequences", "0"]).status == 64)
    #expect(
      try run("flashinfer-inspect", [model, "--sequences", "8"]).errors.contains(
        "--sequences goes with --plan"))
  }

  @Test("inspect --plan weighs a draft model against what it pushes out")
  func drafts() throws {
    var small = TinyModel()
    small.layerCount = 1
    folder.write("small", small.gguf(seed: 1).bytes())
    let arguments = [model, "--plan", "--ram", "100MiB", "--io", "pread", "--context", "96"]
    let drafted = arguments + ["--draft", folder.path + "/small"]
    let uncalibrated = try run("flashinfer-inspect", drafted)
    #expect(uncalibrated.status == 0, "\(uncalibrated.errors)")
    #expect(uncalibrated.output.contains("draft model: "), "\(uncalibrated.output)")
    #expect(!uncalibrated.output.contains("predicted with drafts"))
    let calibrated = try run("flashinfer-inspect", drafted + ["--calibrate"] + anySpread)
    #expect(calibrated.output.contains("predicted with drafts"), "\(calibrated.output)")
    let json = try run("flashinfer-inspect", drafted + ["--json"])
    for field in ["draftModel", "streamedBytesWithout", "secondsPerToken"] {
      #expect(json.output.contains("\"\(field)\":"), "\(field)")
    }
    let off = try run("flashinfer-inspect", arguments + ["--draft", "off"])
    #expect(off.status == 0 && !off.output.contains("drafts"), "\(off.output)")
    let larger = try run(
      "flashinfer-inspect", [folder.path + "/small"] + arguments[1...] + ["--draft", model])
    #expect(larger.status != 0 && larger.errors.contains("must be the smaller"), "\(larger)")
    #expect(try run("flashinfer-inspect", [model, "--draft", "off"]).status == 64)
  }

  @Test("inspect --plan predicts once it is calibrated, and running is not disturbed by it")
  func plan() throws {
    let arguments = [model, "--plan", "--ram", "100MiB", "--io", "pread", "--context", "96"]
    let before = try run(
      "flashinfer-inspect", arguments + ["--prompt-length", "32", "--json"])
    #expect(before.status == 0, "\(before.errors)")
    #expect(before.output.contains("\"contextLength\":96"))
    #expect(before.output.contains("\"promptLength\":32"))
    #expect(!before.output.contains("\"predicted\""))
    let answer = [model, "--raw", "then", "--seed", "7", "--max-tokens", "9", "--io", "pread"]
    let uncalibrated = try run("flashinfer-run", answer)
    let calibrated = try run(
      "flashinfer-inspect",
      arguments + ["--prompt-length", "32", "--calibrate", "--json"] + anySpread)
    #expect(calibrated.status == 0, "\(calibrated.errors)")
    for field in [
      "pinnedBytes", "streamedBytes", "decodeTokensPerSecond", "prefillTokensPerSecond", "limit",
      "driveBytesPerSecond", "memoryBytesPerSecond",
    ] { #expect(calibrated.output.contains("\"\(field)\":"), "\(field)") }
    #expect(names().count == 2)
    let later = try run("flashinfer-inspect", arguments + ["--prompt-length", "32"])
    #expect(later.output.contains("predicted decode") && later.output.contains("limit: "))
    #expect(later.output.contains("context: 96 tokens, prompt 32 of them"))
    #expect(try run("flashinfer-run", answer).output == uncalibrated.output)
    for name in names() {
      let file = open("\(cache)/\(name)", O_WRONLY | O_TRUNC)
      _ = "{\"version\":1,".withCString { write(file, $0, 13) }
      close(file)
    }
    let damaged = try run("flashinfer-inspect", arguments + ["--prompt-length", "32"])
    #expect(damaged.status == 0 && damaged.output.contains("not calibrated"))
    #expect(try run("flashinfer-run", answer).output == uncalibrated.output)
  }

  @Test("A calibration that cannot be kept serves the run that made it, with a warning")
  func notKept() throws {
    // What should be a folder is a file.
    let environment = ["XDG_CACHE_HOME=\(model)"]
    let plan = try Program.run(
      "flashinfer-inspect",
      [model, "--plan", "--ram", "100MiB", "--io", "pread", "--calibrate"] + anySpread,
      environment: environment)
    #expect(plan.status == 0, "\(plan.errors)")
    #expect(plan.errors.contains("warning: the calibration is not kept"), "\(plan.errors)")
    #expect(plan.output.contains("predicted decode"))
    let tune = try Program.run(
      "flashinfer-bench",
      ["load", model, "--tune", "--seconds", "0.2", "--max-spread", "100", "--io", "pread"],
      environment: environment)
    #expect(tune.status == 0 && tune.errors.contains("warning: the calibration is not kept"))
    #expect(tune.output.contains("chosen block"))
  }

  @Test("Bad options and files end with their exit codes") func failures() throws {
    folder.write("other", [])
    let cases: [(program: String, arguments: [String], status: Int32)] = [
      ("flashinfer-bench", ["load", model, "--block-size", "5000"], 64),
      ("flashinfer-bench", ["load", model, "--block-size", "0"], 64),
      ("flashinfer-bench", ["load", model, "--queue-depth", "0"], 64),
      ("flashinfer-bench", ["load", model, "--queue-depth", "999999999999"], 64),
      ("flashinfer-bench", ["load", model, "--block-size", "64MiB", "--queue-depth", "64"], 64),
      ("flashinfer-bench", ["load", model, "--seconds", "0"], 64),
      ("flashinfer-bench", ["load", model, "--seconds", "nan"], 64),
      ("flashinfer-bench", ["load", model, "--tune", "--random"], 64),
      ("flashinfer-bench", ["load", folder.path], 65),
      ("flashinfer-bench", ["load", folder.path + "/other"], 65),
      ("flashinfer-bench", ["load", folder.path + "/other", "--tune"], 65),
      ("flashinfer-bench", ["load", folder.path + "/none"], 66),
      ("flashinfer-inspect", [model, "--calibrate"], 64),
      ("flashinfer-inspect", [model, "--plan", "--prompt-length", "0"], 64),
      ("flashinfer-inspect", [model, "--plan", "--context", "10", "--prompt-length", "10"], 64),
      ("flashinfer-inspect", [model, "--plan", "--ram", "1MiB"], 69),
    ]
    for (program, arguments, status) in cases {
      let result = try run(program, arguments)
      #expect(result.status == status, "\(arguments): \(result.errors)")
      #expect(result.output.isEmpty && !result.errors.isEmpty)
    }
  }
}
