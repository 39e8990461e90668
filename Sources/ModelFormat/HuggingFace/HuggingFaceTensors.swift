import TensorBasics

/// A folder's tensors under their GGUF names.
struct HuggingFaceTensors {
  private(set) var records: [TensorRecord] = []
  /// By GGUF name, what is not used as it is stored.
  private(set) var derivations: [String: TensorDerivation] = [:]
  /// Where a record's tensor, or the first of its parts, is described: by file and data offset.
  private var origins: [Place: TensorOrigin] = [:]
  let names: HuggingFaceNames

  private struct Place: Hashable {
    let fileIndex: Int
    let offset: Int

    init(_ record: TensorRecord) { (fileIndex, offset) = (record.fileIndex, record.offset) }
  }

  /// What is left out of layers after the last one; nil = there is nothing.
  private(set) var predictionLayers: PredictionLayers?
  private var predictionLayerNumbers: Set<Int> = []

  /// - Parameter layerCount: layers of the model; nil = as many as there are.
  /// - Throws: ``FormatError`` for a tensor whose name has no meaning, or of three dimensions.
  init(
    shards: [SafetensorsFile], architecture: any Architecture.Type,
    quantisation: HuggingFaceQuantisation, layerCount: Int? = nil
  ) throws(FormatError) {
    names = HuggingFaceNames(architecture, shards)
    var parts: [String: [Part]] = [:]
    let index = SafetensorsIndex(shards)
    for (fileIndex, shard) in shards.enumerated() {
      for tensor in shard.tensors {
        if HuggingFaceNames.isIgnored(tensor.name) { continue }
        if architecture.skipsPredictionLayers,
          let layer = names.predictionLayer(tensor.name, after: layerCount)
        {
          leaveOut(tensor, ofLayer: layer)
          continue
        }
        if quantisation.isCompanion(tensor.name) { continue }
        let weightName = quantisation.weightName(tensor.name)
        guard let (name, expert) = names.stored(weightName) else {
          throw HuggingFaceQuantisation.refusal(ofTensor: tensor, path: shard.path)
            ?? FormatError(
              .unsupported, at: tensor.infoOffset, path: shard.path,
              "tensor \"\(tensor.name)\" has no place in the architecture \"\(architecture.name)\" as"
                + " it is supported")
        }
        let packing = try quantisation.packing(of: tensor, weightName, shard.path, index)
        let record = try Self.record(name, tensor, shard, fileIndex, packing)
        origins[Place(record)] = TensorOrigin(
          name: tensor.name, path: shard.path, offset: tensor.infoOffset)
        if let expert {
          parts[name, default: []].append(
            Part(expert: expert, record: record, packing: packing))
          continue
        }
        records.append(record)
        derivations[name] = packing.map(TensorDerivation.packed)
        if name.hasSuffix(".ssm_a") { derivations[name] = .negatedPower }
        if architecture.huggingFaceNormsAreFromOne && name.hasSuffix("norm.weight")
          && !name.hasSuffix(".ssm_norm.weight")
        {
          derivations[name] = .plusOne
        }
      }
    }
    for (name, parts) in parts.sorted(by: { $0.key < $1.key }) {
      try appendStack(name, parts.sorted { $0.expert < $1.expert }, shards)
    }
  }

  /// Counts a tensor of a layer that predicts further tokens.
  private mutating func leaveOut(_ tensor: SafetensorsTensor, ofLayer layer: Int) {
    var layers = predictionLayers ?? PredictionLayers()
    predictionLayerNumbers.insert(layer)
    layers.layerCount = predictionLayerNumbers.count
    layers.tensorCount += 1
    layers.byteCount += tensor.byteCount
    layers.problem = "such layers draft from GGUF files alone"
    predictionLayers = layers
  }

  /// A tensor that is one expert's.
  private struct Part {
    let expert: Int
    let record: TensorRecord
    let packing: PackedMatrix?
  }

