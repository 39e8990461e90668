import Glibc
import TestSupport
import Testing

/// Split GGUF models through the programs.
@Suite(
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
struct SplitCommandTests {
  private let folder = TemporaryFolder()
  private static let whole = TinyModel().gguf(seed: 1)

  private func output(_ program: String, _ arguments: [String]) throws -> String {
    let result = try Program.run(program, arguments)
    #expect(result.status == 0, "\(arguments): \(result.errors)")
    return result.output
  }

  @Test func `Any member runs, converts, and is verified as the whole file`() throws {
    let whole = folder.write("whole.gguf", Self.whole.bytes())
    let paths = folder.write(members: Self.whole.split(into: 3, firstIsEmpty: true))
    func answer(_ path: String) throws -> String {
      try output(
        "flashinfer-run",
        [
          path, "the rain", "--raw", "--temperature", "0", "--max-tokens", "12", "--quiet",
          "--no-expert-history",
        ])
    }
    func image(_ path: String) throws -> [UInt8] {
      _ = try output("flashinfer-convert", [path, folder.path + "/image.bin", "--force"])
      return folder.read("image.bin")
    }
    let (text, bytes) = (try answer(whole), try image(whole))
    for path in paths {
      #expect(try answer(path) == text)
      #expect(try image(path) == bytes)
      #expect(try output("flashinfer-inspect", [path, "--verify"]).contains("identity"))
    }
    #expect(
      try output("flashinfer-inspect", [paths[1], "--plan", "--ram", "1GiB"]).contains(
        "pinned weights"))
  }

  @Test func `Inspect shows the members, and a missing one is named`() throws {
    let paths = folder.write(members: Self.whole.split(into: 3, firstIsEmpty: true))
    let text = try output("flashinfer-inspect", [paths[2]])
    #expect(text.contains("file: tiny-00001-of-00003.gguf, ") && text.contains(", 0 tensors"))
    let json = try output("flashinfer-inspect", [paths[2], "--json"])
    #expect(json.contains("\"files\":[{\"path\":\"\(paths[0])\",\"bytes\":"), "\(json)")
    unlink(paths[1])
    for program in ["flashinfer-run", "flashinfer-inspect"] {
      let more = program == "flashinfer-run" ? ["hi"] : []
      let result = try Program.run(program, [paths[0]] + more)
      #expect(
        result.status == 66 && result.errors.contains("tiny-00002-of-00003.gguf is missing"),
        "\(result)")
    }
  }

  @Test func `The loader's bench reads all members, and the others say that they do not`() throws {
    let paths = folder.write(members: Self.whole.split(into: 3))
    let through = try Program.run(
      "flashinfer-bench", ["load", paths[1], "--through", "loader", "--json"])
    #expect(through.status == 0 && !through.errors.contains("only this file"), "\(through)")
    let byteCount = Self.whole.tensors.reduce(0) { $0 + $1.data.count }
    #expect(through.output.contains("\"value\":\(byteCount)"), "\(through.output)")
    let device = try Program.run(
      "flashinfer-bench", ["load", paths[1], "--seconds", "0.05", "--json"])
    #expect(device.status == 0 && device.errors.contains("only this file is read"), "\(device)")
  }
}
