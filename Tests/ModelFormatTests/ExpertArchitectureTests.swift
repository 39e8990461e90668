import ModelFormat
import TensorBasics
import TestSupport
import Testing

/// What files of the families with experts say of them.
@Suite struct ExpertArchitectureTests {
  private static let families = ["mixtral", "qwen2moe", "qwen3moe", "olmoe"]

  private func file(_ family: String) -> TinyGGUF { TinyModel.withExperts(family).gguf(seed: 3) }

  private func prefix(_ family: String) -> String { family == "mixtral" ? "llama" : family }

  @Test(arguments: families)
  func `Each family's experts are read`(family: String) throws {
    let description = try ImageBuilder.description(of: file(family).bytes())
    let configuration = try #require(description.configuration)
    #expect(configuration.experts == TinyModel.withExperts(family).experts)
    #expect(configuration.architecture == prefix(family))
    let attention = try #require(configuration.layers[0].attention)
    #expect((attention.headNorm == .heads) == (family == "qwen3moe"))
    #expect((attention.headNorm == .projection) == (family == "olmoe"))
    #expect(attention.hasBiases == (family == "qwen2moe"))
    #expect(configuration.ropePairing == (family == "mixtral" ? .adjacent : .halves))
    let table = try TensorTable(description.tensors)
    let up = try #require(table["blk.1.ffn_up_exps.weight"])
    #expect(up.stack == ExpertStack(count: 8, byteStride: up.byteCount / 8) && !up.isBundled)
    #expect(up.byteSpan == up.offset..<up.offset + up.byteCount)
    let part = up.part(3)
    #expect(part.offset == up.offset + 3 * up.byteCount / 8 && part.rowCount == up.rowCount / 8)
    #expect(part.byteCount == up.byteCount / 8 && part.stack == nil)
    #expect(table["blk.0.ffn_gate_inp.weight"]?.rowCount == 8)
    let queryNorm = table["blk.0.attn_q_norm.weight"]
    let keyNorm = table["blk.0.attn_k_norm.weight"]
    #expect(queryNorm?.columnCount == ["qwen3moe": 16, "olmoe": 64][family])
    #expect(keyNorm?.columnCount == ["qwen3moe": 16, "olmoe": 32][family])
    #expect((table["blk.0.ffn_gate_inp_shexp.weight"] != nil) == (family == "qwen2moe"))
  }

  @Test func `Lengths that are missing follow from the dense one`() throws {
    var model = TinyModel(architecture: "qwen2moe")
    model.feedForwardLength = 128
    model.experts?.sharedFeedForwardLength = 128
    var file = model.gguf(seed: 3)
    file["qwen2moe.expert_feed_forward_length"] = nil
    file["qwen2moe.expert_shared_feed_forward_length"] = .uint32(0)
    let experts = try ImageBuilder.description(of: file.bytes()).configuration?.experts
    #expect(experts?.feedForwardLength == 64 && experts?.sharedFeedForwardLength == 128)
  }

  @Test(arguments: families)
  func `A file may say whether weights are normalised`(family: String) throws {
    for value in [true, false] {
      var file = file(family)
      file["\(prefix(family)).expert_weights_norm"] = .bool(value)
      let experts = try ImageBuilder.description(of: file.bytes()).configuration?.experts
      #expect(experts?.normalisesWeights == value)
    }
  }

  @Test(arguments: families)
  func `Counts and lengths that cannot be are refused`(family: String) {
    let cases: [(suffix: String, value: TinyGGUF.Value?)] = [
      ("expert_count", .uint32(1)), ("expert_count", .uint32(7)), ("expert_count", .uint32(9)),
      ("expert_count", .uint32(5000)), ("expert_count", .uint64(1 << 62)),
      ("expert_count", .int32(-1)), ("expert_count", nil), ("expert_used_count", nil),
      ("expert_used_count", .uint32(0)), ("expert_used_count", .uint32(9)),
      ("expert_used_count", .uint32s([2, 3])), ("expert_used_count", .uint64(1 << 62)),
      ("expert_feed_forward_length", .uint32(33)),
      ("expert_feed_forward_length", .uint64(1 << 61)),
      ("expert_shared_feed_forward_length", .uint32(32)),
    ]
    for (suffix, value) in cases {
      var file = file(family)
      file["\(prefix(family)).\(suffix)"] = value
      #expect(error(of: file) != nil, "\(suffix) = \(value.map { "\($0)" } ?? "missing")")
    }
  }

