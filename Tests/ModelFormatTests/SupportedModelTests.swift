import Glibc
import ModelFormat
import TestSupport
import Testing

/// What is said to run, and what is said of what does not.
@Suite struct SupportedModelTests {
  /// The table of README.md: each row's names in GGUF files, and classes of transformers.
  private static func table() throws -> [(gguf: Set<String>, huggingFace: Set<String>)] {
    let root = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3)
    let path = root.joined(separator: "/") + "/README.md"
    let file = try #require(fopen(path, "r"), "\(path)")
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 1 << 20)
    let count = fread(&bytes, 1, bytes.count, file)
    let lines = String(decoding: bytes[..<count], as: UTF8.self).split(
      separator: "\n", omittingEmptySubsequences: false)
    let start = try #require(lines.firstIndex { $0.hasPrefix("| models | GGUF |") })
    func names(_ cell: Substring) -> Set<String> {
      Set(
        cell.split(separator: "`", omittingEmptySubsequences: false).enumerated()
          .filter { $0.offset % 2 == 1 }.map { String($0.element) })
    }
    return lines[(start + 2)...].prefix { $0.hasPrefix("|") }.map { line in
      let cells = line.split(separator: "|")
      return (names(cells[1]), names(cells[2]))
    }
  }

  @Test func `The README names what runs, and nothing else`() throws {
    let rows = try Self.table()
    for family in SupportedArchitectures.all {
      let row = rows.first { !$0.huggingFace.isDisjoint(with: family.huggingFace) }
      #expect(row?.huggingFace == Set(family.huggingFace))
      // There are no GGUF files of OPT.
      #expect(row?.gguf == (family.gguf == ["opt"] ? [] : Set(family.gguf)))
    }
    #expect(rows.count == SupportedArchitectures.all.count)
  }

  private func error(_ architecture: String, _ change: (inout TinyGGUF) -> Void) -> String {
    var file = TinyModel().gguf(seed: 1)
    change(&file)
    for index in file.metadata.indices {
      let key = file.metadata[index].key
      if key == "general.architecture" { file.metadata[index].value = .string(architecture) }
      if key.hasPrefix("llama.") {
        file.metadata[index].key = architecture + key.dropFirst("llama".count)
      }
    }
    do {
      _ = try ImageBuilder.description(of: file.bytes())
      return "described"
    } catch { return "\(error)" }
  }

  @Test func `An unknown architecture is told its nearest, and what differs`() {
    #expect(error("llama") { _ in } == "described")
    var message = error("llama9") { _ in }
    #expect(message.contains("architecture \"llama9\" is not supported"), "\(message)")
    #expect(message.contains("the nearest that is, is \"llama\""), "\(message)")
    #expect(message.contains("differ in arithmetic or shape"), "\(message)")
    message = error("bitnet") { file in
      for layer in 0..<2 {
        for name in ["attn_sub_norm", "ffn_sub_norm"] {
          var tensor = file.tensors.first { $0.name == "blk.0.attn_norm.weight" }!
          tensor.name = "blk.\(layer).\(name).weight"
          file.tensors.append(tensor)
        }
      }
    }
    #expect(
      message.contains("have no \"attn_sub_norm\", \"ffn_sub_norm\""), "\(message)")
    // Sinks beside a dense FFN are MiMo's alone.
    message = error("gpt-next") { file in
      var tensor = file.tensors.first { $0.name == "blk.0.attn_norm.weight" }!
      tensor.name = "blk.0.attn_sinks.weight"
      file.tensors.append(tensor)
    }
    #expect(message.contains("is \"mimo2\""), "\(message)")
  }

  /// Layers that predict further tokens are counted, and left out.
  @Test func `Layers after the last one are left out with a note`() throws {
    let file = TinyModel(architecture: "glm4moe").gguf(seed: 2)
    let plain = try ImageBuilder.description(of: file.bytes())
    var longer = file
    for index in longer.metadata.indices where longer.metadata[index].key == "glm4moe.block_count" {
      longer.metadata[index].value = .uint32(4)
    }
    longer.metadata.append(("glm4moe.nextn_predict_layers", .uint32(1)))
    for name in ["nextn.eh_proj.weight", "attn_norm.weight", "ffn_gate_exps.weight"] {
      var tensor = try #require(file.tensors.first { $0.name == "blk.0.attn_norm.weight" })
      tensor.name = "blk.3.\(name)"
      longer.tensors.append(tensor)
    }
    let found = try ImageBuilder.description(of: longer.bytes())
    #expect(found.configuration == plain.configuration)
    #expect(found.tensors.map(\.name) == plain.tensors.map(\.name))
    #expect(found.notes.contains { $0.hasPrefix("3 tensors of layers that predict") })
    for count in [TinyGGUF.Value.int32(-1), .uint32(4), .uint64(1 << 40)] {
      longer.metadata[longer.metadata.count - 1].value = count
      #expect(throws: FormatError.self) { try ImageBuilder.description(of: longer.bytes()) }
    }
  }
}
