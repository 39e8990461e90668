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

  @Test func `decode of several sequences over experts prints what their sweeps read`() throws {
    let model = folder.write("experts", TinyModel.withExperts("qwen3moe").gguf(seed: 1).bytes())
    let output = try figures([
      "decode", model, "--tokens", "3", "--random-tokens", "1", "--sequences", "3",
    ])
    for name in [
      "rowsPerSweep", "expertsPerSweep", "expertResidentShare", "expertBytesPerSweep",
      "expertReadRatio", "expertsReadAheadPerSweep",
    ] { #expect(output.contains("\"name\":\"\(name)\""), "\(name)") }
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

  @Test func `perplexity says how far it is, unless it is to be quiet`() throws {
    let model = folder.write("dense", TinyModel().gguf(seed: 1).bytes())
    let text = folder.write("text", Array(String(repeating: "the cat sat. ", count: 40).utf8))
    let arguments = ["perplexity", model, text, "--context", "32", "--chunks", "2"]
    let loud = try Program.run("flashinfer-bench", arguments)
    #expect(loud.status == 0 && loud.errors.contains("[2/2] "), "\(loud.errors)")
    let quiet = try Program.run("flashinfer-bench", arguments + ["--quiet"])
    #expect(quiet.status == 0 && quiet.errors.isEmpty, "\(quiet.errors)")
    #expect(quiet.output == loud.output)
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
    #expect(paper.contains("\"simulated\":true") && paper.contains("\"comparisons\":[{\"name\":"))
    for text in ["\"kind\":\"predicted\"", "\"level\":\"system\"", "\"published\":6.85"] {
      #expect(paper.contains(text), "\(text)")
    }
    let sweeps = try figures(["in-storage", "--explore", "--machine", "paper"])
    for name in ["context", "batch", "channels", "link", "group", "drives"] {
      #expect(sweeps.contains("\"name\":\"\(name)\""), "\(name)")
    }
    #expect(try Program.run("flashinfer-bench", ["in-storage"]).status == 64)
  }

  @Test
  func `products prints bytes of one row, operations of several, and refuses what is no type`()
    throws
  {
    let small = ["products", "--memory", "1MiB", "--matrix-rows", "64", "--columns", "512"]
    let one = try figures(small)
    for type in ["Q4_0", "Q6_K", "IQ2_XXS", "IQ1_M", "TQ1_0", "NVFP4"] {
      #expect(one.contains("\"name\":\"productBytesPerSecond/\(type)\""), "\(type)")
    }
    #expect(!one.contains("productOperationsPerSecond"))
    let several = try figures(small + ["--type", "iq4_nl", "--rows", "1,30"])
    for name in [
      "productBytesPerSecond/IQ4_NL/1", "productSeconds/IQ4_NL/30",
      "productOperationsPerSecond/IQ4_NL/30",
    ] { #expect(several.contains("\"name\":\"\(name)\""), "\(name)") }
    #expect(!several.contains("productBytesPerSecond/IQ4_NL/30"))
    for (options, reason) in [
      (["--type", "Q4_0,F16"], "'F16' is none of Q4_0"), (["--rows", "1,,2"], "'' is no number"),
      (["--columns", "300"], "--columns of 256"), (["--memory", "4KiB"], "one matrix of"),
      (["--columns", "9223372036854775552"], "between 1 and"),
      (["--matrix-rows", "4611686018427387904"], "between 1 and"),
      (["--threads", "9223372036854775807"], "between 1 and 256"),
    ] {
      let result = try Program.run("flashinfer-bench", small + options)
      #expect(result.status == 64 && result.errors.contains(reason), "\(result.errors)")
    }
  }

  @Test func `Lines for people are words, numbers and units, without blanks at their ends`() throws
  {
    let model = folder.write("dense", TinyModel().gguf(seed: 1).bytes())
    let text = folder.write("text", Array(String(repeating: "the rain on ", count: 60).utf8))
    for arguments in [
      ["decode", model, "--tokens", "2"], ["prefill", model, "--tokens", "9"],
      ["products", "--memory", "1MiB", "--matrix-rows", "64", "--columns", "512"],
      ["load", model, "--seconds", "0.04"], ["load", model, "--through", "read", "--repeat", "2"],
      ["perplexity", model, text, "--context", "16"], ["in-storage", "--explore"],
      ["sparf", model, text, "--context", "16", "--chunks", "1"], ["in-storage", "--paper"],
    ] {
      let result = try Program.run("flashinfer-bench", arguments)
      #expect(result.status == 0, "\(result.errors)")
      for line in result.output.split(separator: "\n") {
        #expect(line.last != " ", "\(line)")
        // An opened word such as inStorage, but not KiB or GFLOP/s.
        #expect(line.firstMatch(of: /\b[a-z]+[A-Z]/) == nil, "\(line)")
        #expect(line.firstMatch(of: /\.\d{7}/) == nil, "\(line)")
      }
      let isRepeated = arguments[0] != "perplexity" && !arguments[0].contains("s")
      #expect(!isRepeated || result.output.contains(" ± "), "\(result.output)")
    }
  }

  @Test func `The furthest row of the paper keeps its sign, and systems are summed up too`() throws
  {
    let output = try Program.run("flashinfer-bench", ["in-storage", "--paper"]).output
    #expect(output.contains("within ±10 %; the furthest is −12.1 %"))
    #expect(output.contains("system level") && output.contains("the furthest is +138.2 %"))
  }

  @Test func `sparf's dense perplexity is perplexity's, to the last digit`() throws {
    let model = folder.write("dense", TinyModel().gguf(seed: 1).bytes())
    let text = folder.write("text", Array(String(repeating: "the rain on ", count: 60).utf8))
    let arguments = [model, text, "--context", "32", "--chunks", "2"]
    let sparf = try figures(["sparf"] + arguments)
    let whole = try figures(["perplexity"] + arguments)
    let value = try #require(whole.firstMatch(of: /"name":"perplexity","value":([^,]*)/)).output.1
    #expect(sparf.contains("\"name\":\"densePerplexity\",\"value\":\(value),"), "\(value)")
  }

  @Test func `sparse refuses before it runs anything`() throws {
    var tiny = TinyModel()
    tiny.hiddenActivation = "relu"
    let model = folder.write("dense", tiny.gguf(seed: 1).bytes())
    let image = folder.path + "/image"
    let conversion = try Program.run("flashinfer-convert", [model, image, "--bundle", "neurons"])
    #expect(conversion.status == 0, "\(conversion.errors)")
    for (arguments, status, reason) in [
      ([folder.path + "/none"], 66, "none"),
      ([image, "--selector", "predictor"], 65, "the image holds none"),
      ([model], 65, "bundles of neurons"),
    ] {
      let result = try Program.run("flashinfer-bench", ["sparse"] + arguments)
      #expect(result.status == Int32(status), "\(result.errors)")
      #expect(result.errors.contains(reason) && !result.errors.contains("naive"))
    }
  }

  @Test(arguments: [
    ["decode", "--tokens", "0"], ["decode", "--warmup", "0"], ["prefill", "--tokens", "0"],
    ["prefill", "--repeat", "-1"], ["decode", "--repeat", "0"],
  ])
  func `Impossible counts are usage errors`(arguments: [String]) throws {
    let model = folder.write("dense", TinyModel().gguf(seed: 1).bytes())
    let result = try Program.run(
      "flashinfer-bench", [arguments[0], model] + arguments.dropFirst())
    #expect(result.status == 64, "\(result.errors)")
  }
}
