import ModelFormat
import TensorBasics
import TestSupport
import Testing

/// A folder of one layer, written as JSON; tests replace parts of it.
struct TinyFolder {
  var config = #"""
    "architectures":["LlamaForCausalLM"],"hidden_size":32,"intermediate_size":64,
    "num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,"rms_norm_eps":1e-5,
    "max_position_embeddings":512,"vocab_size":40
    """#
  /// Further keys of `config.json`; later ones win.
  var more = ""
  var tokenizer: String?
  var settings: String?
  var generation: String?
  var pooling: String?
  var hasHead = true
  var queryKeyValueBias = false
  var normalisesHeads = false
  var isGemma = false
  var prefix = ""
  /// Experts in place of the MLP, in the order of the file, with the rows of gate and up.
  var experts: [(number: Int, rowCount: Int)]?

  private var shapes: [(name: String, shape: [Int])] {
    var tensors = [
      ("model.embed_tokens.weight", [40, 32]), ("model.norm.weight", [32]),
      ("model.layers.0.self_attn.rotary_emb.inv_freq", [8]),
    ]
    if hasHead { tensors.append(("lm_head.weight", [40, 32])) }
    func add(_ name: String, _ shape: [Int]) { tensors.append(("model.layers.0." + name, shape)) }
    add("input_layernorm.weight", [32])
    add("post_attention_layernorm.weight", [32])
    if isGemma {
      add("pre_feedforward_layernorm.weight", [32])
      add("post_feedforward_layernorm.weight", [32])
    }
    for (name, rows) in [("q", 32), ("k", 16), ("v", 16)] {
      add("self_attn.\(name)_proj.weight", [rows, 32])
      if queryKeyValueBias { add("self_attn.\(name)_proj.bias", [rows]) }
    }
    if normalisesHeads {
      add("self_attn.q_norm.weight", [16])
      add("self_attn.k_norm.weight", [16])
    }
    add("self_attn.o_proj.weight", [32, 32])
    if let experts {
      add("mlp.gate.weight", [experts.count, 32])
      for (number, rowCount) in experts {
        add("mlp.experts.\(number).gate_proj.weight", [rowCount, 32])
        add("mlp.experts.\(number).up_proj.weight", [rowCount, 32])
        add("mlp.experts.\(number).down_proj.weight", [32, rowCount])
      }
      return tensors
    }
    add("mlp.gate_proj.weight", [64, 32])
    add("mlp.up_proj.weight", [64, 32])
    add("mlp.down_proj.weight", [32, 64])
    return tensors
  }

  func describe() throws(FormatError) -> ModelDescription {
    var entries: [String] = []
    var offset = 0
    for (name, shape) in shapes {
      let byteCount = 2 * shape.reduce(1, *)
      entries.append(
        #""\#(prefix)\#(name)":{"dtype":"BF16","shape":\#(shape),"data_offsets":"#
          + "[\(offset),\(offset + byteCount)]}")
      offset += byteCount
    }
    let bytes = safetensors("{\(entries.joined(separator: ","))}", dataByteCount: offset)
    guard let shard = try parseSafetensors(bytes).value else {
      throw FormatError(.truncated, "test")
    }
    let text = "{\(config)\(more.isEmpty ? "" : ",")\(more)}"
    var documents = HuggingFace.Documents(
      configuration: .init(path: "config.json", bytes: Array(text.utf8)))
    documents.tokenizer = tokenizer.map { .init(path: "tokenizer.json", bytes: Array($0.utf8)) }
    documents.generationConfiguration = generation.map {
      HuggingFace.Document(path: "generation_config.json", bytes: Array($0.utf8))
    }
    documents.pooling = pooling.map {
      .init(path: "1_Pooling/config.json", bytes: Array($0.utf8))
    }
    documents.tokenizerConfiguration = settings.map {
      .init(path: "tokenizer_config.json", bytes: Array($0.utf8))
    }
    return try HuggingFace.describe(documents, name: "tiny", shards: [shard])
  }

  func configuration() throws -> DecoderConfiguration {
    try #require(try describe().configuration)
  }
}

@Suite struct HuggingFaceTests {
  private func error(_ folder: TinyFolder) -> String {
    do throws(FormatError) {
      _ = try folder.describe()
      return "described"
    } catch { return error.description }
  }

  @Test func `Llama 3's scaling in both spellings becomes the same factors`() throws {
    let scaling =
      #""factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"#
      + #""original_max_position_embeddings":64"#
    var old = TinyFolder()
    old.more = #""rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3",\#(scaling)}"#
    var new = TinyFolder()
    new.more = #""rope_parameters":{"rope_theta":500000.0,"rope_type":"llama3",\#(scaling)}"#
    for folder in [old, new] {
      let model = try folder.describe()
      #expect(model.configuration?.ropeBase == 500_000)
      #expect(model.configuration?.ropePairing == .halves)
      guard case .values(let factors) = model.derivations["rope_freqs.weight"] else {
        Issue.record("no values")
        continue
      }
      // As transformers has it: waves of 6.3 stay, of 32.4 blend, longer than 64 slow down.
      #expect(factors.count == 8 && factors[0] == 1 && factors[2...].allSatisfy { $0 == 8 })
      #expect((factors[1] - 2.4423).magnitude < 0.0001)
      #expect(model.tensors.contains { $0.name == "rope_freqs.weight" })
      #expect(!model.storedTensors.contains { $0.name == "rope_freqs.weight" })
    }
  }

  @Test func `How a model wants its states pooled is what its files say`() throws {
    for (text, expected) in [
      (nil, nil), ("{}", nil), (#"{"pooling_mode_mean_tokens":true}"#, "mean"),
      (#"{"pooling_mode_lasttoken":true,"pooling_mode_mean_tokens":false}"#, "last"),
      (#"{"pooling_mode_cls_token":true}"#, "cls"),
      (#"{"pooling_mode_mean_tokens":true,"pooling_mode_lasttoken":true}"#, nil),
    ] as [(String?, String?)] {
      var folder = TinyFolder()
      folder.pooling = text
      #expect(try folder.describe().pooling == expected)
    }
    for (number, expected) in [
      (0, nil), (1, "mean"), (2, "cls"), (3, "last"), (4, "rank"), (5, nil),
    ] as [(UInt32, String?)] {
      var file = TinyModel().gguf(seed: 1)
      file.metadata.append(("llama.pooling_type", .uint32(number)))
      let image = try ImageBuilder.image(of: file.bytes())
      #expect(try ImageBuilder.description(of: file.bytes()).pooling == expected)
      #expect(try ImageBuilder.description(of: image).pooling == expected)
    }
  }

  @Test func `Defaults are those of transformers`() throws {
    let llama = try TinyFolder().configuration()
    #expect(llama.ropeBase == 10000 && llama.headDim == 16 && !llama.tiesOutput)
    #expect(llama.normEpsilon == 1e-5 && llama.activation == .silu && llama.windows == [nil])
    var mistral = TinyFolder()
    mistral.more = #""architectures":["MistralForCausalLM"]"#
    #expect(try mistral.configuration().windows == [4096])
    mistral.more += #","sliding_window":null"#
    #expect(try mistral.configuration().windows == [nil])
    var tied = TinyFolder()
    tied.hasHead = false
    #expect(error(tied).contains("tensor \"lm_head.weight\" is missing"))
    #expect(error(tied).contains("\"tie_word_embeddings\": true"))
    tied.more = #""tie_word_embeddings":true"#
    #expect(try tied.configuration().tiesOutput)
  }

  @Test func `Qwen's families have their biases and norms`() throws {
    var qwen2 = TinyFolder()
    qwen2.more =
      #""architectures":["Qwen2ForCausalLM"],"use_sliding_window":false,"#
      + #""sliding_window":4096,"rope_scaling":{"type":"linear","factor":4}"#
    #expect(error(qwen2).contains("bias"))
    qwen2.queryKeyValueBias = true
    #expect(try qwen2.configuration().layers[0].attention?.hasBiases == true)
    #expect(try qwen2.configuration().ropeLinearScale == 4)
    var qwen3 = TinyFolder()
    qwen3.normalisesHeads = true
    qwen3.more = #""architectures":["Qwen3ForCausalLM"],"head_dim":16"#
    #expect(try qwen3.configuration().layers[0].attention?.headNorm == .heads)
    #expect(try qwen3.describe().derivations.isEmpty)
  }

  @Test(arguments: ["", "language_model."])
  func `Gemma 3 in its old spelling, also inside a multimodal model`(prefix: String) throws {
    var gemma = TinyFolder()
    (gemma.isGemma, gemma.normalisesHeads, gemma.hasHead) = (true, true, false)
    gemma.prefix = prefix
    let text =
      gemma.config + #","head_dim":16,"rope_theta":1000000,"rope_local_base_freq":5000,"#
      + #""sliding_window":7,"sliding_window_pattern":2,"query_pre_attn_scalar":64,"#
      + #""rope_scaling":{"rope_type":"linear","factor":8.0}"#
    gemma.config = prefix.isEmpty ? text : #""text_config":{\#(text)}"#
    gemma.more =
      prefix.isEmpty
      ? #""architectures":["Gemma3ForCausalLM"]"#
      : #""architectures":["Gemma3ForConditionalGeneration"]"#
    let model = try gemma.describe()
    let configuration = try #require(model.configuration)
    #expect(configuration.tiesOutput && configuration.slidingRopeBase == 5000)
    #expect(configuration.windows == [7])
    #expect(configuration.attentionScale == 0.125 && configuration.ropeLinearScale == 8)
    for tensor in model.tensors {
      #expect(
        (model.derivations[tensor.name] == .plusOne) == tensor.name.hasSuffix("norm.weight"),
        "\(tensor.name)")
    }
  }

  @Test(arguments: [
    (#""architectures":["GPT2LMHeadModel"]"#, "GPT2LMHeadModel"),
    (#""rope_scaling":{"rope_type":"dynamic","factor":4}"#, "\"dynamic\""),
    (#""rope_parameters":{"rope_type":"dynamic","rope_theta":1e4}"#, "\"dynamic\""),
    (#""rope_scaling":{"rope_type":"llama3","factor":8}"#, "low_freq_factor"),
    (#""attention_bias":true"#, "attention_bias"), (#""mlp_bias":true"#, "mlp_bias"),
    (#""hidden_act":"gelu""#, "\"gelu\""), (#""num_local_experts":8"#, "num_local_experts"),
    (#""quantization_config":{"quant_method":"gptq"}"#, "GPTQ"),
    (#""hidden_size":"x""#, "hidden_size"),
    (#""num_attention_heads":0"#, "zero heads"),
    (#""num_attention_heads":4"#, "has 16 rows of 32, not 8"),
    (#""partial_rotary_factor":0.5"#, "partial_rotary_factor"),
    (#""intermediate_size":96"#, "mlp.gate_proj.weight\" has 64 rows of 32, not 96"),
    (#""layer_types":["sliding_attention"]"#, "layer_types"), (#""x":"#, "config.json"),
    (#""num_hidden_layers":99999999999999999999"#, "num_hidden_layers"),
  ])
  func `What is not supported is refused by name`(more: String, text: String) {
    var folder = TinyFolder()
    folder.more = more
    #expect(error(folder).contains(text), "\(error(folder))")
  }

  /// A folder of Qwen 3 with the experts given.
  private func expertFolder(_ numbers: [Int]) -> TinyFolder {
    var folder = TinyFolder()
    folder.normalisesHeads = true
    folder.experts = numbers.map { ($0, 24) }
    folder.more =
      #""architectures":["Qwen3MoeForCausalLM"],"num_experts":4,"num_experts_per_tok":2,"#
      + #""moe_intermediate_size":24,"norm_topk_prob":true"#
    return folder
  }

  @Test func `Experts are stacked in the order of their numbers`() throws {
    let model = try expertFolder([2, 0, 3, 1]).describe()
    let stated = ExpertConfiguration(
      expertCount: 4, expertsPerToken: 2, feedForwardLength: 24, normalisesWeights: true)
    #expect(model.configuration?.experts == stated)
    let index = try #require(
      model.tensors.firstIndex { $0.name == "blk.0.ffn_down_exps.weight" })
    let record = model.tensors[index]
    #expect(record.rowCount == 4 * 32 && record.stack?.count == 4)
    let parts = (0..<4).map(record.part)
    let partByteCount = 2 * 24 * 32
    let first = parts[2].offset
    #expect(parts.map { ($0.offset - first) / (3 * partByteCount) } == [1, 3, 0, 2])
    #expect(parts.allSatisfy { $0.byteCount == partByteCount && $0.rowCount == 32 })
  }

  /// Equal bytes in equal places: only the numbers tell that the router means others.
  @Test func `The order of scattered experts is part of the identity`() throws {
    let orders = [[0, 1, 2, 3], [1, 0, 2, 3], [3, 2, 1, 0]]
    let checksums = try orders.map { try expertFolder($0).describe().graphChecksum }
    #expect(Set(checksums).count == orders.count)
    #expect(try expertFolder(orders[0]).describe().graphChecksum == checksums[0])
  }

  @Test func `Experts that are missing, repeated or different are named`() {
    #expect(error(expertFolder([0, 1, 3])).contains("expert 2 is missing"))
    #expect(error(expertFolder([0, 1, 2])).contains("3 rows of 32, not 4"))
    #expect(error(expertFolder([0, 1, 2, 3, 4])).contains("5"))
    var folder = expertFolder([0, 1, 2, 3])
    folder.experts?[3].rowCount = 32
    #expect(error(folder).contains("expert 3 differs"))
    folder.experts?[3].rowCount = 24
    for (more, text) in [
      (#""mlp_only_layers":[0]"#, "mlp_only_layers"),
      (#""decoder_sparse_step":2"#, "decoder_sparse_step"),
      (#""num_experts_per_tok":5"#, "used expert count"), (#""num_experts":9999"#, "expert count"),
      (#""num_experts":1"#, "single expert"), (#""moe_intermediate_size":-1"#, "feed-forward"),
    ] {
      var changed = folder
      changed.more += "," + more
      #expect(error(changed).contains(text), "\(error(changed))")
    }
  }

  @Test func `Faults of tensors name the file they lie in and the tensor as it is called there`() {
    var wide = TinyFolder()
    wide.more = #""intermediate_size":96"#
    var biased = TinyFolder()
    biased.queryKeyValueBias = true
    var tied = TinyFolder()
    tied.hasHead = false
    var nested = wide
    nested.prefix = "language_model."
    var unbiased = TinyFolder()
    unbiased.more = #""architectures":["Qwen2ForCausalLM"]"#
    let experts = expertFolder([0, 1, 2])
    for (folder, name) in [
      (wide, "model.layers.0.mlp.gate_proj.weight"), (tied, "lm_head.weight"),
      (biased, "model.layers.0.self_attn.q_proj.bias"),
      (nested, "language_model.model.layers.0.mlp.gate_proj.weight"),
      (unbiased, "model.layers.0.self_attn.q_proj.bias"),
      (experts, "model.layers.0.mlp.gate.weight"),
      (expertFolder([0, 2]), "model.layers.0.mlp.experts.*.down_proj.weight"),
    ] {
      let message = error(folder)
      #expect(message.contains("\"\(name)\""), "\(message)")
      #expect(!message.contains("config.json") && !message.contains("blk."), "\(message)")
    }
  }

  @Test(arguments: [2, 5])
  func `Another number of layers than the tensors' is told so`(count: Int) {
    var folder = TinyFolder()
    folder.more = "\"num_hidden_layers\":\(count)"
    let message = error(folder)
    #expect(message.contains("model.layers.1."), "\(message)")
    #expect(
      message.contains("tensors of 1 layers") && message.hasSuffix("says \(count)"), "\(message)")
  }

  @Test func `Tensors without a place are refused by name`() {
    var folder = TinyFolder()
    folder.queryKeyValueBias = true
    #expect(error(folder).contains("self_attn.q_proj.bias\" has no place"))
    folder.prefix = "other."
    #expect(error(folder).contains("other.model."))
  }

  @Test func `Shards are named once each and lie in the folder`() throws {
    func names(_ text: String) throws(FormatError) -> [String] {
      try HuggingFace.shardNames(index: .init(path: "index", bytes: Array(text.utf8)))
    }
    #expect(try names(#"{"weight_map":{"x":"b","y":"a","z":"b"}}"#) == ["a", "b"])
    for name in ["../a", "/a", "a/b", "", ".", "a\\u0000b"] {
      #expect(throws: FormatError.self) { try names(#"{"weight_map":{"x":"\#(name)"}}"#) }
    }
    #expect(throws: FormatError.self) { try names(#"{"weight_map":{}}"#) }
  }
}
