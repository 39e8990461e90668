import ModelFormat
import TensorBasics
import TestSupport
import Testing

@Suite struct ArchitectureTests {
  private func description(_ model: TinyModel) throws -> ModelDescription {
    try ImageBuilder.description(of: model.gguf(seed: 3).bytes())
  }

  @Test func `llama rotates neighbours and may state its activation`() throws {
    var model = TinyModel()
    model.hiddenActivation = "relu"
    model.hasRopeFactors = true
    model.tiesOutput = false
    let description = try description(model)
    let configuration = try #require(description.configuration)
    #expect(configuration.architecture == "llama" && configuration.layerCount == 2)
    #expect(configuration.ropePairing == .adjacent && configuration.activation == .relu)
    #expect(configuration.attentionScale == 0.25 && configuration.embeddingScale == 1)
    #expect(!configuration.tiesOutput && configuration.layers[0] == .usual)
    #expect(configuration.vocabularyCount == 320 && configuration.ropeBase == 10000)
    let table = try TensorTable(description.tensors)
    #expect(table["rope_freqs.weight"]?.columnCount == 8)
    #expect(table["output.weight"]?.rowCount == 320 && table["nothing"] == nil)
    #expect(description.tokenizer?.model == .byteLevelBPE && description.name == "tiny")
  }

  @Test func `Mistral's window holds on every layer`() throws {
    var model = TinyModel()
    model.slidingWindow = 24
    let configuration = try #require(try description(model).configuration)
    #expect(configuration.windows == [24, 24])
  }

  @Test func `qwen2 has biases and qwen3 normalised heads`() throws {
    let second = try #require(try description(TinyModel(architecture: "qwen2")).configuration)
    #expect(second.layers[0].attention?.hasBiases == true && second.ropePairing == .halves)
    let third = try #require(try description(TinyModel(architecture: "qwen3")).configuration)
    #expect(third.layers[0].attention?.headNorm == .heads && third.ropePairing == .halves)
  }

