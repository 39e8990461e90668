import TensorBasics

/// A folder's tensors under their GGUF names.
struct HuggingFaceTensors {
  private(set) var records: [TensorRecord] = []
  /// One entry a record.
  private(set) var contents: [TensorContent] = []

  /// Files without what precedes the decoder's own names; multimodal files have it.
  private static let prefixes = [
    (from: "language_model.model.", to: "model."),
    (from: "language_model.lm_head.", to: "lm_head."),
    (from: "model.language_model.", to: "model."),
  ]
  /// Parts of multimodal models that see, not read.
  private static let ignoredPrefixes = [
    "vision_tower.", "multi_modal_projector.", "model.vision_tower.",
    "model.multi_modal_projector.",
  ]
  private static let outerNames = [
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
  ]

  /// - Throws: ``FormatError`` for a tensor whose name has no meaning, or of three dimensions.
  init(
    shards: [SafetensorsFile], architecture: any Architecture.Type
  ) throws(FormatError) {
    let layerNames = architecture.huggingFaceLayerNames
    for (fileIndex, shard) in shards.enumerated() {
      for tensor in shard.tensors {
        if Self.isIgnored(tensor.name) { continue }
        guard let name = Self.name(of: tensor.name, layerNames: layerNames) else {
          throw FormatError(
            .unsupported, at: tensor.infoOffset, path: shard.path,
            "tensor \"\(tensor.name)\" has no place in the architecture \"\(architecture.name)\" as"
              + " it is supported")
        }
        guard let columnCount = tensor.shape.last, tensor.shape.count <= 2,
          !tensor.shape.contains(0)
        else {
          throw FormatError(
            .malformed, at: tensor.infoOffset, path: shard.path,
            "tensor \"\(tensor.name)\" is neither a vector nor a matrix: \(tensor.shape)")
        }
        records.append(
          TensorRecord(
            name: name, type: tensor.type, columnCount: columnCount,
            rowCount: tensor.shape.count == 2 ? tensor.shape[0] : 1, layout: .rowMajor,
            fileIndex: fileIndex, offset: tensor.offset, byteCount: tensor.byteCount))
        let isFromOne = architecture.huggingFaceNormsAreFromOne && name.hasSuffix("norm.weight")
        contents.append(isFromOne ? .storedPlusOne : .stored)
      }
    }
  }

  /// Rows of the tensor with a GGUF name; nil where there is none.
  func rowCount(_ name: String) -> Int? { records.first { $0.name == name }?.rowCount }

  /// Adds a vector that no file holds; its record only says its shape.
  mutating func append(_ name: String, values: [Float]) {
    records.append(
      TensorRecord(
        name: name, type: .f32, columnCount: values.count, rowCount: 1, layout: .rowMajor,
        fileIndex: 0, offset: 0, byteCount: 4 * values.count))
    contents.append(.values(values))
  }

  /// Old files hold RoPE's frequencies, which follow from the configuration.
  private static func isIgnored(_ name: String) -> Bool {
    name.hasSuffix(".rotary_emb.inv_freq") || ignoredPrefixes.contains { name.hasPrefix($0) }
  }

  /// The GGUF name, e.g. `blk.3.attn_q.weight` for `model.layers.3.self_attn.q_proj.weight`.
  private static func name(of original: String, layerNames: [String: String]) -> String? {
    var original = original
    if let prefix = prefixes.first(where: { original.hasPrefix($0.from) }) {
      original = prefix.to + original.dropFirst(prefix.from.count)
    }
    if let name = outerNames[original] { return name }
    let parts = original.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count >= 5, parts[0] == "model", parts[1] == "layers", let layer = Int(parts[2]),
      layer >= 0, String(layer) == parts[2], let suffix = parts.last,
      suffix == "weight" || suffix == "bias",
      let name = layerNames[parts[3..<parts.count - 1].joined(separator: ".")]
    else { return nil }
    return "blk.\(layer).\(name).\(suffix)"
  }
}
