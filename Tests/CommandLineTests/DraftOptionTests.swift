import TestSupport
import Testing

/// What `--draft FILE` is refused for before anything is read.
@Suite(
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
struct DraftOptionTests {
  private let folder = TemporaryFolder()
  private var model: String { folder.path + "/model" }
  private var small: String { folder.path + "/small" }

  init() {
    folder.write("model", TinyModel().gguf(seed: 1).bytes())
    var tiny = TinyModel()
    tiny.layerCount = 1
    folder.write("small", tiny.gguf(seed: 2).bytes())
  }

  private func answer(_ draft: String, _ more: String...) throws -> Program.Result {
    try Program.run(
      "flashinfer-run", [model, "--raw", "then", "--max-tokens", "4", "--draft", draft] + more)
  }

  @Test("Where both do not fit together, it says what does, and what the draft model takes")
  func together() throws {
    let far = try answer(small, "--ram", "1MiB")
    #expect(far.status != 0 && far.errors.contains("the draft model alone takes"), "\(far.errors)")
    var (low, high) = (1, 256)
    // The last refusal: what a process takes differs a little from run to run, and with it the least budget.
    var refused = far
    while high - low > 1 {
      let middle = (low + high) / 2
      let result = try answer(small, "--ram", "\(middle)MiB")
      if result.status == 0 { high = middle } else { (low, refused) = (middle, result) }
    }
    #expect(refused.output.isEmpty)
    #expect(refused.errors.contains("of which the draft model takes"), "\(refused.errors)")
    #expect(refused.errors.contains("--draft"), "\(refused.errors)")
    let words = refused.errors.split(separator: " ")
    let place = try #require(words.firstIndex(of: "drafts"), "\(refused.errors)")
    let named = words[(place + 2)...].prefix(2).joined().filter { $0 != "," }
    let result = try answer(small, "--ram", named)
    #expect(result.status == 0, "\(named): \(result.errors)")
  }

  @Test("A file that is none is named once") func file() throws {
    folder.write("text", Array("no model".utf8))
    for path in [folder.path, folder.path + "/text", folder.path + "/missing"] {
      let refused = try answer(path)
      #expect(refused.status != 0 && refused.errors.contains("--draft"), "\(refused.errors)")
      #expect(refused.errors.ranges(of: path + ":").count <= 1, "\(refused.errors)")
    }
  }
}