  @Test func `gemma3 slides on five layers of six`() throws {
    var model = TinyModel(architecture: "gemma3")
    model.ropeLinearScale = 8
    let description = try description(model)
    let configuration = try #require(description.configuration)
    #expect(configuration.windows == [8, 8, 8, 8, 8, nil, 8])
    #expect(configuration.slidingRopeBase == 10000)
    #expect(configuration.ropeBase == 1e6 && configuration.ropeLinearScale == 8)
    #expect(
      configuration.activation == .geluTanh
        && configuration.layers[0].blocks.map(\.postNorm) == [.rms, .rms])
    #expect(configuration.embeddingScale == Float(64).squareRoot())
    #expect(configuration.attentionScale == 0.25)
    #expect(description.tokenizer?.model == .sentencePieceBPE)
  }

  @Test func `gemma3 of 62 layers scales scores by its width per head`() throws {
    var model = TinyModel(architecture: "gemma3")
    model.layerCount = 62
    model.queryHeadCount = 2
    let configuration = try #require(try description(model).configuration)
    #expect(configuration.attentionScale == Float(1 / Double(32).squareRoot()))
  }

  @Test func `A window pattern may be a number or an array`() throws {
    var file = TinyModel(architecture: "gemma3").gguf(seed: 4)
    file["gemma3.attention.sliding_window_pattern"] = .uint32(2)
    file["gemma3.rope.freq_base_swa"] = .float32(5000)
    var configuration = try ImageBuilder.description(of: file.bytes()).configuration
    #expect(configuration?.windows == [8, nil, 8, nil, 8, nil, 8])
    #expect(configuration?.slidingRopeBase == 5000)
    let layers = [false, true, true, true, true, true, true]
    file["gemma3.attention.sliding_window_pattern"] = .bools(layers)
    configuration = try ImageBuilder.description(of: file.bytes()).configuration
    #expect(configuration?.windows == layers.map { $0 ? 8 : nil })
  }

  @Test func `Head counts and lengths may be arrays, which tensors must fit`() throws {
    var file = TinyModel().gguf(seed: 5)
    file["llama.attention.head_count_kv"] = .uint32s([2, 2])
    file["llama.feed_forward_length"] = .uint32s([96, 96])
    #expect(error(of: file) == nil)
    let cases: [(key: String, values: [UInt32], words: String)] = [
      (
        "attention.head_count_kv", [2, 1], "\"blk.1.attn_k.weight\" has 32 rows of 64, not 16 of 64"
      ),
      ("attention.head_count", [4, 2], "\"blk.1.attn_q.weight\" has 64 rows of 64, not 32 of 64"),
      (
        "feed_forward_length", [96, 64], "\"blk.1.ffn_gate.weight\" has 96 rows of 64, not 64 of 64"
      ),
      ("attention.head_count_kv", [2, 3], "layer 1: 4 query heads do not divide among 3"),
      ("attention.head_count_kv", [2, 0], "layer 1 has 0: a layer without attention"),
      ("feed_forward_length", [96, 0], "layer 1 has 0: a layer without FFN"),
      ("attention.head_count", [4, 1 << 30], "layer 1: 1073741824 query heads"),
      ("feed_forward_length", [96, 1 << 31], "layer 1: an FFN of 2147483648"),
      ("attention.head_count_kv", [2], "1 elements, not 2"),
    ]
    for (key, values, words) in cases {
      var other = file
      other["llama.\(key)"] = .uint32s(values)
      let description = error(of: other)?.description
      #expect(description?.contains(words) == true, "\(key): \(description ?? "accepted")")
    }
    file["llama.attention.value_length"] = .uint32(32)
    let values = error(of: file)?.description
    #expect(values?.contains("\"blk.0.attn_v.weight\" has 32 rows of 64, not 64 of 64") == true)
  }

  @Test func `Layers have the sizes that files state`() throws {
    let openELM = try #require(try configuration("openelm"))
    #expect(openELM.headShapes.map(\.queryHeadCount) == [4, 4, 8])
    #expect(openELM.headShapes.map(\.keyValueHeadCount) == [2, 1, 4])
    #expect(openELM.layers.compactMap(\.feedForward).map(openELM.length) == [96, 192, 96])
    #expect(openELM.storedKeyValueHeadCount == 4 && openELM.storedHeadDim == 16)
    #expect(!openELM.hasEqualHeads && openELM.longestFeedForwardLength == 192)
    let miMo = try #require(try configuration("mimo2"))
    #expect(miMo.headShapes.map(\.keyValueHeadCount) == [1, 2, 1])
    #expect(miMo.headShapes.allSatisfy { $0.headDim == 16 && $0.valueLength == 32 })
    #expect(miMo.storedHeadDim == 32 && miMo.windows == [nil, 7, nil])
    #expect(miMo.layers.map { $0.attention?.hasSinks } == [false, true, false])
    #expect(miMo.layers.map { $0.experts == nil } == [true, false, false])
    #expect(miMo.layers.allSatisfy { $0.attention?.valueScale == 0.7 })
  }

  private func configuration(_ architecture: String) throws -> DecoderConfiguration? {
    let file = TinyModel(architecture: architecture).gguf(seed: 4)
    return try ImageBuilder.description(of: file.bytes()).configuration
  }

  @Test func `What the graph does not model is refused by key`() throws {
    let cases: [(key: String, value: TinyGGUF.Value, words: String)] = [
      ("llama.attn_logit_softcapping", .float32(50), "attn_logit_softcapping"),
      ("llama.final_logit_softcapping", .float32(30), "final_logit_softcapping"),
      ("llama.hidden_act", .string("mish"), "\"mish\""),
      ("llama.attention.causal", .bool(false), "causal"),
      ("llama.attention.temperature_scale", .float32(0.1), "temperature_scale"),
      ("general.architecture", .string("mamba"), "llama, mistral3, phi3, qwen2, qwen2moe, qwen3"),
    ]
    for (key, value, words) in cases {
      var file = TinyModel().gguf(seed: 6)
      file[key] = value
      let refusal = error(of: file)
      let error = try #require(refusal, "\(key)")
      #expect(error.kind == .unsupported && error.description.contains(words), "\(error)")
    }
  }

  @Test func `Hyper-parameters that cannot be are refused`() throws {
    let cases: [(key: String, value: TinyGGUF.Value?)] = [
      ("llama.block_count", nil), ("llama.block_count", .uint32(0)),
      ("llama.block_count", .uint64(1 << 60)), ("llama.block_count", .uint32(3)),
      ("llama.embedding_length", .uint32(0)), ("llama.embedding_length", .uint64(1 << 62)),
      ("llama.attention.head_count", .uint32(0)), ("llama.attention.head_count", .uint32(3)),
      ("llama.attention.head_count_kv", .uint32(0)),
      ("llama.attention.key_length", .uint32(24)), ("llama.attention.key_length", .uint32(0)),
      ("llama.rope.dimension_count", .uint32(7)), ("llama.rope.dimension_count", .uint32(18)),
      ("llama.rope.freq_base", .float32(.nan)), ("llama.rope.freq_base", .float32(-1)),
      ("llama.attention.layer_norm_rms_epsilon", nil),
      ("llama.attention.layer_norm_rms_epsilon", .float32(.infinity)),
      ("llama.feed_forward_length", .int32(-4)), ("llama.context_length", .uint32(0)),
      ("llama.feed_forward_length", .string("many")), ("general.architecture", nil),
      ("llama.rope.scaling.factor", .float32(-2)), ("general.name", .uint32(1)),
    ]
    for (key, value) in cases {
      var file = TinyModel().gguf(seed: 7)
      file[key] = value
      #expect(error(of: file) != nil, "\(key) = \(value.map { "\($0)" } ?? "missing")")
    }
  }

  @Test func `Tensors that are missing, extra or misshapen are named`() throws {
    var file = TinyModel().gguf(seed: 8)
    let index = try #require(file.tensors.firstIndex { $0.name == "blk.1.ffn_up.weight" })
    file.tensors[index].dimensions = [96, 64]
    #expect(error(of: file)?.message.contains("\"blk.1.ffn_up.weight\" has 64 rows of 96") == true)
    file.tensors.remove(at: index)
    #expect(error(of: file)?.message == "tensor \"blk.1.ffn_up.weight\" is missing")
    file = TinyModel().gguf(seed: 1)
    for (stated, words) in [(1, "has no place"), (3, "\"blk.2.")] {
      file["llama.block_count"] = .uint32(UInt32(stated))
      let message = error(of: file)?.message ?? ""
      #expect(
        message.contains(words) && message.contains("tensors of 2 layers")
          && message.hasSuffix("says \(stated)"), "\(message)")
    }
    file = TinyModel().gguf(seed: 8)
    file.tensors.append(
      .init(
        name: "blk.0.attn_output.bias", type: 0, dimensions: [64],
        data: .init(repeating: 0, count: 256)))
    #expect(error(of: file)?.message.contains("blk.0.attn_output.bias") == true)
    file = TinyModel().gguf(seed: 8)
    let norm = try #require(file.tensors.firstIndex { $0.name == "output_norm.weight" })
    file.tensors[norm].type = 8
    #expect(error(of: file)?.message.contains("a vector of type Q8_0") == true)
  }
}

