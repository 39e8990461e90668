import TensorBasics

/// How a folder's weights are quantised, as `quantization_config` says; what cannot be read is refused with
/// what to take instead.
struct HuggingFaceQuantisation {
  /// Rows and columns that share a scale, where they are stated.
  private var block: (rowCount: Int, columnCount: Int)?
  /// Whether words of eight 4-bit integers are expected.
  private var hasInt4 = false
  /// Columns that share a scale of such integers, as `config_groups` states; 0 for whole rows. Empty where it does not.
  private var groupLengths: Set<Int> = []
  /// Whether experts are in blocks of 32 numbers of 4 bits, with a scale for each block beside them.
  private var hasBlocks = false
  private let isStated: Bool
  private let path: String

  /// - Parameter root: `config.json`.
  init(_ root: JSONValue, path: String) throws(FormatError) {
    self.path = path
    let text = root["text_config"]
    guard
      let stated = root["quantization_config"] ?? text?["quantization_config"]
        ?? root["quantization"]
    else {
      isStated = false
      return
    }
    isStated = true
    switch stated["quant_method"]?.string {
    case "fp8", "fbgemm_fp8": break
    case "modelopt" where stated["quant_algo"]?.string == "FP8": break
    case "compressed-tensors": try readCompressedTensors(stated)
    case "mxfp4": hasBlocks = true
    case let method?: throw Self.refusal(of: Self.names[method] ?? method, stated, path)
    case nil:
      let isMLX = stated["bits"] != nil && stated["group_size"] != nil
      throw Self.refusal(of: isMLX ? "MLX" : "a method that is not stated", stated, path)
    }
    if let sides = stated["weight_block_size"] { try setBlock(sides) }
  }

  private static let names = [
    "awq": "AWQ", "gptq": "GPTQ", "bitsandbytes": "bitsandbytes", "hqq": "HQQ",
    "modelopt": "ModelOpt in another format than FP8",
  ]

  private static func refusal(of method: String, _ value: JSONValue, _ path: String) -> FormatError
  {
    FormatError(
      .unsupported, at: value.offset, path: path,
      "weights quantised by \(method) are not supported: \(remedy)")
  }

  private static let remedy =
    "take the folder that they were made from (BF16, F16 or FP8), which flashinfer-convert reads and can "
    + "quantise, or a GGUF file"

  /// Which method leaves tensors with such an ending.
  private static let methods = [
    "qweight": "GPTQ or AWQ", "qzeros": "GPTQ or AWQ", "g_idx": "GPTQ or AWQ",
    "absmax": "bitsandbytes", "quant_map": "bitsandbytes", "SCB": "bitsandbytes",
    "W_q": "HQQ", "biases": "MLX",
    "weight_packed": "compressed-tensors, which config.json does not state",
    "gate_up_proj_blocks": "MXFP4, which config.json does not state",
    "down_proj_blocks": "MXFP4, which config.json does not state",
  ]

  /// Why a tensor that has no place in any architecture is there, as its name tells; nil if it does not.
  static func refusal(ofTensor tensor: SafetensorsTensor, path: String) -> FormatError? {
    guard let ending = tensor.name.split(separator: ".").last,
      let method = methods[String(ending)]
    else { return nil }
    return FormatError(
      .unsupported, at: tensor.infoOffset, path: path,
      "tensor \"\(tensor.name)\" belongs to weights quantised by \(method), which are not supported: \(remedy)"
    )
  }

  private mutating func setBlock(_ value: JSONValue) throws(FormatError) {
    let sides = value.array?.compactMap(\.integer) ?? []
    guard sides.count == 2, value.array?.count == 2,
      sides.allSatisfy({ (1...1 << 20).contains($0) })
    else {
      throw FormatError(
        .malformed, at: value.offset, path: path,
        "the blocks of scales are not stated as two numbers of rows and columns")
    }
    block = (sides[0], sides[1])
  }

  /// vLLM's format: FP8 with scales, or symmetric integers of 4 bits.
  private mutating func readCompressedTensors(_ stated: JSONValue) throws(FormatError) {
    let groups = stated["config_groups"]?.members ?? []
    for group in groups {
      guard let weights = group.value["weights"] else { continue }
      let (bits, kind) = (weights["num_bits"]?.integer, weights["type"]?.string)
      switch (bits, kind) {
      case (8, "float"): break
      case (4, "int"):
        guard weights["symmetric"]?.bool == true else {
          throw Self.refusal(of: "compressed-tensors with zero points", weights, path)
        }
        guard
          weights["actorder"] == nil || weights["actorder"]?.string == "weight"
            || weights["actorder"]?.string == "static"
        else {
          throw Self.refusal(of: "compressed-tensors with columns in another order", weights, path)
        }
        hasInt4 = true
        if weights["strategy"]?.string == "channel" {
          groupLengths.insert(0)
        } else if let length = weights["group_size"]?.integer {
          groupLengths.insert(max(0, length))
        }
      default:
        let bits = bits.map { "\($0) bits" } ?? "unstated bits"
        throw Self.refusal(
          of: "compressed-tensors (\(kind ?? "unstated type") of \(bits))", weights, path)
      }
      if let sides = weights["block_structure"] { try setBlock(sides) }
    }
    let formats = ["float-quantized", "naive-quantized", "pack-quantized", "dense"]
    if let format = stated["format"]?.string, !formats.contains(format) {
      throw Self.refusal(of: "compressed-tensors in the format \(format)", stated, path)
    }
  }

