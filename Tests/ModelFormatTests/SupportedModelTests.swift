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

  private static func tiny(predictionLayerCount: Int) -> TinyModel {
    var tiny = TinyModel(architecture: "glm4moe")
    tiny.predictionLayerCount = predictionLayerCount
    return tiny
  }

  /// Layers that predict further tokens are counted, and left out.
  @Test func `Layers after the last one are left out with a note`() throws {
    let plain = try ImageBuilder.description(
      of: Self.tiny(predictionLayerCount: 0).gguf(seed: 2).bytes())
    #expect(plain.predictionLayers == nil && plain.notes.isEmpty)
    for count in 1...3 {
      let file = Self.tiny(predictionLayerCount: count).gguf(seed: 2)
      let later = file.tensors.filter { tensor in
        (3..<3 + count).contains { tensor.name.hasPrefix("blk.\($0).") }
      }
      let found = try ImageBuilder.description(of: file.bytes())
      #expect(found.configuration == plain.configuration)
      #expect(found.tensors.map(\.name) == plain.tensors.map(\.name))
      let layers = try #require(found.predictionLayers)
      #expect(layers.layerCount == count && layers.tensorCount == later.count)
      #expect(layers.byteCount == later.reduce(0) { $0 + $1.data.count })
      #expect(layers.problem == nil && found.predictor?.configuration?.layerCount == 1)
      let note = try #require(found.notes.first)
      #expect(note.hasPrefix(count == 1 ? "1 layer that predicts" : "\(count) layers that predict"))
      #expect(note.contains("(\(later.count) tensors, ") && note.contains("--draft mtp"), "\(note)")
    }
  }

  @Test func `A layer that lacks a tensor or has another shape cannot draft, and its model runs`()
    throws
  {
    let file = Self.tiny(predictionLayerCount: 1).gguf(seed: 2)
    for index in file.tensors.indices where file.tensors[index].name.hasPrefix("blk.3.") {
      let name = file.tensors[index].name.replacing("post_attention_norm", with: "ffn_norm")
      var other = file
      other.tensors.remove(at: index)
      var found = try ImageBuilder.description(of: other.bytes())
      #expect(found.predictor == nil)
      #expect(found.predictionLayers?.problem?.contains("\"\(name)\" is missing") == true)
      #expect(found.notes.contains { $0.contains("cannot draft: tensor \"\(name)\"") })
      other = file
      let matrix = try #require(file.tensors.first { $0.name == "blk.0.attn_q.weight" })
      other.tensors[index].type = matrix.type
      other.tensors[index].data = Array(matrix.data[..<(matrix.data.count / 64)])
      other.tensors[index].dimensions = [64]
      found = try ImageBuilder.description(of: other.bytes())
      #expect(found.predictor == nil && found.predictionLayers?.problem != nil, "\(name)")
    }
    var own = file
    for name in ["token_embd.weight", "output_norm.weight"] {
      var tensor = try #require(file.tensors.first { $0.name == name })
      tensor.name =
        name.hasPrefix("token")
        ? "blk.3.nextn.embed_tokens.weight" : "blk.3.nextn.shared_head_norm.weight"
      own.tensors.append(tensor)
    }
    let found = try ImageBuilder.description(of: own.bytes())
    #expect(found.predictionLayers?.problem == nil, "\(found.notes)")
    #expect(found.predictor?.tensors.count { $0.name == "token_embd.weight" } == 1)
    own.tensors.append(own.tensors[0])
    own.tensors[own.tensors.count - 1].name = "blk.3.nextn.other.weight"
    let unknown = try ImageBuilder.description(of: own.bytes())
    #expect(unknown.predictionLayers?.problem?.contains("\"blk.3.nextn.other.weight\"") == true)
  }

  @Test func `Counts of such layers that cannot be are refused`() throws {
    var file = Self.tiny(predictionLayerCount: 1).gguf(seed: 2)
    let key = "glm4moe.nextn_predict_layers"
    let index = try #require(file.metadata.firstIndex { $0.key == key })
    for count in [
      TinyGGUF.Value.int32(-1), .uint32(4), .uint32(5), .uint64(1 << 40), .uint64(.max),
    ] {
      file.metadata[index].value = count
      #expect(throws: FormatError.self) { try ImageBuilder.description(of: file.bytes()) }
    }
    // Names of layers are only names.
    file = Self.tiny(predictionLayerCount: 1).gguf(seed: 2)
    for number in ["\(Int.max)", "9223372036854775808", "-1", ""] {
      var other = file
      let last = try #require(other.tensors.firstIndex { $0.name.hasPrefix("blk.3.") })
      other.tensors[last].name = "blk.\(number).attn_norm.weight"
      let found = try? ImageBuilder.description(of: other.bytes())
      #expect(found == nil || number == "\(Int.max)" && found?.predictionLayers?.layerCount == 2)
    }
  }
}