@Suite struct TokenizerDescriptionTests {
  @Test func `An unknown tokenizer leaves the tensors described`() throws {
    var file = TinyModel().gguf(seed: 9)
    file["tokenizer.ggml.model"] = .string("rwkv")
    let description = try ImageBuilder.description(of: file.bytes())
    #expect(description.tokenizer == nil && !description.tensors.isEmpty)
    #expect(description.tokenizerProblem?.message.contains("\"rwkv\" is not supported") == true)
  }

  @Test func `Tokenizer arrays and ids must fit the vocabulary`() {
    let cases: [(key: String, value: TinyGGUF.Value?)] = [
      ("tokenizer.ggml.tokens", nil), ("tokenizer.ggml.tokens", .strings([])),
      ("tokenizer.ggml.bos_token_id", .uint32(320)), ("tokenizer.ggml.eos_token_id", .int32(-2)),
      ("tokenizer.ggml.padding_token_id", .uint32(5000)),
      ("tokenizer.ggml.token_type", .int32s([1, 2])), ("tokenizer.ggml.scores", .float32s([1])),
      ("tokenizer.ggml.token_type", .int32s([Int32](repeating: 9, count: 320))),
      ("tokenizer.ggml.scores", .float32s([Float](repeating: .nan, count: 320))),
      ("tokenizer.ggml.merges", .int32s([1])),
    ]
    for (key, value) in cases {
      var file = TinyModel().gguf(seed: 10)
      file[key] = value
      if key == "tokenizer.ggml.tokens" { file["tokenizer.ggml.token_type"] = nil }
      #expect(error(of: file) != nil, "\(key)")
    }
  }

  @Test func `A vocabulary may be longer or shorter than the table of embeddings`() throws {
    for count in [300, 319, 321, 400] {
      var vocabulary = TinyModel()
      vocabulary.vocabularyCount = count
      var file = TinyModel().gguf(seed: 10)
      for (key, value) in vocabulary.gguf(seed: 1).metadata where key.hasPrefix("tokenizer.") {
        file[key] = value
      }
      let model = try ImageBuilder.description(of: file.bytes())
      #expect(model.configuration?.vocabularyCount == 320)
      #expect(model.tokenizer?.tokens.count == count)
    }
  }

  @Test func `A vocabulary without tensors may be of any architecture`() throws {
    var file = TinyModel().gguf(seed: 11)
    file.tensors = []
    #expect(try ImageBuilder.description(of: file.bytes()).configuration != nil)
    file["general.architecture"] = .string("starcoder2")
    let description = try ImageBuilder.description(of: file.bytes())
    #expect(description.configuration == nil && description.tokenizer?.tokens.count == 320)
  }
}