  // MARK: - Tensors

  /// Endings of tensors that belong to a weight, or only to activations and caches.
  private static let companionEndings = [
    "weight_scale_inv", "weight_scale", "gate_up_proj_scale_inv", "down_proj_scale_inv",
    "gate_up_proj_scale", "down_proj_scale", "weight_shape", "input_scale", "activation_scale",
    "output_scale", "q_scale", "k_scale", "v_scale", "weight_zero_point", "weight_g_idx",
  ]

  /// Whether a tensor is read with the weight that it belongs to, or not at all.
  func isCompanion(_ name: String) -> Bool {
    guard isStated, let ending = name.split(separator: ".").last else { return false }
    return Self.companionEndings.contains { $0 == ending }
      || (hasBlocks && ["gate_up_proj_scales", "down_proj_scales"].contains(ending))
  }

  /// The weight's name of a tensor of packed words.
  func weightName(_ name: String) -> String {
    if hasInt4, name.hasSuffix(".weight_packed") { return String(name.dropLast("_packed".count)) }
    return hasBlocks && name.hasSuffix("_proj_blocks")
      ? String(name.dropLast("_blocks".count)) : name
  }

  /// How the rows of a tensor are packed; nil of one of an element type.
  ///
  /// - Parameters:
  ///   - weightName: as ``weightName(_:)`` gives it.
  ///   - index: the tensors of all files.
  /// - Throws: ``FormatError`` for scales that are missing or do not fit.
  func packing(
    of tensor: SafetensorsTensor, _ weightName: String, _ shardPath: String,
    _ index: SafetensorsIndex
  ) throws(FormatError) -> PackedMatrix? {
    let form: PackedMatrix.Form
    if hasBlocks, weightName != tensor.name {
      return try blocks(tensor, weightName, shardPath, index)
    }
    switch tensor.type.name {
    case "F8_E4M3": form = .e4m3
    case "F8_E5M2": form = .e5m2
    case "I32" where weightName != tensor.name: form = .int4
    default: return nil
    }
    func error(_ kind: FormatError.Kind, _ message: String) -> FormatError {
      FormatError(
        kind, at: tensor.infoOffset, path: shardPath, "tensor \"\(tensor.name)\" \(message)")
    }
    for ending in ["_zero_point", "_g_idx"] where index[weightName + ending] != nil {
      throw error(
        .unsupported,
        "has a \"\(weightName + ending)\", which is not supported: take the folder that it was made from"
      )
    }
    guard tensor.shape.count == 2 || tensor.shape.count == 3, !tensor.shape.contains(0) else {
      throw error(.malformed, "of \(tensor.type.name) is no matrix: \(tensor.shape)")
    }
    guard let scale = index[weightName + "_scale_inv"] ?? index[weightName + "_scale"] else {
      throw error(
        .malformed, "of \(tensor.type.name) has no \"\(weightName)_scale_inv\" or \"_scale\"")
    }
    let stackCount = tensor.shape.count == 3 ? tensor.shape[0] : 1
    let rowCount = tensor.shape[tensor.shape.count - 2]
    let columnCount = tensor.shape[tensor.shape.count - 1] * (form == .int4 ? 8 : 1)
    guard
      let scales = Self.scales(
        scale.tensor, scale.fileIndex, stackCount, rowCount: rowCount, columnCount: columnCount,
        form, block)
    else {
      throw error(
        .malformed,
        "has scales of \(scale.tensor.type.name) \(scale.tensor.shape), which do not fit its shape "
          + "\(tensor.shape)")
    }
    var matrix = PackedMatrix(form: form, scales: scales)
    guard form == .int4 else { return matrix }
    let length = scales.blockColumnCount
    guard
      groupLengths.isEmpty || groupLengths.contains(length)
        || (length == columnCount && groupLengths.contains(0))
    else {
      let stated = groupLengths.sorted().map { $0 == 0 ? "whole rows" : "\($0)" }
      throw error(
        .malformed,
        "has a scale for each \(length) columns, and config.json states groups of "
          + stated.joined(separator: " or "))
    }
    if let shape = index[weightName + "_shape"] {
      guard shape.tensor.type.name == "I64", shape.tensor.shape == [2] else {
        throw error(
          .malformed,
          "has a \"\(weightName)_shape\" of \(shape.tensor.type.name) \(shape.tensor.shape), not I64 [2]"
        )
      }
      matrix.shapes = [
        ExpertStack.Place(fileIndex: shape.fileIndex, offset: shape.tensor.offset)
      ]
    }
    return matrix
  }