  @Test(arguments: families)
  func `Ways of routing and layers that are not modelled are refused`(family: String) throws {
    let cases: [(suffix: String, value: TinyGGUF.Value)] = [
      ("expert_gating_func", .uint32(2)), ("expert_weights_scale", .float32(2.5)),
      ("expert_group_count", .uint32(4)), ("leading_dense_block_count", .uint32(1)),
      ("interleave_moe_layer_step", .uint32(2)), ("decoder_sparse_step", .uint32(2)),
      ("mlp_only_layers", .uint32s([0])),
    ]
    for (suffix, value) in cases {
      var file = file(family)
      file["\(prefix(family)).\(suffix)"] = value
      let found = error(of: file)
      let refusal = try #require(found, "\(suffix)")
      #expect(refusal.kind == .unsupported && refusal.message.contains(suffix), "\(refusal)")
    }
  }

  @Test func `Dense families have no experts`() {
    for architecture in ["qwen2", "qwen3", "gemma3"] {
      var file = TinyModel(architecture: architecture).gguf(seed: 6)
      file["\(architecture).expert_count"] = .uint32(8)
      #expect(error(of: file)?.message.contains("only dense models") == true)
    }
  }

  @Test func `Experts in tensors of their own, and dense layers, are explained`() throws {
    var file = file("mixtral")
    let index = try #require(file.tensors.firstIndex { $0.name == "blk.1.ffn_gate_exps.weight" })
    file.tensors[index].name = "blk.1.ffn_gate.0.weight"
    #expect(error(of: file)?.message.contains("\"blk.1.ffn_gate_exps.weight\"") == true)
    #expect(error(of: file)?.kind == .unsupported)
    file.tensors[index].name = "blk.1.ffn_gate.weight"
    #expect(error(of: file)?.message.contains("layer 1 is dense") == true)
  }

  @Test(arguments: families)
  func `A router has a row for each expert`(family: String) throws {
    let name = "blk.1.ffn_gate_inp.weight"
    for rowCount in [1, 7, 9] as [UInt64] {
      var file = file(family)
      let index = try #require(file.tensors.firstIndex { $0.name == name })
      let columnCount = file.tensors[index].dimensions[0]
      file.tensors[index].dimensions = [columnCount, rowCount]
      file.tensors[index].data = [UInt8](repeating: 0, count: Int(4 * columnCount * rowCount))
      #expect(error(of: file)?.message.contains("\"\(name)\"") == true, "\(rowCount) rows")
    }
  }

  @Test func `Stacks of another shape are named`() throws {
    let name = "blk.0.ffn_up_exps.weight"
    let shapes: [([UInt64], String)] = [
      ([64, 768], "stacks 1"), ([64, 48, 16], "stacks 16"), ([64, 96, 4], "384 rows"),
      ([96, 64, 8], "512 rows of 96"), ([64, 96, 4, 2], ""),
    ]
    for (dimensions, words) in shapes {
      var file = file("mixtral")
      let index = try #require(file.tensors.firstIndex { $0.name == name })
      file.tensors[index].dimensions = dimensions
      let data = file.tensors[index].data
      file.tensors[index].data = Array(
        data.prefix(data.count * Int(dimensions.reduce(1, *)) / (64 * 768)))
      let refusal = error(of: file)
      #expect(words.isEmpty == (refusal == nil), "\(dimensions)")
      #expect(words.isEmpty || refusal?.message.contains("\"\(name)\"") == true)
      #expect(words.isEmpty || refusal?.message.contains(words) == true, "\(refusal!)")
    }
    var file = file("mixtral")
    let index = try #require(file.tensors.firstIndex { $0.name == "blk.0.attn_q.weight" })
    file.tensors[index].dimensions = [64, 32, 2]
    #expect(error(of: file)?.message.contains("stacks 2") == true)
  }
}
