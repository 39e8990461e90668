import ModelFormat
import TensorBasics
import TestSupport
import Testing

/// GGUF files that hold several matrices in one tensor.
@Suite struct FusedTensorTests {
  /// Puts tensors below each other in one, of stacked ones each expert's.
  private func fuse(_ file: inout TinyGGUF, _ names: [String], as name: String) throws {
    let parts = try names.map { name in
      file.tensors.remove(at: try #require(file.tensors.firstIndex { $0.name == name }))
    }
    var fused = parts[0]
    let count = fused.dimensions.count == 3 ? Int(fused.dimensions[2]) : 1
    let isVector = fused.dimensions.count == 1
    fused.name = name
    fused.dimensions[isVector ? 0 : 1] = parts.reduce(0) { $0 + $1.dimensions[isVector ? 0 : 1] }
    fused.data = (0..<count).flatMap { expert in
      parts.flatMap { part in
        let length = part.data.count / count
        return Array(part.data[expert * length..<(expert + 1) * length])
      }
    }
    file.tensors.append(fused)
  }

  /// The bytes of each tensor, of stacked ones of each part, by name.
  private func contents(_ file: TinyGGUF) throws -> [String: [UInt8]] {
    let bytes = file.bytes()
    let description = try ImageBuilder.description(of: bytes)
    var contents: [String: [UInt8]] = [:]
    for tensor in description.tensors {
      contents[tensor.name] = (0..<(tensor.stack?.count ?? 1)).flatMap { expert in
        let part = tensor.part(expert)
        return bytes[part.offset..<part.offset + part.byteCount]
      }
    }
    return contents
  }

  private func error(_ file: TinyGGUF) -> String {
    do throws(FormatError) {
      _ = try ImageBuilder.description(of: file.bytes())
      return "described"
    } catch { return error.description }
  }

  private func fuseDense(_ file: inout TinyGGUF, _ architecture: String) throws {
    for layer in 0..<2 {
      for ending in architecture == "qwen2" ? ["weight", "bias"] : ["weight"] {
        try fuse(
          &file, ["q", "k", "v"].map { "blk.\(layer).attn_\($0).\(ending)" },
          as: "blk.\(layer).attn_qkv.\(ending)")
      }
      try fuse(
        &file, ["gate", "up"].map { "blk.\(layer).ffn_\($0).weight" },
        as: "blk.\(layer).ffn_up.weight")
    }
  }

  @Test(arguments: ["llama", "qwen2", "qwen3", "phi3"])
  func `Rows of fused tensors are the matrices`(architecture: String) throws {
    let file = TinyModel(architecture: architecture).gguf(seed: 4)
    var fused = file
    try fuseDense(&fused, architecture)
    #expect(fused.tensors.count == file.tensors.count - (architecture == "qwen2" ? 10 : 6))
    #expect(try contents(fused) == contents(file))
  }

  @Test(arguments: ["mixtral", "qwen3moe"])
  func `So are those of each expert`(family: String) throws {
    let file = TinyModel.withExperts(family).gguf(seed: 4)
    var fused = file
    for layer in 0..<2 {
      try fuse(
        &fused, ["gate", "up"].map { "blk.\(layer).ffn_\($0)_exps.weight" },
        as: "blk.\(layer).ffn_gate_up_exps.weight")
    }
    #expect(try contents(fused) == contents(file))
    let description = try ImageBuilder.description(of: fused.bytes())
    // What is checksummed is every part by itself: others lie between.
    let stored = description.storedTensors.filter { $0.name == "blk.0.ffn_up_exps.weight" }
    #expect(stored.count == 8 && stored.allSatisfy { $0.stack == nil })
  }

  @Test func `A fused tensor with other rows is named`() throws {
    var file = TinyModel().gguf(seed: 4)
    try fuseDense(&file, "llama")
    let index = try #require(file.tensors.firstIndex { $0.name == "blk.1.attn_qkv.weight" })
    let dimensions = file.tensors[index].dimensions
    for rows in [64, 127, 129, 256] as [UInt64] {
      file.tensors[index].dimensions = [dimensions[0], rows]
      file.tensors[index].data = [UInt8](repeating: 0, count: Int(rows) * 2 * 34)
      #expect(
        error(file).contains("\"blk.1.attn_qkv.weight\" has \(rows) rows, not 64 + 32 + 32"))
    }
  }

  @Test func `Gate and up of twice the rows, beside a gate, are refused`() throws {
    var file = TinyModel().gguf(seed: 4)
    let index = try #require(file.tensors.firstIndex { $0.name == "blk.0.ffn_up.weight" })
    file.tensors[index].dimensions[1] *= 2
    file.tensors[index].data += file.tensors[index].data
    #expect(error(file).contains("\"blk.0.ffn_up.weight\" has 192 rows of 64, not 96 of 64"))
  }
}