  /// A tensor under its GGUF name; one of three dimensions stacks a matrix an expert.
  private static func record(
    _ name: String, _ tensor: SafetensorsTensor, _ shard: SafetensorsFile, _ fileIndex: Int,
    _ packing: PackedMatrix?
  ) throws(FormatError) -> TensorRecord {
    // The taps of each channel are a matrix of one row.
    let isOfTaps = name.hasSuffix(".ssm_conv1d.weight")
    let dimensionLimit = name.hasSuffix("_exps.weight") || isOfTaps ? 3 : 2
    var shape = tensor.shape
    if packing?.form == .e2m1 { shape = Array(shape.dropLast(2)) + [shape[2] * shape[3]] }
    guard let columnCount = shape.last, shape.count <= dimensionLimit, !shape.contains(0) else {
      throw FormatError(
        .malformed, at: tensor.infoOffset, path: shard.path,
        "tensor \"\(tensor.name)\" is neither a vector nor a matrix: \(tensor.shape)")
    }
    let stackCount = shape.count == 3 && !isOfTaps ? shape[0] : nil
    let type: ElementType
    if let packing {
      type = packing.unpackedType
    } else {
      type = try tensor.weightType(path: shard.path)
    }
    let isOfDecays = name.hasSuffix(".ssm_f_b.weight")
    guard !isOfDecays || columnCount == ScanSpec.decayRank else {
      throw FormatError(
        .malformed, at: tensor.infoOffset, path: shard.path,
        "tensor \"\(tensor.name)\" has \(columnCount) columns, not \(ScanSpec.decayRank)")
    }
    // A bias for each expert is a vector of them all, and so are taps, and what decays of keys come from.
    let isFlat = name.hasSuffix("_exps.bias") || isOfTaps || isOfDecays
    return TensorRecord(
      name: name, type: type,
      columnCount: isFlat
        ? shape.reduce(1, *) : columnCount * (packing?.elementsPerStoredElement ?? 1),
      rowCount: isFlat ? 1 : shape.dropLast().reduce(1, *), layout: .rowMajor, fileIndex: fileIndex,
      offset: tensor.offset, byteCount: tensor.byteCount,
      stack: stackCount.map { ExpertStack(count: $0, byteStride: tensor.byteCount / $0) })
  }

  /// Puts matrices in the place of stacks of experts that are transposed, or in which gate and up take turns, where the
  /// architecture has them.
  ///
  /// - Throws: ``FormatError`` for a stack of another shape.
  mutating func transpose(
    _ configuration: DecoderConfiguration, _ layout: FusedTensors.ExpertLayout
  ) throws(FormatError) {
    // Experts in tensors of their own are stored row by row, whatever the architecture.
    guard layout != .rows, let experts = configuration.experts,
      !records.contains(where: { $0.stack?.places != nil })
    else { return }
    let (width, length) = (configuration.hiddenSize, experts.feedForwardLength)
    let alternates = layout == .alternatingColumns
    for index in records.indices.reversed() {
      let record = records[index]
      let prefix = record.name.split(separator: ".").prefix(2).joined(separator: ".")
      let isBias = record.name.hasSuffix("_exps.bias")
      guard record.stack != nil || isBias else { continue }
      let parts: [(name: String, rowCount: Int)]
      switch record.name.dropFirst(prefix.count) {
      case ".ffn_gate_up_exps.weight", ".ffn_gate_up_exps.bias":
        parts = [("ffn_gate_exps", length), ("ffn_up_exps", length)]
      case ".ffn_down_exps.weight": parts = [("ffn_down_exps", width)]
      default: continue
      }
      let names = parts.map { "\(prefix).\($0.name)." + (isBias ? "bias" : "weight") }
      let isPacked = if case .packed = derivations[record.name] { true } else { false }
      if isBias || (alternates && isPacked) {
        guard parts.count == 2, alternates else { continue }
        try takeTurns(index, names, elementCount: experts.expertCount * length)
        continue
      }
      let columnCount = parts.reduce(0) { $0 + $1.rowCount }
      let rowCount = parts.count == 2 ? width : length
      try checkTransposed(record, rowCount: rowCount, columnCount: columnCount)
      records.remove(at: index)
      var firstColumn = 0
      for (part, name) in zip(parts, names) {
        var matrix = record
        matrix.name = name
        matrix.columnCount = rowCount
        matrix.rowCount = part.rowCount * (record.stack?.count ?? 1)
        records.append(matrix)
        derivations[matrix.name] = .transposed(
          firstColumn: firstColumn, columnStep: alternates ? parts.count : 1,
          storedColumnCount: columnCount)
        firstColumn += alternates ? 1 : part.rowCount
      }
    }
  }

