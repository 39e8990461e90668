/// A family of decoder-only transformers: how its files' hyper-parameters become a
/// ``DecoderConfiguration``.
///
/// A further family is one more file here and one more entry in ``Architectures/all``.
protocol Architecture: Sendable {
  /// ggml's name, by which images call the family.
  static var name: String { get }

  /// Whether Hugging Face files hold the embedding table as the output head that it is.
  static var huggingFaceTableIsHead: Bool { get }

  /// Reads a GGUF file's hyper-parameters.
  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration

  /// What GGUF files of the family have as `general.architecture`, and in front of their keys.
  static var ggufNames: [String] { get }

  /// Whether files of the family have layers after the last one that predict further tokens, which are left out.
  static var skipsPredictionLayers: Bool { get }

  /// Names of a layer's tensors by those that GGUF files of the family have for them, where these are others; of a tensor of no layer with
  /// its ending.
  static var ggufLayerNames: [String: String] { get }

  /// Vectors that GGUF files of the family do not hold, beside divisors of RoPE's frequencies.
  static func derivedValues(_ configuration: DecoderConfiguration) -> [String: [Float]]

  /// The names that Hugging Face configurations have for it (`architectures`).
  static var huggingFaceNames: [String] { get }

  /// Whether Hugging Face files hold norm weights as their distance from 1.
  static var huggingFaceNormsAreFromOne: Bool { get }

  /// GGUF's names of a layer's tensors by their Hugging Face names, without prefix and suffix; of what has no suffix
  /// there, with it.
  static var huggingFaceLayerNames: [String: String] { get }

  /// How folders of the class `name` of transformers stack experts.
  static func huggingFaceExpertLayout(_ name: String) -> FusedTensors.ExpertLayout

  /// Reads a Hugging Face folder's hyper-parameters.
  static func configuration(
    huggingFace parameters: HuggingFaceHyperparameters
  ) throws(FormatError) -> HuggingFaceConfiguration
}

/// A decoder as a Hugging Face configuration describes it.
struct HuggingFaceConfiguration {
  var decoder: DecoderConfiguration
  /// Vectors that no file holds, by their GGUF names: divisors of RoPE's frequencies, biases of zeros.
  var derivedValues: [String: [Float]] = [:]
}

extension Architecture {
  static var ggufNames: [String] { [name] }

  static var skipsPredictionLayers: Bool { false }

  static var ggufLayerNames: [String: String] { [:] }

  static func derivedValues(_ configuration: DecoderConfiguration) -> [String: [Float]] { [:] }

  static var huggingFaceNormsAreFromOne: Bool { false }

  static var huggingFaceLayerNames: [String: String] { denseHuggingFaceLayerNames }

  static func huggingFaceExpertLayout(_ name: String) -> FusedTensors.ExpertLayout { .rows }

  /// The names that most families share.
  static var denseHuggingFaceLayerNames: [String: String] {
    [
      "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
      "self_attn.v_proj": "attn_v", "self_attn.qkv_proj": "attn_qkv",
      "self_attn.q_norm": "attn_q_norm",
      "self_attn.k_norm": "attn_k_norm", "self_attn.o_proj": "attn_output",
      "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
      "mlp.up_proj": "ffn_up", "mlp.gate_up_proj": "ffn_gate_up", "mlp.down_proj": "ffn_down",
    ]
  }

  static var huggingFaceTableIsHead: Bool { false }
}

/// The families this project runs.
enum Architectures {
  static let all: [any Architecture.Type] = [
    Llama.self, Phi3.self, Qwen2.self, Qwen2MoE.self, Qwen3.self, Qwen3MoE.self, OLMoE.self,
    Gemma2.self, Gemma3.self, OLMo2.self, Granite.self, SmolLM3.self, CommandR.self, GLM4.self,
    GPTOSS.self,
    GLM4MoE.self, MiniMaxM2.self, Qwen3Next.self, Qwen35.self,
    Qwen35MoE.self, GraniteHybrid.self, Mamba2.self, NemotronH.self, LFM2.self, LFM2MoE.self,
    FalconH1.self, MiniMax.self, GLA.self, Based.self, MiMo2.self, OpenELM.self, OPT.self,
  ]

