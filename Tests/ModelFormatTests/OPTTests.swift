import FoundationEssentials
import ModelFormat
import TensorBasics
import TestSupport
import Testing

@Suite struct OPTTests {
  private static let outerShapes = [
    ("embed_tokens.weight", [40, 32]), ("embed_positions.weight", [66, 32]),
    ("final_layer_norm.weight", [32]), ("final_layer_norm.bias", [32]),
  ]
  private static let layerShapes = [
    ("self_attn.q_proj", [32, 32]), ("self_attn.k_proj", [32, 32]), ("self_attn.v_proj", [32, 32]),
    ("self_attn.out_proj", [32, 32]), ("self_attn_layer_norm", [32]), ("fc1", [64, 32]),
    ("fc2", [32, 64]), ("final_layer_norm", [32]),
  ]

  private func describe(
    _ more: String = "", prefix: String = "model.decoder.", hasBiases: Bool = true
  ) throws(FormatError) -> ModelDescription {
    var shapes = Self.outerShapes
    for (name, shape) in Self.layerShapes {
      shapes.append(("layers.0.\(name).weight", shape))
      if hasBiases || name.hasSuffix("layer_norm") {
        shapes.append(("layers.0.\(name).bias", [shape[0]]))
      }
    }
    var entries: [String] = []
    var offset = 0
    for (name, shape) in shapes {
      let byteCount = 2 * shape.reduce(1, *)
      entries.append(
        #""\#(prefix)\#(name)":{"dtype":"F16","shape":\#(shape),"data_offsets":"#
          + "[\(offset),\(offset + byteCount)]}")
      offset += byteCount
    }
    let bytes = safetensors("{\(entries.joined(separator: ","))}", dataByteCount: offset)
    guard let shard = try parseSafetensors(bytes).value else {
      throw FormatError(.truncated, "test")
    }
    let config =
      #"{"architectures":["OPTForCausalLM"],"hidden_size":32,"ffn_dim":64,"num_hidden_layers":1,"#
      + #""num_attention_heads":2,"max_position_embeddings":64\#(more.isEmpty ? "" : ",")\#(more)}"#
    return try HuggingFace.describe(
      HuggingFace.Documents(configuration: .init(path: "config.json", bytes: Array(config.utf8))),
      name: "tiny", shards: [shard])
  }

  @Test(arguments: ["model.decoder.", "decoder."])
  func `A folder with either prefix is described`(prefix: String) throws {
    let model = try describe(prefix: prefix)
    let configuration = try #require(model.configuration)
    #expect(configuration.outputNorm == .layer && configuration.tiesOutput)
    let layer = configuration.layers[0]
    #expect(layer.blocks.map(\.preNorm) == [.layer, .layer])
    #expect(layer.attention?.hasBiases == true && layer.attention?.hasOutputBias == true)
    #expect(layer.feedForward?.hasBiases == true && layer.feedForward?.isGated == false)
    #expect(configuration.positionOffset == 2 && configuration.contextLength == 64)
    #expect(configuration.activation == .relu && configuration.feedForwardLength == 64)
    #expect(configuration.attentionScale == 0.25 && configuration.normEpsilon == 1e-5)
    #expect(model.tensors.count == 20)
    let image = try FlashImage.Layout(for: model).description
    let table = try TensorTable(image.tensors)
    #expect(table["position_embd.weight"]?.layout == .rowMajor)
    #expect(table["token_embd.weight"]?.layout == .interleaved)
  }

  @Test func `Biases may be missing altogether`() throws {
    let configuration = try describe(#""enable_bias":false"#, hasBiases: false)
      .configuration
    #expect(configuration?.layers[0].feedForward?.hasBiases == false)
    #expect(throws: FormatError.self) { try describe(hasBiases: false) }
  }

  @Test(arguments: [
    (#""do_layer_norm_before":false"#, "do_layer_norm_before"),
    (#""word_embed_proj_dim":16"#, "word_embed_proj_dim"),
    (#""_remove_final_layer_norm":true"#, "_remove_final_layer_norm"),
    (#""layer_norm_elementwise_affine":false"#, "layer_norm_elementwise_affine"),
    (#""activation_function":"gelu""#, "activation_function"),
    (#""activation_function":"silu""#, "activation_function"),
    (#""max_position_embeddings":65"#, "embed_positions.weight"),
    (#""ffn_dim":"x""#, "ffn_dim"),
  ])
  func `Other graphs are refused by name`(more: String, text: String) {
    do throws(FormatError) {
      _ = try describe(more)
      Issue.record("described")
    } catch { #expect(error.description.contains(text), "\(error)") }
  }

  @Test func `GGUF files of it are refused`() throws {
    var file = TinyModel().gguf(seed: 1)
    let key = try #require(file.metadata.firstIndex { $0.key == "general.architecture" })
    file.metadata[key].value = .string("opt")
    do throws(FormatError) {
      _ = try ImageBuilder.description(of: file.bytes())
      Issue.record("described")
    } catch { #expect(error.description.contains("Hugging Face folder"), "\(error)") }
  }

  @Test func `Headers state only what is not usual, and may leave it out`() throws {
    let llama = try #require(
      try ImageBuilder.description(of: TinyModel().gguf(seed: 1).bytes()).configuration)
    let text = String(decoding: try JSONEncoder().encode(llama), as: UTF8.self)
    for key in ["isGated", "normKind", "hasProjectionBiases", "positionOffset"] {
      #expect(!text.contains(key))
    }
    let opt = try #require(try describe().configuration)
    let bytes = try JSONEncoder().encode(opt)
    #expect(try JSONDecoder().decode(DecoderConfiguration.self, from: bytes) == opt)
  }

  @Test func `Values that contradict each other are refused`() throws {
    let opt = try #require(try describe().configuration)
    typealias Change = (inout DecoderConfiguration) -> Void
    let changes: [Change] = [
      { $0.positionOffset = -1 }, { $0.positionOffset = .max },
      { $0.layers[0].feedForward?.isGated = true },
      { $0.activation = .silu }, { $0.layers[0].attention?.headNorm = .heads },
      { $0.layers[0].blocks[0].postNorm = .rms }, { $0.layers[0].attention?.rope = .full },
    ]
    for (index, change) in changes.enumerated() {
      var configuration = opt
      change(&configuration)
      #expect(throws: FormatError.self, "change \(index)") { try configuration.validate() }
    }
  }
}
