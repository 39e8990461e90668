import TensorBasics

/// A folder's tensors under their GGUF names.
struct HuggingFaceTensors {
  private(set) var records: [TensorRecord] = []
  /// One entry a record.
  private(set) var contents: [TensorContent] = []

  /// What may precede the decoder's own names: multimodal files have it, and OPT's.
  private static let prefixes = [
    (from: "language_model.model.", to: "model."),
    (from: "language_model.lm_head.", to: "lm_head."),
    (from: "model.language_model.", to: "model."),
    (from: "model.decoder.", to: "model."), (from: "decoder.", to: "model."),
  ]
  /// Parts of multimodal models that see, not read.
  private static let ignoredPrefixes = [
    "vision_tower.", "multi_modal_projector.", "model.vision_tower.",
    "model.multi_modal_projector.",
  ]
  private static let outerNames = [
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight", "model.embed_positions.weight": "position_embd.weight",
    "model.final_layer_norm.weight": "output_norm.weight",
    "model.final_layer_norm.bias": "output_norm.bias",
  ]

  /// - Throws: ``FormatError`` for a tensor whose name has no meaning, or of three dimensions.
  init(
    shards: [SafetensorsFile], architecture: any Architecture.Type
  ) throws(FormatError) {
    let layerNames = architecture.huggingFaceLayerNames
    var parts: [String: [(expert: Int, record: TensorRecord)]] = [:]
    for (fileIndex, shard) in shards.enumerated() {
      for tensor in shard.tensors {
        if Self.isIgnored(tensor.name) { continue }
        guard let (name, expert) = Self.name(of: tensor.name, layerNames: layerNames) else {
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
        let record = TensorRecord(
          name: name, type: try tensor.weightType(path: shard.path), columnCount: columnCount,
          rowCount: tensor.shape.count == 2 ? tensor.shape[0] : 1, layout: .rowMajor,
          fileIndex: fileIndex, offset: tensor.offset, byteCount: tensor.byteCount)
        if let expert {
          parts[name, default: []].append((expert, record))
          continue
        }
        records.append(record)
        let isFromOne = architecture.huggingFaceNormsAreFromOne && name.hasSuffix("norm.weight")
        contents.append(isFromOne ? .storedPlusOne : .stored)
      }
    }
    for (name, parts) in parts.sorted(by: { $0.key < $1.key }) {
      try appendStack(name, parts.sorted { $0.expert < $1.expert }, shards)
    }
  }

  /// Adds a stacked tensor whose parts are tensors of the files; its record only says its shape.
  private mutating func appendStack(
    _ name: String, _ parts: [(expert: Int, record: TensorRecord)], _ shards: [SafetensorsFile]
  ) throws(FormatError) {
    let first = parts[0].record
    for (number, part) in parts.enumerated() {
      let path = shards[part.record.fileIndex].path
      guard part.expert == number else {
        throw FormatError(
          .malformed, at: part.record.offset, path: path,
          "\"\(name)\": expert \(number) is missing or appears twice")
      }
      guard part.record.type == first.type, part.record.columnCount == first.columnCount,
        part.record.rowCount == first.rowCount
      else {
        throw FormatError(
          .malformed, at: part.record.offset, path: path,
          "\"\(name)\": expert \(number) differs from expert 0 in type or shape")
      }
    }
    var record = first
    record.rowCount *= parts.count
    record.byteCount *= parts.count
    record.stack = ExpertStack(count: parts.count, byteStride: first.byteCount)
    records.append(record)
    contents.append(.parts(parts.map(\.record)))
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

  /// The GGUF name, e.g. `blk.3.attn_q.weight` for `model.layers.3.self_attn.q_proj.weight`, and the
  /// expert's number, where the tensor is one expert's.
  private static func name(
    of original: String, layerNames: [String: String]
  ) -> (name: String, expert: Int?)? {
    var original = original
    if let prefix = prefixes.first(where: { original.hasPrefix($0.from) }) {
      original = prefix.to + original.dropFirst(prefix.from.count)
    }
    if let name = outerNames[original] { return (name, nil) }
    var parts = original.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count >= 5, parts[0] == "model", parts[1] == "layers",
      let layer = number(parts[2]), let suffix = parts.last,
      suffix == "weight" || suffix == "bias"
    else { return nil }
    var expert: Int?
    if parts.count == 8, parts[4] == "experts" {
      guard let index = number(parts[5]), suffix == "weight" else { return nil }
      expert = index
      parts[5] = "*"
    }
    guard let name = layerNames[parts[3..<parts.count - 1].joined(separator: ".")] else {
      return nil
    }
    return ("blk.\(layer).\(name).\(suffix)", expert)
  }

  /// A number from 0 on as it is usually written.
  private static func number(_ text: Substring) -> Int? {
    guard let value = Int(text), value >= 0, String(value) == text else { return nil }
    return value
  }
}