  private func checkTransposed(
    _ record: TensorRecord, rowCount: Int, columnCount: Int
  ) throws(FormatError) {
    let origin = origin(of: record)
    if case .packed(let matrix) = derivations[record.name] {
      throw FormatError(
        .unsupported, at: origin.offset, path: origin.path,
        "tensor \"\(origin.name)\" stacks transposed matrices of \(matrix.name), which are not supported: take "
          + "the folder that they were made from (BF16 or F16), or a GGUF file")
    }
    guard record.columnCount == columnCount, record.partRowCount == rowCount else {
      throw FormatError(
        .malformed, at: origin.offset, path: origin.path,
        "tensor \"\(origin.name)\" has matrices of \(record.partRowCount) rows of \(record.columnCount), "
          + "not \(rowCount) of \(columnCount), as the architecture stores them: transposed")
    }
  }

  /// Puts two tensors in the place of one whose rows, or elements of a vector, they take in turns.
  private mutating func takeTurns(
    _ index: Int, _ names: [String], elementCount: Int
  ) throws(FormatError) {
    var record = records[index]
    let found = record.rowCount == 1 ? record.columnCount : record.rowCount
    guard found == 2 * elementCount else {
      let origin = origin(of: record)
      throw FormatError(
        .malformed, at: origin.offset, path: origin.path,
        "tensor \"\(origin.name)\" has \(found) \(record.rowCount == 1 ? "elements" : "rows"), not "
          + "\(2 * elementCount): one for gate and one for up in turn")
    }
    records.remove(at: index)
    let derivation = derivations.removeValue(forKey: record.name)
    if record.rowCount == 1 { record.columnCount /= 2 } else { record.rowCount /= 2 }
    for (number, name) in names.enumerated() {
      record.name = name
      records.append(record)
      if case .packed(var matrix) = derivation {
        (matrix.firstRow, matrix.rowStep) = (number, 2)
        derivations[name] = .packed(matrix)
      } else {
        derivations[name] = .everyOther(first: number)
      }
    }
  }

  /// Puts the matrices of fused tensors in their place.
  ///
  /// - Throws: as ``FusedTensors/split(_:_:origins:note:)``.
  mutating func split(_ configuration: DecoderConfiguration) throws(FormatError) {
    var (origins, derivations) = (origins, derivations)
    records = try FusedTensors.split(records, configuration, origins: self) { fused, matrices in
      let origin = origins[Place(fused)]
      for matrix in matrices { origins[Place(matrix)] = origin }
      guard case .packed(var packing) = derivations.removeValue(forKey: fused.name) else { return }
      for matrix in matrices {
        derivations[matrix.name] = .packed(packing)
        packing.firstRow += matrix.partRowCount
      }
    }
    (self.origins, self.derivations) = (origins, derivations)
  }

  /// Adds a stacked tensor whose parts are tensors of the files.
  private mutating func appendStack(
    _ name: String, _ parts: [Part], _ shards: [SafetensorsFile]
  ) throws(FormatError) {
    let first = parts[0].record
    let original = names.original(name)
    origins[Place(first)]?.name = original
    for (number, part) in parts.enumerated() {
      let path = shards[part.record.fileIndex].path
      guard part.expert == number else {
        throw FormatError(
          .malformed, at: part.record.offset, path: path,
          "\"\(original)\": expert \(number) is missing or appears twice")
      }
      guard part.record.type == first.type, part.record.columnCount == first.columnCount,
        part.record.rowCount == first.rowCount,
        part.packing?.placed(as: []) == parts[0].packing?.placed(as: [])
      else {
        throw FormatError(
          .malformed, at: part.record.offset, path: path,
          "\"\(original)\": expert \(number) differs from expert 0 in type or shape")
      }
    }
    var record = first
    record.rowCount *= parts.count
    record.byteCount *= parts.count
    record.stack = ExpertStack(
      count: parts.count, byteStride: first.byteCount,
      places: parts.map {
        ExpertStack.Place(fileIndex: $0.record.fileIndex, offset: $0.record.offset)
      })
    records.append(record)
    derivations[name] = parts[0].packing.map { packing in
      .packed(packing.placed(as: parts.compactMap(\.packing)))
    }
  }

  /// Where a record's tensor is described; nil of one that no file holds.
  subscript(record: TensorRecord) -> TensorOrigin? { origins[Place(record)] }

  /// Rows of the tensor with a GGUF name; nil if there is none.
  func rowCount(_ name: String) -> Int? { records.first { $0.name == name }?.rowCount }
}
