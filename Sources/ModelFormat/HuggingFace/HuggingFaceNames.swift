/// What Hugging Face files call tensors, and their GGUF names.
struct HuggingFaceNames {
  /// What may precede the decoder's own names: multimodal files have it, OPT's and OpenELM's.
  private static let prefixes = [
    (from: "language_model.model.", to: "model."),
    (from: "language_model.lm_head.", to: "lm_head."),
    (from: "model.language_model.", to: "model."),
    (from: "model.decoder.", to: "model."), (from: "decoder.", to: "model."),
    (from: "transformer.", to: "model."), (from: "model.backbone.", to: "model."),
    (from: "model.transformer.", to: "model."),
    (from: "model.lm_head.", to: "lm_head."), (from: "backbone.", to: "model."),
  ]
  /// Parts of multimodal models that see, not read.
  private static let ignoredPrefixes = [
    "vision_tower.", "multi_modal_projector.", "model.vision_tower.",
    "model.multi_modal_projector.", "model.visual.",
  ]
  /// What follows from the configuration or other tensors: RoPE's frequencies, what lightning attention forgets, tables that
  /// are heads, and what a training run counted.
  private static let ignoredSuffixes = [
    ".rotary_emb.inv_freq", ".self_attn.slope_rate", ".self_attn.query_decay",
    ".self_attn.key_decay", ".self_attn.diagonal_decay", ".embeddings.word_embeddings.weight",
    "_metrics.num-tokens.count",
  ]
  private static let outerNames = [
    "model.embed_tokens.weight": "token_embd.weight",
    "model.token_embeddings.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight", "model.embed_positions.weight": "position_embd.weight",
    "model.final_layer_norm.weight": "output_norm.weight",
    "model.final_layer_norm.bias": "output_norm.bias",
    "model.embeddings.weight": "token_embd.weight", "model.norm_f.weight": "output_norm.weight",
    "model.embedding_norm.weight": "output_norm.weight", "model.ln_f.weight": "output_norm.weight",
    "model.final_layernorm.weight": "output_norm.weight",
  ]

  /// GGUF's names of a layer's tensors by their own, without prefix and suffix.
  private let layerNames: [String: String]
  private let tableIsHead: Bool
  /// What precedes the decoder's names in these files.
  private let prefix: (from: String, to: String)?
  /// Where tensors are missing: the file, or of several their folder.
  let place: String?

  init(_ architecture: any Architecture.Type, _ shards: [SafetensorsFile]) {
    layerNames = architecture.huggingFaceLayerNames
    tableIsHead = architecture.huggingFaceTableIsHead
    let names = shards.lazy.flatMap(\.tensors).map(\.name)
    prefix = Self.prefixes.first { prefix in names.contains { $0.hasPrefix(prefix.from) } }
    let first = shards.first?.path
    place =
      shards.count == 1
      ? first : first?.utf8.lastIndex(of: UInt8(ascii: "/")).map { String(first![..<$0]) }
  }

  /// Whether nothing needs a tensor.
  static func isIgnored(_ name: String) -> Bool {
    ignoredSuffixes.contains { name.hasSuffix($0) }
      || ignoredPrefixes.contains { name.hasPrefix($0) }
  }

  /// The GGUF name, e.g. `blk.3.attn_q.weight` for `model.layers.3.self_attn.q_proj.weight`, and the
  /// expert's number, where the tensor is one expert's.
  func stored(_ original: String) -> (name: String, expert: Int?)? {
    var original = original
    if let prefix = Self.prefixes.first(where: { original.hasPrefix($0.from) }) {
      original = prefix.to + original.dropFirst(prefix.from.count)
    }
    if tableIsHead, original == "lm_head.weight" { return ("token_embd.weight", nil) }
    if let name = Self.outerNames[original] { return (name, nil) }
    var parts = original.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count >= 5, parts[0] == "model", parts[1] == "layers",
      let layer = Self.number(parts[2]), let suffix = parts.last
    else { return nil }
    // Parameters of a block have names without an ending: GGUF's is as it is stated, or of stacked experts "weight".
    if let name = layerNames[parts[3...].joined(separator: ".")] {
      let isStack = parts.count == 6 && parts[4] == "experts" && !name.contains(".")
      return ("blk.\(layer).\(name)" + (isStack ? ".weight" : ""), nil)
    }
    guard suffix == "weight" || suffix == "bias" else { return nil }
    var expert: Int?
    if parts.count == 8, parts[4] == "experts" {
      guard let index = Self.number(parts[5]), suffix == "weight" else { return nil }
      expert = index
      parts[5] = "*"
    }
    guard let name = layerNames[parts[3..<parts.count - 1].joined(separator: ".")] else {
      return nil
    }
    return ("blk.\(layer).\(name).\(suffix)", expert)
  }