  /// The family that GGUF files call `name`.
  ///
  /// - Parameter layerTensors: what the file calls tensors of its layers, without prefix and ending.
  static func named(
    _ name: String, layerTensors: Set<String>, path: String?
  ) throws(FormatError) -> any Architecture.Type {
    if let match = all.first(where: { $0.ggufNames.contains(name) }) { return match }
    let nearest = nearest(to: layerTensors, name) { family in
      (family.ggufNames, family.ggufLayerTensors)
    }
    let known = all.flatMap { $0.ggufNames }.joined(separator: ", ")
    throw FormatError(
      .unsupported, path: path,
      "architecture \"\(name)\" is not supported; \(nearest); \(known) are supported")
  }

  /// The family that Hugging Face calls `name` (a class of transformers).
  ///
  /// - Parameter layerTensors: what the files call tensors of their layers, numbers of experts being `*`.
  static func named(
    huggingFace name: String, layerTensors: Set<String>, path: String
  ) throws(FormatError) -> any Architecture.Type {
    if let match = all.first(where: { $0.huggingFaceNames.contains(name) }) { return match }
    let nearest = nearest(to: layerTensors, name) { family in
      (family.huggingFaceNames, Set(family.huggingFaceLayerNames.keys))
    }
    let known = all.flatMap { $0.huggingFaceNames }.joined(separator: ", ")
    throw FormatError(
      .unsupported, path: path,
      "architecture \"\(name)\" is not supported; \(nearest); \(known) are supported")
  }

  /// Which family comes nearest to a file, and what of the file's it does not have.
  ///
  /// The nearest has the fewest tensors too few, then the name that begins most alike, then the fewest too many.
  private static func nearest(
    to tensors: Set<String>, _ name: String,
    _ describe: (any Architecture.Type) -> (names: [String], tensors: Set<String>)
  ) -> String {
    func likeness(_ other: String) -> Int {
      zip(name.lowercased(), other.lowercased()).prefix { $0 == $1 }.count
    }
    let candidates = all.map { family in
      let (names, known) = describe(family)
      let best = names.max { likeness($0) < likeness($1) } ?? family.name
      return (
        name: best, lacking: tensors.subtracting(known),
        surplus: known.subtracting(tensors).count, likeness: likeness(best)
      )
    }
    let nearest = candidates.min {
      ($0.lacking.count, -$0.likeness, $0.surplus) < ($1.lacking.count, -$1.likeness, $1.surplus)
    }
    guard let nearest else { return "" }
    let lacking = nearest.lacking.sorted()
    let named = lacking.prefix(shownTensorCount).map { "\"\($0)\"" }.joined(separator: ", ")
    let rest =
      lacking.count > shownTensorCount ? " and \(lacking.count - shownTensorCount) more" : ""
    let difference =
      tensors.isEmpty
      ? ""
      : lacking.isEmpty
        ? ", whose layers have tensors of all these names, so that they differ in arithmetic or shape"
        : ", whose layers have no \(named)\(rest)"
    return "the nearest that is, is \"\(nearest.name)\"\(difference)"
  }

  private static let shownTensorCount = 8
}

extension Architecture {
  /// What GGUF files of the family may call tensors of layers: what folders' tensors become, by their names there.
  fileprivate static var ggufLayerTensors: Set<String> {
    let own = Dictionary(ggufLayerNames.map { ($1, $0) }) { first, _ in first }
    return Set(
      huggingFaceLayerNames.values.map { value in
        let name = String(value.prefix { $0 != "." })
        return String((own[name] ?? name).prefix { $0 != "." })
      })
  }
}

/// What this project runs, as files call it.
package enum SupportedArchitectures {
  /// Of each family its names in GGUF files, and the classes of transformers.
  package static var all: [(gguf: [String], huggingFace: [String])] {
    Architectures.all.map { ($0.ggufNames, $0.huggingFaceNames) }
  }
}
