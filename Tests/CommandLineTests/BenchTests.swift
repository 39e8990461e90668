import TestSupport
import Testing

/// `flashinfer-bench decode` and `prefill` on tiny models, dense and with experts.
@Suite(
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
struct BenchTests {
  private let folder = TemporaryFolder()

  private func figures(_ arguments: [String]) throws -> String {
    let result = try Program.run("flashinfer-bench", arguments + ["--json"])
    #expect(result.status == 0, "\(result.errors)")
    #expect(result.output.filter { $0 == "\n" }.count == 1)
    return result.output
  }

  private let shares = [
    "driveShare", "productsShare", "attentionShare", "elementwiseShare", "restShare",
  ]

  @Test func `decode prints speed, bytes and where the time goes`() throws {
    let model = folder.write("dense", TinyModel().gguf(seed: 1).bytes())
    let output = try figures([
      "decode", model, "--tokens", "3", "--warmup", "1", "--random-tokens", "1", "--dram",
    ])
    for name in [
      "decodeTokensPerSecond", "activeBytesPerSecond", "bytesPerToken", "kernelReadBytesPerSecond",
      "pinnedBytes", "streamedBytes", "peakResidentBytes", "dramBytesPerSecond",
    ] + shares { #expect(output.contains("\"name\":\"\(name)\""), "\(name)") }
    #expect(!output.contains("expertHitRate"))
  }

  @Test func `decode of experts prints what their cache did`() throws {
    let model = folder.write("experts", TinyModel.withExperts("qwen3moe").gguf(seed: 1).bytes())
    let output = try figures(["decode", model, "--tokens", "3", "--random-tokens", "1"])
    for name in ["expertHitRate", "expertsPerToken", "expertBytesPerToken"] {
      #expect(output.contains("\"name\":\"\(name)\""), "\(name)")
    }
  }

  @Test func `prefill prints the first time and the later ones`() throws {
    let model = folder.write("dense", TinyModel().gguf(seed: 1).bytes())
    let output = try figures(["prefill", model, "--tokens", "9", "--repeats", "2"])
    for name in [
      "timeToFirstTokenSeconds", "kernelReadBytes", "prefillTokensPerSecond", "bytesPerPrompt",
      "chunkTokens", "pinnedBytes", "peakResidentBytes",
    ] + shares { #expect(output.contains("\"name\":\"\(name)\""), "\(name)") }
    let once = try figures(["prefill", model, "--tokens", "9", "--repeats", "0"])
    #expect(once.contains("timeToFirstTokenSeconds") && !once.contains("prefillTokensPerSecond"))
  }

  @Test func `sparse refuses what it cannot measure before it measures anything`() throws {
    let model = folder.write("dense", TinyModel().gguf(seed: 1).bytes())
    for (path, reason) in [
      (folder.path + "/missing", "No such file"), (model, "bundles of neurons"),
    ] {
      let result = try Program.run("flashinfer-bench", ["sparse", path])
      #expect(result.status != 0 && result.errors.contains(reason), "\(result.errors)")
      #expect(!result.errors.contains("naive…"), "\(result.errors)")
    }
  }

  @Test func `in-storage prints published figures and sweeps`() throws {
    let paper = try figures(["in-storage", "--paper"])
    #expect(paper.hasPrefix("{\"figures\":[{\"name\":"))
    for text in ["\"kind\":\"predicted\"", "\"level\":\"system\"", "\"published\":6.85"] {
      #expect(paper.contains(text), "\(text)")
    }
    let sweeps = try figures(["in-storage", "--explore", "--machine", "paper"])
    for name in ["context", "batch", "channels", "link", "group", "drives"] {
      #expect(sweeps.contains("\"name\":\"\(name)\""), "\(name)")
    }
    #expect(try Program.run("flashinfer-bench", ["in-storage"]).status == 64)
  }

  @Test(arguments: [
    ["decode", "--tokens", "0"], ["decode", "--warmup", "0"], ["prefill", "--tokens", "0"],
    ["prefill", "--repeats", "-1"],
  ])
  func `Impossible counts are usage errors`(arguments: [String]) throws {
    let model = folder.write("dense", TinyModel().gguf(seed: 1).bytes())
    let result = try Program.run(
      "flashinfer-bench", [arguments[0], model] + arguments.dropFirst())
    #expect(result.status == 64, "\(result.errors)")
  }
}
