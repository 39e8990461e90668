import Glibc
import TestSupport
import Testing

/// `--kv-store` of flashinfer-run and flashinfer-inspect, across processes.
@Suite(
  .serialized,
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
final class KeyValueStoreTests {
  private let folder = TemporaryFolder()
  private let store = TemporaryFolder()
  /// What the store has beside its count of what was written.
  private var entries: [String] { store.entries.filter { $0 != "written" } }
  private var model: String { folder.path + "/model" }

  init() { folder.write("model", Self.modelBytes(seed: 1)) }

  private static func modelBytes(seed: UInt64) -> [UInt8] {
    var model = TinyModel()
    model.contextLength = 4096
    return model.gguf(seed: seed).bytes()
  }

  /// `count` token ids that depend on `seed`.
  private func prompt(_ count: Int, seed: Int = 1) -> [Int] {
    (0..<count).map { ($0 * 37 + $0 / 5 * seed * 11 + seed) % 256 + 1 }
  }

  private struct Answer: Equatable {
    var tokens: String
    var reusedTokens: Int
  }

  private func arguments(_ prompt: [Int], store: String? = nil) -> [String] {
    [
      model, "--tokens", prompt.map(String.init).joined(separator: ","), "--json",
      "--temperature", "0", "--max-tokens", "20", "--ignore-eos",
    ] + (store.map { ["--kv-store", $0] } ?? [])
  }

  private func run(_ arguments: [String]) throws -> (answer: Answer, errors: String) {
    let result = try Program.run("flashinfer-run", arguments)
    #expect(result.status == 0, "\(result.errors)")
    func value(_ mark: String, until end: Character) -> String {
      guard let range = result.output.firstRange(of: mark) else { return "" }
      return String(result.output[range.upperBound...].prefix { $0 != end })
    }
    return (
      Answer(
        tokens: value("\"tokens\":[", until: "]"),
        reusedTokens: Int(value("\"reusedTokens\":", until: ",")) ?? -1),
      result.errors
    )
  }

  private func answer(_ prompt: [Int], inStore: Bool = true) throws -> Answer {
    try run(arguments(prompt, store: inStore ? store.path : nil)).answer
  }

  private func inspect(_ more: [String] = []) throws -> Program.Result {
    try Program.run("flashinfer-inspect", ["--kv-store", store.path] + more)
  }

  @Test("What was kept of a file is its copy's once their checksums are known")
  func copies() throws {
    let cache = TemporaryFolder()
    let environment = ["XDG_CACHE_HOME=\(cache.path)"]
    func text(_ name: String, _ arguments: [String]) throws -> String {
      let result = try Program.run(name, arguments, environment: environment)
      #expect(result.status == 0, "\(result.errors)")
      return result.output
    }
    let run = arguments(prompt(700), store: store.path)
    let first = try text("flashinfer-run", run)
    #expect(first.contains("\"reusedTokens\":0"))
    #expect(try inspect().output.contains("  file "))
    // The moment after the answer was enough for a model as small as this.
    #expect(
      try text("flashinfer-inspect", [model]).contains("of the checksums of all weights"))
    let copy = folder.write("copy", Self.modelBytes(seed: 1))
    let copied = [copy] + run.dropFirst()
    #expect(try text("flashinfer-inspect", [copy]).contains("identity: not known"))
    #expect(try text("flashinfer-run", copied).contains("\"reusedTokens\":0"))
    #expect(try text("flashinfer-run", copied).contains("\"reusedTokens\":699"))
    #expect(try text("flashinfer-inspect", [copy, "--verify"]).contains("unchanged since"))
    for name in entries { unlink("\(store.path)/\(name)") }
    _ = try text("flashinfer-run", run)
    #expect(try inspect().output.contains("  model "))
    #expect(try text("flashinfer-run", copied).contains("\"reusedTokens\":699"))
  }

  @Test("A later process computes only what no earlier one did, and answers alike")
  func reuse() throws {
    let long = prompt(700)
    let expected = try answer(long, inStore: false)
    #expect(expected.reusedTokens == 0)
    #expect(try answer(long) == expected)
    #expect(try answer(long) == Answer(tokens: expected.tokens, reusedTokens: 699))
    // A prompt that leaves the stored one, and one that continues after it.
    let branch = Array(long[..<400]) + prompt(300, seed: 5)
    let fresh = try answer(branch, inStore: false)
    #expect(try answer(branch) == Answer(tokens: fresh.tokens, reusedTokens: 400))
    #expect(try answer(branch) == Answer(tokens: fresh.tokens, reusedTokens: 699))
    let longer = long + prompt(200, seed: 7)
    let longerAnswer = try answer(longer, inStore: false)
    #expect(try answer(longer) == Answer(tokens: longerAnswer.tokens, reusedTokens: 700))
    #expect(try answer(longer) == Answer(tokens: longerAnswer.tokens, reusedTokens: 899))
    #expect(entries.count == 3)
    // Under other bounds of memory it is the same.
    let small = try run(arguments(longer, store: store.path) + ["--kv-ram", "2MiB"]).answer
    #expect(small == Answer(tokens: longerAnswer.tokens, reusedTokens: 899))
  }

  @Test("The listing shows entries and --forget deletes them") func listing() throws {
    _ = try answer(prompt(300))
    _ = try answer(prompt(300, seed: 2))
    let listing = try inspect()
    #expect(listing.status == 0 && listing.output.contains("2 entries"))
    let lines = listing.output.split(separator: "\n")
    #expect(lines[0].hasPrefix("entry ") && lines[0].contains(" tokens   last used  "))
    #expect(lines[1].contains("     319  ") && lines[1].contains(" ago  "), "\(lines[1])")
    let id = String(lines[1].prefix(16))
    #expect(try inspect(["--forget", id]).status == 0)
    #expect(try inspect(["--forget", id]).status == 66)
    #expect(entries.count == 1)
    #expect(try inspect(["--forget", "all"]).output.hasPrefix("1 entry forgotten"))
    #expect(entries.isEmpty)
    #expect(try Program.run("flashinfer-inspect", ["--kv-store", "/nowhere"]).status == 66)
    #expect(try Program.run("flashinfer-inspect", []).status == 64)
    #expect(try Program.run("flashinfer-inspect", [model, "--forget", "all"]).status == 64)
  }

  @Test("Damaged data is found before a token is shown, and computed again") func damage() throws {
    let long = prompt(700)
    // What is computed again takes the place of what was damaged where both are known by the same weights.
    #expect(try Program.run("flashinfer-inspect", [model, "--verify"]).status == 0)
    let expected = try answer(long)
    let name = try #require(entries.first)
    let intact = store.read(name)
    for place in [intact.count - 40_000, intact.count / 2, intact.count / 3, 5000, 100] {
      var bytes = intact
      bytes[place] ^= 4
      store.write(name, bytes)
      let damaged = try run(arguments(long, store: store.path))
      #expect(damaged.answer.tokens == expected.tokens, "byte \(place)")
      #expect(try answer(long) == Answer(tokens: expected.tokens, reusedTokens: 699))
    }
    var bytes = intact
    bytes[intact.count - 1000] ^= 4
    store.write(name, bytes)
    #expect(try answer(long) == Answer(tokens: expected.tokens, reusedTokens: 640))
  }

  @Test("Another model's entries are ignored with a line that says so") func otherModel() throws {
    let long = prompt(300)
    _ = try answer(long)
    folder.write("model", Self.modelBytes(seed: 2))
    let other = try run(arguments(long, store: store.path))
    #expect(other.answer.reusedTokens == 0)
    #expect(other.errors.contains("1 entry of another model"))
    #expect(try answer(long, inStore: false).tokens == other.answer.tokens)
    #expect(entries.count == 2)
  }

  @Test(
    "Entries of another type are ignored; of a quantised one what was being filled is taken too")
  func types() throws {
    let long = prompt(300)
    _ = try answer(long)
    let quantised = arguments(long, store: store.path) + ["--kv-type", "q8"]
    let first = try run(quantised)
    #expect(first.answer.reusedTokens == 0)
    #expect(first.errors.contains("1 entry of another type or shape of keys and values ignored"))
    let second = try run(quantised)
    #expect(second.answer == Answer(tokens: first.answer.tokens, reusedTokens: 299))
    #expect(second.errors.contains("keys and values: q8"))
    #expect(try answer(long).reusedTokens == 299)
    #expect(entries.count == 2)
  }

  @Test("Where the store cannot be used the answer comes without it, and one warning")
  func noStore() throws {
    let expected = try answer(prompt(300), inStore: false)
    for path in [model, model + "/store", "/proc/none"] {
      let result = try run(arguments(prompt(300), store: path))
      #expect(result.answer == expected)
      #expect(result.errors.split(separator: "\n").count { $0.hasPrefix("warning") } == 1)
    }
    let tooSmall = try run(
      arguments(prompt(300), store: store.path) + ["--kv-store-limit", "10KiB"])
    #expect(tooSmall.answer == expected && tooSmall.errors.contains("limit"))
    #expect(entries.isEmpty)
  }

  /// How long a run takes from its start to its end.
  private func millisecondsOfRun(_ prompt: [Int]) throws -> UInt32 {
    var (start, end) = (timespec(), timespec())
    clock_gettime(CLOCK_MONOTONIC, &start)
    _ = try answer(prompt)
    clock_gettime(CLOCK_MONOTONIC, &end)
    return UInt32((end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1_000_000)
  }

  @Test("Crash: a process killed at any moment leaves nothing behind and damages nothing older")
  func crashKills() throws {
    let count = getenv("FLASHINFER_KILL_TRIALS").flatMap { Int(String(cString: $0)) } ?? 12
    let stem = prompt(512)
    let expected = try answer(stem)
    let older = try #require(entries.first)
    let bytes = store.read(older)
    var answers: [Int: Answer] = [:]
    var interruptedCount = 0
    let longest = try millisecondsOfRun(stem + prompt(900, seed: 2))
    unlink("\(store.path)/\(try #require(entries.first { $0 != older }))")
    for trial in 0..<count {
      let seed = trial % 8 + 2
      let branch = stem + prompt(900, seed: seed)
      let delay = UInt32.random(in: 0...longest)
      _ = try Program.run(
        "flashinfer-run", arguments(branch, store: store.path), signal: (SIGKILL, delay))
      if entries.contains(where: { $0.hasSuffix(".part") }) { interruptedCount += 1 }
      #expect(store.read(older) == bytes, "trial \(trial), \(delay) ms")
      let listing = try inspect()
      #expect(listing.status == 0 && !listing.output.contains("damaged"))
      #expect(entries.allSatisfy { $0.hasSuffix(".kv") }, "trial \(trial), \(delay) ms")
      guard trial % 4 == 3 else { continue }
      let known = try answers[seed] ?? answer(branch, inStore: false)
      answers[seed] = known
      let again = try answer(branch)
      #expect(again.tokens == known.tokens && again.reusedTokens >= 384)
      // The next trials shall have something to write.
      for name in entries where name != older { unlink("\(store.path)/\(name)") }
    }
    #expect(try answer(stem).tokens == expected.tokens)
    #expect(count < 50 || interruptedCount > count / 10, "\(interruptedCount) were writing")
  }
}
