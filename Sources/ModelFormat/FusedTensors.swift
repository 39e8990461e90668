import TensorBasics

/// Matrices that a file stores below each other in one tensor: query, key and value, or gate and up.
///
/// Their rows are row-major, so that each matrix is a record of some of the tensor's rows, and is read from
/// where it lies.
enum FusedTensors {
  /// How an architecture's folders stack experts.
  enum ExpertLayout {
    /// Gate above up, [experts, 2 · length, width], and down [experts, width, length].
    case rows
    /// Each of these transposed: [experts, width, 2 · length] and [experts, length, width].
    case columns
    /// As ``columns``, but gate and up take turns, column by column; where they are packed, not transposed, and row by
    /// row.
    case alternatingColumns
  }

  /// Puts the matrices of fused tensors in their place.
  ///
  /// - Parameters:
  ///   - tensors: under GGUF names; `ffn_gate_up` is a dense FFN's gate and up, which GGUF files call `ffn_up`.
  ///   - origins: what the files call their tensors, for errors.
  ///   - note: is told of each fused tensor and the matrices that it holds.
  /// - Throws: ``FormatError`` for a fused tensor that does not have the rows of its matrices.
  static func split(
    _ tensors: [TensorRecord], _ configuration: DecoderConfiguration,
    origins: some TensorOrigins,
    note: (_ fused: TensorRecord, _ matrices: [TensorRecord]) -> Void = { _, _ in }
  ) throws(FormatError) -> [TensorRecord] {
    let names = Set(tensors.map(\.name))
    var result: [TensorRecord] = []
    result.reserveCapacity(tensors.count)
    for tensor in tensors {
      guard let parts = parts(of: tensor, configuration, names) else {
        result.append(tensor)
        continue
      }
      try check(tensor, parts, configuration, origins.origin(of: tensor))
      var matrices: [TensorRecord] = []
      var row = 0
      for part in parts {
        matrices.append(tensor.rows(row..<row + part.rowCount, named: part.name))
        row += part.rowCount
      }
      note(tensor, matrices)
      result += matrices
    }
    return result
  }

  private typealias Part = (name: String, rowCount: Int)

  /// The matrices in a tensor, first rows first; nil of a tensor that is one matrix.
  private static func parts(
    of tensor: TensorRecord, _ configuration: DecoderConfiguration, _ names: Set<String>
  ) -> [Part]? {
    let words = tensor.name.split(separator: ".", omittingEmptySubsequences: false)
    guard words.count == 4, words[0] == "blk" else { return nil }
    let prefix = "blk.\(words[1])."
    guard let layer = Int(words[1]), configuration.layers.indices.contains(layer) else {
      return nil
    }
    let spec = configuration.layers[layer]
    let length = spec.feedForward.map(configuration.length) ?? configuration.feedForwardLength
    func gateAndUp(_ ending: String, _ length: Int) -> [Part] {
      [("\(prefix)ffn_gate\(ending)", length), ("\(prefix)ffn_up\(ending)", length)]
    }
    let isPair =
      configuration.isGated && configuration.experts == nil && tensor.rowCount == 2 * length
    switch "\(words[2]).\(words[3])" {
    case "attn_qkv.weight", "attn_qkv.bias":
      // A scan's is one matrix.
      guard let attention = spec.attention else { return nil }
      let heads = configuration.heads(of: attention)
      let queryLength = attention.hasGate ? 2 * heads.queryLength : heads.queryLength
      return [("q", queryLength), ("k", heads.keyLength), ("v", heads.valuesLength)].map {
        ("\(prefix)attn_\($0.0).\(words[3])", $0.1)
      }
    case "ffn_gate_up.weight": return gateAndUp(".weight", length)
    case "ffn_up_gate.weight": return gateAndUp(".weight", length).reversed()
    // Of layers that do not attend, where folders call both the same.
    case "attn_output.weight", "attn_output.bias":
      return spec.attention == nil && spec.scan != nil
        ? [("\(prefix)ssm_out.\(words[3])", configuration.hiddenSize)] : nil
    case "ffn_gate_up_exps.weight":
      return configuration.experts.map { gateAndUp("_exps.weight", $0.feedForwardLength) }
    // An expert that always runs, where there are no others.
    case "ffn_gate_up_shexp.weight":
      return configuration.experts?.sharedFeedForwardLength.map { gateAndUp("_shexp.weight", $0) }
        ?? gateAndUp(".weight", length)
    case "ffn_down_shexp.weight" where configuration.experts == nil:
      return [("\(prefix)ffn_down.weight", configuration.hiddenSize)]
    case "ffn_up.weight" where isPair && !names.contains("\(prefix)ffn_gate.weight"):
      return gateAndUp(".weight", length)
    // As the first folders of gated linear attention have it.
    case "ffn_gate.weight" where isPair && !names.contains("\(prefix)ffn_up.weight"):
      return gateAndUp(".weight", length)
    default: return nil
    }
  }

  private static func check(
    _ tensor: TensorRecord, _ parts: [Part], _ configuration: DecoderConfiguration,
    _ origin: TensorOrigin
  ) throws(FormatError) {
    let wanted = parts.reduce(0) { $0 + $1.rowCount }
    let isVector = tensor.name.hasSuffix(".bias")
    let found = isVector ? tensor.columnCount : tensor.partRowCount
    guard found != wanted else { return }
    let sum = parts.map { "\($0.rowCount)" }.joined(separator: " + ")
    var message =
      "tensor \"\(origin.name)\" has \(found) \(isVector ? "elements" : "rows"), not \(sum)"
    if tensor.stack != nil, tensor.columnCount == wanted,
      tensor.partRowCount == configuration.hiddenSize
    {
      message +=
        ": its matrices are transposed, which is not how the architecture "
        + "\"\(configuration.architecture)\" stores them"
    }
    throw FormatError(.malformed, at: origin.offset, path: origin.path, message)
  }
}

extension TensorRecord {
  /// Some of a row-major tensor's rows as a tensor of its own; of a vector some of its elements, of stacked
  /// matrices the same rows of each.
  func rows(_ rows: Range<Int>, named name: String) -> TensorRecord {
    var record = self
    record.name = name
    if rowCount == 1 {
      record.columnCount = rows.count
      record.offset += rows.lowerBound * type.blockByteCount
      record.byteCount = rows.count * type.blockByteCount
      return record
    }
    let rowByteCount = byteCount / rowCount
    let count = stack?.count ?? 1
    let start = rows.lowerBound * rowByteCount
    record.offset += start
    record.rowCount = count * rows.count
    record.byteCount = count * rows.count * rowByteCount
    // Parts stay as far apart as they were.
    record.stack?.places = stack?.places?.map {
      ExpertStack.Place(fileIndex: $0.fileIndex, offset: $0.offset + start)
    }
    return record
  }
}
