import ModelConversion
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Folders of gpt-oss, whose experts' gate and up take turns: in bf16 transposed, in MXFP4 row by row.
@Suite struct AlternatingExpertTests {
  private static let experts = "model.layers.1.mlp.experts."

  private func error(_ folder: EditedFolder) -> String {
    let written = folder.write()
    let target = TemporaryFolder()
    defer { extendLifetime((written, target)) }
    do {
      try Converter(ModelSource.open(written.path)).write(to: target.path + "/model.bin")
      return "converted"
    } catch { return "\(error)" }
  }

  @Test(arguments: ["gpt-oss", "gpt-oss-mxfp4"])
  func `They are converted, not run as they lie there`(name: String) throws {
    let source = try ModelSource.open(VectorModel.folder(name))
    #expect(source.description.needsConversion?.contains("flashinfer-convert") == true)
    #expect(error(try EditedFolder(name)) == "converted")
    let gate = try #require(
      source.description.tensors.first { $0.name == "blk.1.ffn_gate_exps.weight" })
    #expect(gate.type == (name == "gpt-oss" ? .bf16 : .mxfp4) && gate.partRowCount == 32)
  }

  /// An image of blocks holds the values that the folder in bf16 has.
  @Test func `Blocks stay as they are, number for number`() throws {
    var rows: [[Float]] = []
    for name in ["gpt-oss", "gpt-oss-mxfp4"] {
      let target = TemporaryFolder()
      defer { extendLifetime(target) }
      let path = target.path + "/model.bin"
      try Converter(ModelSource.open(VectorModel.folder(name))).write(to: path)
      let image = try ModelSource.open(path)
      let tensors = image.description.tensors
      let numbers = tensors.indices.filter { tensors[$0].name.contains("_exps.") }
        .sorted { tensors[$0].name < tensors[$1].name }
      var values: [Float] = []
      for number in numbers {
        values += try VectorModel.values(of: image, tensor: number)
      }
      rows.append(values)
    }
    #expect(rows[0].count > 3 * 6 * 3 * 32 * 32)
    #expect(rows[0] == rows[1])
  }

  @Test func `What does not fit is refused with what is wrong`() throws {
    let blocks = try EditedFolder("gpt-oss-mxfp4")
    let floats = try EditedFolder("gpt-oss")
    let (gateUp, down) = (Self.experts + "gate_up_proj", Self.experts + "down_proj")
    let cases: [(folder: EditedFolder, words: String, change: (inout EditedFolder) -> Void)] = [
      (blocks, "has no", { $0.tensors[gateUp + "_scales"] = nil }),
      (blocks, "do not fit", { $0.tensors[gateUp + "_scales"]?.shape = [6, 32, 2] }),
      (blocks, "do not fit", { $0.tensors[down + "_scales"]?.type = "I8" }),
      (blocks, "is not in blocks", { $0.tensors[down + "_blocks"]?.shape = [6, 32, 2, 8] }),
      (blocks, "is not in blocks", { $0.tensors[down + "_blocks"]?.shape = [6, 32, 16] }),
      (blocks, "is not in blocks", { $0.tensors[down + "_blocks"]?.type = "I8" }),
      (
        blocks, "infinite or not a number", { $0.tensors[gateUp + "_scales"]?.bytes[3] = 255 }
      ),
      (
        blocks, "one for gate and one for up",
        {
          $0.tensors[gateUp + "_bias"]?.shape = [6, 32]
          $0.tensors[gateUp + "_bias"]?.bytes.removeLast(384)
        }
      ),
      (floats, "transposed", { $0.tensors[gateUp]?.shape = [6, 64, 32] }),
      (
        floats, "finite number",
        { $0.tensors[gateUp + "_bias"]?.bytes.replaceSubrange(2..<4, with: [0x80, 0x7F]) }
      ),
      (floats, "is missing", { $0.tensors["model.layers.1.self_attn.sinks"] = nil }),
      (floats, "not 1 of 4", { $0.tensors["model.layers.1.self_attn.sinks"]?.shape = [2, 2] }),
      (floats, "swiglu_limit", { $0.configure(#""swiglu_limit":5"#) }),
      (floats, "attention_bias", { $0.configure(#""attention_bias":false"#) }),
    ]
    for (index, (folder, words, change)) in cases.enumerated() {
      var folder = folder
      change(&folder)
      let message = error(folder)
      #expect(message.contains(words), "case \(index): \(message)")
    }
  }
}
