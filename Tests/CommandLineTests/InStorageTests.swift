import TestSupport
import Testing

/// `--attention in-storage`, and the bench of its approximation.
@Suite(
  .serialized,
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
final class InStorageTests {
  private let folder = TemporaryFolder()
  private var model: String { folder.path + "/model" }

  init() {
    // Enough keys and values that drives program blocks.
    var tiny = TinyModel()
    tiny.layerCount = 6
    tiny.headDim = 128
    tiny.keyValueHeadCount = 4
    folder.write("model", tiny.gguf(seed: 1).bytes())
  }

  private func run(
    _ arguments: [String], promptCount: Int = 40
  ) throws -> Program.Result {
    let prompt = (0..<promptCount).map { "\($0 * 7 % 300)" }.joined(separator: ",")
    return try Program.run(
      "flashinfer-run",
      [
        model, "--tokens", prompt, "--temperature", "0", "--max-tokens", "60", "--ignore-eos",
        "--kv-dir", folder.path,
      ] + arguments)
  }

  @Test func `Dense drives answer as the host does`() throws {
    let host = try run([])
    #expect(host.status == 0)
    for count in ["1", "3", "20"] {
      let result = try run(["--attention", "in-storage:dense", "--devices", count])
      #expect(result.status == 0 && result.output == host.output, "\(count) drives")
      #expect(result.errors.contains("bus"))
    }
    let lossless = try run(["--attention", "in-storage:sparf=1"])
    #expect(lossless.status == 0 && lossless.output == host.output)
  }

  @Test func `A host that attends over the newest positions answers as it does alone`() throws {
    let context = ["--context", "2000"]
    let host = try run(context, promptCount: 1000)
    #expect(host.status == 0)
    var bytesPassed = Int.max
    for window in ["0", "1", "512", "513", "9000"] {
      let result = try run(
        context + ["--attention", "in-storage:dense,host-window=\(window)", "--devices", "2"],
        promptCount: 1000)
      #expect(result.status == 0 && result.output == host.output, "\(window): \(result.errors)")
      #expect(window == "0" || result.errors.contains("positions on the host"))
      let json = try run(
        context
          + ["--attention", "in-storage:dense,host-window=\(window)", "--devices", "2", "--json"],
        promptCount: 1000)
      let rounded = (Int(window)! + 511) / 512 * 512
      #expect(json.output.contains("\"hostWindow\":\(min(rounded, 1536)),"), "\(json.output)")
      // What drives read is less, the more the host attends over.
      let passed = try #require(number("bytesPassed", json.output))
      #expect(passed < bytesPassed)
      bytesPassed = passed
    }
    #expect(bytesPassed == 0)
  }

  /// The number of that name in JSON.
  private func number(_ name: String, _ json: String) -> Int? {
    json.firstRange(of: "\"\(name)\":")
      .flatMap { Int(json[$0.upperBound...].prefix { $0.isNumber }) }
  }

  @Test func `--json reports bus, flash and wear`() throws {
    let result = try run(["--attention", "in-storage:sparf=1/4,1/8", "--devices", "2", "--json"])
    #expect(result.status == 0)
    for field in [
      "inStorage", "engine", "devices", "usedDevices", "hostWindow", "fellBack", "commands",
      "busBytes",
      "busBytesToDevices", "busBytesFromDevices", "hostPathBytes", "modelledSeconds",
      "bytesWritten", "pagesRead", "pagesMoved", "blocksErased", "mostErases", "readRetries",
      "bitsCorrected", "operations", "bytesFiltered", "multiplyAdds", "deviceMemoryBytes",
    ] { #expect(result.output.contains("\"\(field)\":"), "\(field)") }
    #expect(result.output.contains("\"engine\":\"sparf=0.25,0.125\""))
  }

  @Test func `A failing drive ends the run, or the host takes over`() throws {
    let host = try run([])
    let errors = ["--attention", "in-storage", "--devices", "2", "--device-bit-errors", "0.3"]
    let failed = try run(errors)
    #expect(failed.status == 1)
    #expect(failed.errors.contains("uncorrectable page"))
    let rescued = try run(errors + ["--on-device-error", "fall-back"])
    #expect(rescued.status == 0 && rescued.output == host.output)
    #expect(rescued.errors.contains("warning:") && rescued.errors.contains("took over"))
    let corrected = try run(["--attention", "in-storage", "--device-bit-errors", "0.002"])
    #expect(corrected.status == 0 && corrected.output == host.output)
    #expect(corrected.errors.contains("bits corrected"))
  }

  @Test func `Drives' memory is within --ram`() throws {
    let refused = try run(["--attention", "in-storage", "--devices", "20", "--ram", "16MiB"])
    #expect(refused.status == 69 && refused.errors.contains("smallest"))
    let result = try run(
      ["--attention", "in-storage", "--devices", "4", "--ram", "64MiB", "--json"])
    #expect(result.status == 0)
    let peak = try #require(number("peakResidentBytes", result.output))
    #expect(peak <= 64 << 20)
  }

  @Test func `Impossible drives are usage errors that say why`() throws {
    let attention = "--attention"
    for (arguments, reason) in [
      ([attention, "in-storage", "--devices", "0"], "0 drives"),
      (["--devices", "2"], "needs --attention in-storage"),
      ([attention, "in-storage:dense,host-window=-1"], "host-window is a number of positions"),
      ([attention, "in-storage:dense,host-window=1k"], "not '1k'"),
      ([attention, "in-storage:dense,host-window="], "such as 512"),
      ([attention, "in-storage:dense,window=9"], "in-storage:dense,host-window=512"),
      (
        [attention, "in-storage:sparf=1/8,host-window=512"],
        "host-window goes with in-storage:dense"
      ),
      ([attention, "in-storage:sparf=0"], "r / d"),
      ([attention, "in-storage:sparf=1/2,9/8"], "k / S"),
      ([attention, "in-storage:sparf=1/x"], "no share"),
      ([attention, "elsewhere"], "must be host"),
      ([attention, "in-storage", "--device-bit-errors", "7"], "bit error rate"),
      ([attention, "in-storage", "--device-ram", "64KiB"], "memory of 64 KiB is too small"),
      ([attention, "in-storage", "--kv-store", folder.path], "--kv-store"),
    ] {
      let result = try run(arguments)
      #expect(result.status == 64, "\(arguments)")
      #expect(result.errors.contains(reason), "\(arguments): \(result.errors)")
    }
  }

  @Test func `The bench of SparF finds a lossless share lossless`() throws {
    folder.write("text", Array(String(repeating: "the rain on the an the in ", count: 60).utf8))
    let result = try Program.run(
      "flashinfer-bench",
      [
        "sparf", model, folder.path + "/text", "--context", "64", "--chunks", "2", "--share", "1",
        "--share", "1/4", "--json",
      ])
    #expect(result.status == 0, "\(result.errors)")
    for name in [
      "densePerplexity", "cosine/1/4", "perplexity/1/4", "argmaxAgreement/1/4", "bytesPassed/1/4",
    ] { #expect(result.output.contains("\"name\":\"\(name)\""), "\(name)") }
    #expect(
      result.output.contains(
        "{\"name\":\"argmaxAgreement/1\",\"value\":1,\"unit\":\"fraction\",\"detail\":\"of the positions\",\"exact\":true}"
      ))
  }
}
