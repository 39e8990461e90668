import TestSupport
import Testing

@Suite(
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
struct ExpertsBenchTests {
  private let small = [
    "experts", "--layers", "4", "--experts", "16", "--used", "2", "--tokens", "50", "--warmup",
    "10",
  ]

  private func run(_ arguments: [String]) throws -> Program.Result {
    try Program.run("flashinfer-bench", arguments)
  }

  @Test func printsEveryPolicyAgainstTheOptimum() throws {
    let result = try run(small + ["--synthetic", "zipf", "--slots", "20", "--json"])
    #expect(result.status == 0, "\(result.errors)")
    #expect(result.output.filter { $0 == "\n" }.count == 1)
    for policy in ["lru", "lfu", "decayed", "next-use"] {
      for figure in ["hitRate", "missesPerToken", "shareOfClairvoyant"] {
        #expect(result.output.contains("\"name\":\"\(figure)/\(policy)\""), "\(figure)/\(policy)")
      }
    }
    #expect(result.output.contains("\"name\":\"hitRate/clairvoyant\""))
    let one = try run(
      small + ["--synthetic", "zipf", "--slots", "20", "--json", "--policy", "lru"])
    #expect(one.output.contains("hitRate/lru") && !one.output.contains("hitRate/lfu"))
  }

  @Test func aRecordedTraceReplaysTheSame() throws {
    let folder = TemporaryFolder()
    let path = folder.path + "/trace"
    let drawn = try run(
      small + ["--synthetic", "uniform", "--slots", "20", "--record", path])
    let replayed = try run(["experts", "--replay", path, "--warmup", "10", "--slots", "20"])
    #expect(drawn.status == 0, "\(drawn.errors)")
    #expect(replayed.status == 0, "\(replayed.errors)")
    #expect(drawn.output == replayed.output && !drawn.output.isEmpty)
    folder.write("trace", Array(folder.read("trace").dropLast()))
    let damaged = try run(["experts", "--replay", path, "--slots", "20"])
    #expect(damaged.status == 65)
    #expect(damaged.errors.contains("at byte"), "\(damaged.errors)")
  }

  @Test func aModelsRunIsRecordedAndComparedWithTheOptimum() throws {
    let folder = TemporaryFolder()
    let model = folder.write("model", TinyModel.withExperts("qwen3moe").gguf(seed: 1).bytes())
    let arguments = [
      "experts", model, "--random-tokens", "1", "--tokens", "12", "--warmup", "4", "--ram", "1GiB",
      "--json", "--no-expert-history", "--record", folder.path + "/trace",
    ]
    let result = try run(arguments)
    #expect(result.status == 0, "\(result.errors)")
    for figure in ["slots", "bytesPerToken", "dutyCycle", "expertHitRate", "hitRate/clairvoyant"] {
      #expect(result.output.contains("\"name\":\"\(figure)\""), "\(figure)")
    }
    #expect(folder.entries == ["model", "trace"])
    let replayed = try run(
      ["experts", "--replay", folder.path + "/trace", "--warmup", "4", "--slots", "16"])
    #expect(replayed.status == 0, "\(replayed.errors)")
    #expect(try run(arguments.filter { $0 != "--no-expert-history" }).status == 0)
    #expect(folder.entries == ["model", "model.experts", "trace"])
    #expect(try run(arguments + ["--slots", "9"]).status == 64)
  }

  @Test func refusesWhatCannotBe() throws {
    let slots = ["--slots", "20"]
    #expect(try run(small + slots).status == 64, "no trace")
    #expect(
      try run(small + slots + ["--synthetic", "zipf", "--replay", "x"]).status == 64)
    #expect(try run(small + ["--synthetic", "zipf", "--slots", "1"]).status == 64)
    #expect(try run(["experts", "--replay", "/nowhere/trace"] + slots).status == 66)
    #expect(try run(small + slots + ["--synthetic", "zipf", "--used", "17"]).status == 64)
  }
}