  /// What files call tensors of layers, without prefix and ending, numbers of experts being `*`.
  static func layerTensors(_ shards: [SafetensorsFile]) -> Set<String> {
    var found: Set<String> = []
    for tensor in shards.lazy.flatMap(\.tensors) where !isIgnored(tensor.name) {
      let parts = tensor.name.split(separator: ".")
      guard let layers = parts.firstIndex(of: "layers"), layers + 2 < parts.count,
        number(parts[layers + 1]) != nil
      else { continue }
      var name = parts[(layers + 2)...].map { number($0) == nil ? String($0) : "*" }
      if ["weight", "bias"].contains(name.last) { name.removeLast() }
      found.insert(name.joined(separator: "."))
    }
    return found
  }

  /// The layer that a tensor belongs to; nil of one that belongs to none.
  func layer(_ original: String) -> Int? {
    var name = original[...]
    if let prefix, name.hasPrefix(prefix.from) {
      name = prefix.to + name.dropFirst(prefix.from.count)
    }
    let parts = name.split(separator: ".", maxSplits: 3, omittingEmptySubsequences: false)
    guard parts.count == 4, parts[0] == "model", parts[1] == "layers" else { return nil }
    return Self.number(parts[2])
  }

  /// The number of the layer that predicts further tokens and that a tensor belongs to, 0 of what all of them share; nil of tensors
  /// of the model.
  ///
  /// - Parameter layerCount: layers of the model; later ones predict. nil = only those under other names do.
  func predictionLayer(_ name: String, after layerCount: Int?) -> Int? {
    for prefix in ["mtp.", "model.mtp."] where name.hasPrefix(prefix) {
      let parts = name.dropFirst(prefix.count).split(separator: ".", maxSplits: 2)
      return parts.count > 1 && parts[0] == "layers" ? Self.number(parts[1]) ?? 0 : 0
    }
    guard let layerCount, let layer = layer(name), layer >= layerCount else { return nil }
    return layer
  }

  /// A number from 0 on as it is usually written.
  private static func number(_ text: Substring) -> Int? {
    guard let value = Int(text), value >= 0, String(value) == text else { return nil }
    return value
  }

  /// The name in these files of what is called `name` in GGUF; an expert's number is `*`.
  func original(_ name: String) -> String {
    var original = Self.outerNames.filter { $0.value == name }.map(\.key).max()
    if tableIsHead, name == "token_embd.weight" { original = "lm_head.weight" }
    let parts = name.split(separator: ".", omittingEmptySubsequences: false)
    if original == nil, (3...4).contains(parts.count), parts[0] == "blk" {
      let prefix = "model.layers.\(parts[1])."
      func named(_ value: String) -> String? {
        layerNames.filter { $0.value == value }.map(\.key).min()
      }
      original =
        named(parts[2...].joined(separator: ".")).map { prefix + $0 }
        ?? named(String(parts[2])).map { "\(prefix)\($0).\(parts[parts.count - 1])" }
    }
    guard let original else { return name }
    guard let prefix, original.hasPrefix(prefix.to) else { return original }
    return prefix.from + original.dropFirst(prefix.to.count)
  }
}

extension HuggingFaceTensors: TensorOrigins {
  func origin(of tensor: TensorRecord) -> TensorOrigin {
    self[tensor] ?? TensorOrigin(name: names.original(tensor.name), path: names.place)
  }

  func origin(ofMissing name: String) -> TensorOrigin {
    TensorOrigin(name: names.original(name), path: names.place)
  }
}
