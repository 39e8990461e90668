import Glibc
import ModelConversion
import ModelFormat
import TestSupport
import Testing
import WeightLoader

/// Folders that store several matrices in one tensor give what those give that store them apart.
@Suite struct FusedFolderTests {
  /// The logits of a folder as it lies there, and of an image of it.
  private func logits(_ folder: TemporaryFolder) throws -> (direct: [Float], converted: [Float]) {
    let source = try ModelSource.open(folder.path)
    let direct = try VectorModel.logits(source, try #require(source.description.configuration))
    let path = folder.path + "/model.bin"
    try Converter(try ModelSource.open(folder.path)).write(to: path)
    let image = try ModelSource.open(path)
    try image.verifyExtents()
    let configuration = try #require(image.description.configuration)
    return (direct, try VectorModel.logits(image, configuration))
  }

  private func expectSame(_ folder: TemporaryFolder, as name: String) throws {
    let original = try ModelSource.open(VectorModel.folder(name))
    let configuration = try #require(original.description.configuration)
    let expected = try VectorModel.logits(original, configuration)
    let (direct, converted) = try logits(folder)
    #expect(direct == expected, "as it lies in the folder")
    #expect(converted == expected, "converted")
  }

  private func error(_ folder: TemporaryFolder) -> String {
    do throws(LoaderError) {
      _ = try ModelSource.open(folder.path)
      return "opened"
    } catch { return error.description }
  }

  /// Moves the experts of all layers into one tensor a layer, gate above up.
  private func stackExperts(
    _ folder: inout EditedFolder, block: String = "mlp",
    names: (gate: String, up: String, down: String) = ("gate_proj", "up_proj", "down_proj")
  ) throws {
    for layer in 0..<2 {
      let prefix = "model.layers.\(layer).\(block).experts."
      let count = folder.tensors.keys.count { $0.hasPrefix(prefix) } / 3
      var (both, downs): ([UInt8], [UInt8]) = ([], [])
      var shapes: (gate: [Int], down: [Int]) = ([], [])
      for expert in 0..<count {
        let gate = try folder.take("\(prefix)\(expert).\(names.gate).weight")
        let down = try folder.take("\(prefix)\(expert).\(names.down).weight")
        both += gate.bytes
        both += try folder.take("\(prefix)\(expert).\(names.up).weight").bytes
        downs += down.bytes
        shapes = (gate.shape, down.shape)
      }
      folder.tensors[prefix + "gate_up_proj"] = .init(
        type: "BF16", shape: [count, 2 * shapes.gate[0], shapes.gate[1]], bytes: both)
      folder.tensors[prefix + "down_proj"] = .init(
        type: "BF16", shape: [count] + shapes.down, bytes: downs)
    }
  }

  @Test(arguments: ["qwen2moe", "qwen3moe", "olmoe"])
  func `Experts stacked by transformers 5 give the same`(name: String) throws {
    var folder = try EditedFolder(name)
    try stackExperts(&folder)
    try expectSame(folder.write(), as: name)
  }

  /// Qwen 3 VL's checkpoints hold each expert's matrices transposed, below a folder's vision part.
  @Test func `Experts stacked transposed give the same once they are converted`() throws {
    var folder = try EditedFolder("qwen3moe")
    try stackExperts(&folder)
    for (name, tensor) in folder.tensors {
      folder.tensors[name] = nil
      var tensor = tensor
      if name.contains(".experts.") {
        let (rows, columns) = (tensor.shape[1], tensor.shape[2])
        let stored = tensor.bytes
        for index in 0..<stored.count / 2 {
          let (part, row, column) = (
            index / (rows * columns), index / columns % rows, index % columns
          )
          let turned = part * rows * columns + column * rows + row
          tensor.bytes[2 * turned] = stored[2 * index]
          tensor.bytes[2 * turned + 1] = stored[2 * index + 1]
        }
        tensor.shape = [tensor.shape[0], columns, rows]
      }
      let isHead = name.hasPrefix("lm_head")
      let words = name.split(separator: ".").dropFirst()
      folder.tensors[isHead ? name : "model.language_model." + words.joined(separator: ".")] =
        tensor
    }
    folder.tensors["model.visual.patch_embed.proj.weight"] = .init(
      type: "BF16", shape: [1, 2, 2, 2, 2], bytes: [UInt8](repeating: 0, count: 32))
    folder.configure(
      #""rope_scaling":{"mrope_interleaved":true,"mrope_section":[4,2,2],"rope_type":"default"}"#)
    folder.config = #"""
      {"architectures":["Qwen3VLMoeForConditionalGeneration"],"text_config":\#(folder.config)}
      """#
    let target = folder.write()
    let path = target.path + "/model.bin"
    try Converter(try ModelSource.open(target.path)).write(to: path)
    let original = TemporaryFolder().path + ".bin"
    defer { unlink(original) }
    try Converter(try ModelSource.open(VectorModel.folder("qwen3moe"))).write(to: original)
    let checksums = try [path, original].map {
      try ModelSource.open($0).description.extents.map(\.checksum)
    }
    #expect(checksums[0] == checksums[1])
    let source = try ModelSource.open(target.path)
    let configuration = try #require(source.description.configuration)
    #expect {
      try VectorModel.logits(source, configuration)
    } throws: { "\($0)".contains("transposed") && "\($0)".contains("flashinfer-convert") }
    let name = "model.language_model.layers.1.mlp.experts.gate_up_proj"
    var damaged = folder
    // The first expert's gate: column 2 of row 5.
    damaged.tensors[name]?.bytes.replaceSubrange(
      2 * (2 * 64 + 5)..<2 * (2 * 64 + 6), with: [0xC0, 0x7F])
    let place = damaged.write()
    #expect {
      try Converter(try ModelSource.open(place.path)).write(to: place.path + "/model.bin")
    } throws: { error in
      "\(error)".contains("row 5 of tensor 'blk.1.ffn_gate_exps.weight'")
        && "\(error)".contains("column 2:")
    }
    folder.config = folder.config.replacing(
      "Qwen3VLMoeForConditionalGeneration", with: "Qwen3MoeForCausalLM")
    #expect(error(folder.write()).contains("transposed"))
  }

  @Test func `So do Mixtral's, under the names of either version`() throws {
    var folder = try EditedFolder("mixtral")
    try stackExperts(&folder, block: "block_sparse_moe", names: ("w1", "w3", "w2"))
    try expectSame(folder.write(), as: "mixtral")
    for (name, tensor) in folder.tensors where name.contains(".block_sparse_moe.") {
      folder.tensors[name] = nil
      let words = name.split(separator: ".").map { $0 == "block_sparse_moe" ? "mlp" : $0 }
      folder.tensors[words.joined(separator: ".")] = tensor
    }
    try expectSame(folder.write(), as: "mixtral")
  }

  @Test func `Query, key and value may be rows of one tensor, and gate and up`() throws {
    var folder = try EditedFolder("mistral")
    for layer in 0..<2 {
      let prefix = "model.layers.\(layer)."
      try folder.fuse(
        ["q", "k", "v"].map { "\(prefix)self_attn.\($0)_proj.weight" },
        as: prefix + "self_attn.qkv_proj.weight")
      try folder.fuse(
        ["gate", "up"].map { "\(prefix)mlp.\($0)_proj.weight" },
        as: prefix + "mlp.gate_up_proj.weight")
    }
    try expectSame(folder.write(), as: "mistral")
    // Phi 3 is that graph under its own name.
    folder.configure(#""architectures":["Phi3ForCausalLM"]"#)
    try expectSame(folder.write(), as: "mistral")
  }

  @Test func `Biases may be parts of one vector`() throws {
    var folder = try EditedFolder("qwen2")
    for layer in 0..<2 {
      for ending in ["weight", "bias"] {
        let prefix = "model.layers.\(layer).self_attn."
        try folder.fuse(
          ["q", "k", "v"].map { "\(prefix)\($0)_proj.\(ending)" },
          as: "\(prefix)qkv_proj.\(ending)")
      }
    }
    try expectSame(folder.write(), as: "qwen2")
  }

  @Test func `Tensors may lie in any order, with holes`() throws {
    try expectSame(try EditedFolder("qwen3").write(gap: 24), as: "qwen3")
  }

  @Test func `A fused tensor of another shape is named`() throws {
    var folder = try EditedFolder("qwen3moe")
    try stackExperts(&folder)
    let name = "model.layers.1.mlp.experts.gate_up_proj"
    var transposed = folder
    transposed.tensors[name]?.shape = [8, 32, 64]
    #expect(transposed.tensors[name]?.bytes.count == 2 * 8 * 64 * 32)
    var message = error(transposed.write())
    #expect(message.contains("\"\(name)\" has 32 rows, not 32 + 32"), "\(message)")
    #expect(message.contains("transposed"), "\(message)")
    folder.tensors[name]?.shape = [8, 32, 2, 32]
    message = error(folder.write())
    #expect(message.contains(name) && message.contains("neither a vector nor a matrix"))
    var rows = try EditedFolder("mistral")
    try rows.fuse(
      ["q", "k"].map { "model.layers.0.self_attn.\($0)_proj.weight" },
      as: "model.layers.0.self_attn.qkv_proj.weight")
    message = error(rows.write())
    #expect(message.contains("qkv_proj.weight\" has 96 rows, not 64 + 32 + 32"), "\(message)")
  }
}
