import ModelFormat
import TestSupport
import Testing
import WeightLoader

/// Layers of folders that predict further tokens: they are counted, and left out.
@Suite struct PredictionFolderTests {
  /// By what names they have; where no layer is stated, what belongs to all.
  @Test(arguments: ["qwen3next", "qwen35", "qwen35moe", "mimo2"])
  func `What is called mtp is counted`(family: String) throws {
    var folder = try EditedFolder(family)
    let whole = folder.write()
    let plain = try ModelSource.describe(whole.path)
    #expect(plain.predictionLayers == nil)
    let prefix = family == "mimo2" ? "model.mtp." : "mtp."
    var byteCount = 0
    let vector = EditedFolder.Tensor(
      type: "BF16", shape: [8], bytes: [UInt8](repeating: 0, count: 16))
    for name in ["fc.weight", "norm.weight", "layers.0.input_layernorm.weight"] {
      folder.tensors[prefix + name] = vector
      byteCount += 16
    }
    func expect(layerCount: Int, tensorCount: Int) throws {
      let written = folder.write()
      let found = try ModelSource.describe(written.path)
      let layers = try #require(found.predictionLayers)
      #expect(layers.layerCount == layerCount && layers.tensorCount == tensorCount)
      #expect(layers.byteCount == byteCount && found.predictor == nil)
      #expect(found.tensors.map(\.name) == plain.tensors.map(\.name))
      #expect(
        found.notes.contains { $0.contains("cannot draft: such layers draft from GGUF files") })
    }
    try expect(layerCount: 1, tensorCount: 3)
    // Numbers are only names, and types are of no matter.
    for number in ["1", "\(Int.max)", "9223372036854775808"] {
      folder.tensors["\(prefix)layers.\(number).mlp.down_proj.weight"] = EditedFolder.Tensor(
        type: "I64", shape: [2, 2], bytes: [UInt8](repeating: 0, count: 32))
      byteCount += 32
    }
    try expect(layerCount: 3, tensorCount: 6)
  }

  @Test func `What follows the last layer is counted`() throws {
    var folder = try EditedFolder("glm4moe")
    let names = folder.tensors.keys.filter { $0.hasPrefix("model.layers.2.") }
    folder.configure("\"num_hidden_layers\": 2")
    let written = folder.write()
    let layers = try #require(try ModelSource.describe(written.path).predictionLayers)
    #expect(layers.layerCount == 1 && layers.tensorCount == names.count)
    let byteCount = names.reduce(0) { $0 + (folder.tensors[$1]?.bytes.count ?? 0) }
    #expect(layers.byteCount == byteCount)
    for count in ["-9223372036854775808", "0", "9223372036854775807"] {
      folder.configure("\"num_hidden_layers\": \(count)")
      let written = folder.write()
      #expect(throws: LoaderError.self) { try ModelSource.describe(written.path) }
    }
  }
}