  /// Stacked matrices of MXFP4: U8 [matrices, rows, blocks, 16], and scales U8 [matrices, rows, blocks].
  private func blocks(
    _ tensor: SafetensorsTensor, _ weightName: String, _ shardPath: String,
    _ index: SafetensorsIndex
  ) throws(FormatError) -> PackedMatrix {
    func error(_ message: String) -> FormatError {
      FormatError(
        .malformed, at: tensor.infoOffset, path: shardPath, "tensor \"\(tensor.name)\" \(message)")
    }
    let shape = tensor.shape
    guard tensor.type.name == "U8", shape.count == 4, shape[3] == 16, !shape.contains(0) else {
      throw error(
        "of \(tensor.type.name) \(shape) is not in blocks of 16 bytes: [matrices, rows, blocks, 16]"
      )
    }
    guard let scale = index[weightName + "_scales"] else {
      throw error("has no \"\(weightName)_scales\"")
    }
    guard scale.tensor.type.name == "U8", scale.tensor.shape == Array(shape.dropLast()) else {
      throw error(
        "has scales of \(scale.tensor.type.name) \(scale.tensor.shape), which do not fit its shape \(shape)"
      )
    }
    var scales = PackedMatrix.Scales(
      type: .e8m0, blockRowCount: 1, blockColumnCount: 32, columnCount: shape[2],
      rowCount: shape[1], places: [])
    scales.places = (0..<shape[0]).map {
      ExpertStack.Place(
        fileIndex: scale.fileIndex, offset: scale.tensor.offset + $0 * scales.byteCount)
    }
    return PackedMatrix(form: .e2m1, scales: scales)
  }

  /// Which rows and columns each scale holds for; nil if that cannot be told.
  private static func scales(
    _ tensor: SafetensorsTensor, _ fileIndex: Int, _ stackCount: Int, rowCount: Int,
    columnCount: Int, _ form: PackedMatrix.Form, _ stated: (rowCount: Int, columnCount: Int)?
  ) -> PackedMatrix.Scales? {
    let types: [String: PackedMatrix.Scales.NumberType] = [
      "F32": .f32, "F16": .f16, "BF16": .bf16, "F8_E8M0": .e8m0,
    ]
    guard let type = types[tensor.type.name] else { return nil }
    var shape = tensor.shape
    if stackCount > 1 || shape.count == 3 {
      guard shape.first == stackCount else { return nil }
      shape.removeFirst()
    }
    // One for all, or one a row.
    if shape.isEmpty || shape == [1] { shape = [1, 1] }
    if shape.count == 1 { shape.append(1) }
    guard shape.count == 2, shape[0] > 0, shape[1] > 0 else { return nil }
    func blockCount(_ length: Int, _ block: Int) -> Int { (length + block - 1) / block }
    var block = (
      rowCount: shape[0] == rowCount ? 1 : rowCount,
      columnCount: shape[1] == 1 ? columnCount : columnCount / shape[1]
    )
    let isWhole = shape[1] == 1 && (shape[0] == 1 || shape[0] == rowCount)
    if form == .int4 {
      guard shape[0] == rowCount, columnCount % shape[1] == 0, block.columnCount % 32 == 0 else {
        return nil
      }
    } else if let side = stated ?? (isWhole ? nil : (128, 128)),
      blockCount(rowCount, side.rowCount) == shape[0],
      blockCount(columnCount, side.columnCount) == shape[1]
    {
      block = side
    } else if !isWhole {
      return nil
    }
    var scales = PackedMatrix.Scales(
      type: type, blockRowCount: block.rowCount, blockColumnCount: block.columnCount,
      columnCount: shape[1], rowCount: shape[0], places: [])
    scales.places = (0..<stackCount).map {
      ExpertStack.Place(fileIndex: fileIndex, offset: tensor.offset + $0 * scales.byteCount)
    }
    return scales
  }
}

/// The tensors of a model's files by their names.
struct SafetensorsIndex {
  private var tensors: [String: (tensor: SafetensorsTensor, fileIndex: Int)] = [:]

  init(_ shards: [SafetensorsFile]) {
    for (index, shard) in shards.enumerated() {
      for tensor in shard.tensors { tensors[tensor.name] = (tensor, index) }
    }
  }

  subscript(name: String) -> (tensor: SafetensorsTensor, fileIndex: Int)? { tensors[name] }
}
