import TestSupport
import Testing

/// `flashinfer-bench load` in each of its ways, on a tiny model.
@Suite(
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
struct LoadBenchTests {
  private let folder = TemporaryFolder()

  @Test(arguments: ["device", "loader", "mmap", "read"])
  func `Each way brings the file`(way: String) throws {
    let model = folder.write("model", TinyModel().gguf(seed: 1).bytes())
    let result = try Program.run(
      "flashinfer-bench", ["load", model, "--through", way, "--seconds", "0.05", "--json"])
    #expect(result.status == 0, "\(result.errors)")
    #expect(result.output.contains("\"name\":\"loadBytesPerSecond\""))
  }

  @Test func `The loader brings tensors at random, within a budget`() throws {
    let model = folder.write("model", TinyModel().gguf(seed: 1).bytes())
    let result = try Program.run(
      "flashinfer-bench",
      [
        "load", model, "--through", "loader", "--random", "--tensors", "5", "--ram", "90MiB",
        "--json",
      ])
    #expect(result.status == 0, "\(result.errors)")
    #expect(result.output.contains("\"name\":\"pieces\",\"value\":5,\"unit\":\"1\""))
    let refused = try Program.run(
      "flashinfer-bench", ["load", model, "--through", "loader", "--ram", "1MiB"])
    #expect(refused.status == 69 && refused.errors.contains("the smallest that works"))
  }

  @Test func `Options that do not go together are usage errors`() throws {
    let model = folder.write("model", TinyModel().gguf(seed: 1).bytes())
    for options in [
      ["--through", "mmap", "--random"], ["--ram", "1GiB"], ["--tune", "--through", "loader"],
    ] {
      let result = try Program.run("flashinfer-bench", ["load", model] + options)
      #expect(result.status == 64, "\(options): \(result.errors)")
    }
  }

  private static let hasFio = (try? Program.shell("command -v fio").status) == 0

  @Test func `fio's speed is the limit, or its absence said`() throws {
    let model = folder.write("mod:el's", TinyModel().gguf(seed: 1).bytes())
    let arguments = ["load", model, "--seconds", "0.05", "--fio", "--json"]
    let absent = try Program.run("flashinfer-bench", arguments, environment: ["PATH=/nowhere"])
    #expect(absent.status == 69 && absent.errors.contains("fio is not installed"))
    if Self.hasFio {
      let result = try Program.run("flashinfer-bench", arguments)
      #expect(result.status == 0 && result.output.contains("\"limit\":"), "\(result.errors)")
    }
    let refused = try Program.run("flashinfer-bench", ["load", model, "--fio", "--tune"])
    #expect(refused.status == 64)
  }
}
