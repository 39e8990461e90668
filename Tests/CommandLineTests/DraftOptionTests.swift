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

  @Test("Where model and draft model do not fit together, it says what the draft takes")
  func together() throws {
    var (low, high) = (1, 256)
    let far = try answer(small, "--ram", "\(low)MiB")
    // The last refusal: what a process takes differs a little from run to run, and with it the least budget.
    var refused = far
    while high - low > 1 {
      let middle = (low + high) / 2
      let result = try answer(small, "--ram", "\(middle)MiB")
      if result.status == 0 { high = middle } else { (low, refused) = (middle, result) }
    }
    #expect(refused.output.isEmpty)
    let reasons = ["of which the draft model takes", "but not for drafts beside it"]
    #expect(reasons.contains { refused.errors.contains($0) }, "\(refused.errors)")
    #expect(refused.errors.contains("--draft"), "\(refused.errors)")
    #expect(far.status != 0 && far.errors.contains("the draft model alone takes"), "\(far.errors)")
  }

  @Test(
    "A model's own layer for further tokens drafts, and changes nothing; what has none is refused")
  func ownLayer() throws {
    var tiny = TinyModel(architecture: "glm4moe")
    tiny.predictionLayerCount = 1
    let file = tiny.gguf(seed: 1)
    let path = folder.write("predicting", file.bytes())
    let arguments = [
      path, "--raw", "then", "--max-tokens", "12", "--seed", "7", "--ram", "64MiB",
    ]
    let plain = try Program.run("flashinfer-run", arguments + ["--draft", "off"])
    let drafted = try Program.run("flashinfer-run", arguments + ["--draft", "mtp"])
    #expect(drafted.status == 0 && drafted.output == plain.output, "\(drafted.errors)")
    #expect(drafted.errors.contains("of --ram"), "\(drafted.errors)")
    let plan = try Program.run(
      "flashinfer-inspect", [path, "--plan", "--ram", "64MiB", "--draft", "mtp"])
    #expect(plan.status == 0 && plan.output.contains("draft model: "), "\(plan.errors)")
    let shown = try Program.run("flashinfer-inspect", [path])
    #expect(
      shown.output.contains("note: 1 layer that predicts further tokens ("), "\(shown.output)")
    #expect(shown.output.contains("left out, but for --draft mtp"), "\(shown.output)")
    let tight = try Program.run(
      "flashinfer-run", [path, "--raw", "then", "--ram", "1MiB", "--draft", "mtp"])
    #expect(
      tight.status != 0 && tight.errors.contains("--draft mtp: the draft model alone takes"),
      "\(tight.errors)")
    var lacking = file
    lacking.tensors.removeAll { $0.name == "blk.3.nextn.eh_proj.weight" }
    for other in [model, folder.write("lacking", lacking.bytes())] {
      let refused = try Program.run(
        "flashinfer-run", [other, "--raw", "then", "--draft", "mtp"])
      #expect(refused.status != 0 && refused.errors.contains("--draft mtp: \(other): "))
      #expect(
        refused.errors.contains("no layer in the file") || refused.errors.contains("nextn.eh_proj"))
    }
    let note = try Program.run("flashinfer-inspect", [folder.path + "/lacking"]).output
    #expect(note.contains("cannot draft: tensor \"blk.3.nextn.eh_proj.weight\" is missing"))
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
