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

  /// - Throws: ``FormatError`` for a tensor whose name has no meaning, or of three dimensions.
  init(
    shards: [SafetensorsFile], architecture: any Architecture.Type
  ) throws(FormatError) {
    names = HuggingFaceNames(architecture, shards)
    var parts: [String: [(expert: Int, record: TensorRecord)]] = [:]
    for (fileIndex, shard) in shards.enumerated() {
      for tensor in shard.tensors {
        if HuggingFaceNames.isIgnored(tensor.name) { continue }
        guard let (name, expert) = names.stored(tensor.name) else {
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
        origins[Place(record)] = TensorOrigin(
          name: tensor.name, path: shard.path, offset: tensor.infoOffset)
        if let expert {
          parts[name, default: []].append((expert, record))
          continue
        }
        records.append(record)
        if architecture.huggingFaceNormsAreFromOne && name.hasSuffix("norm.weight") {
          derivations[name] = .plusOne
        }
      }
    }
    for (name, parts) in parts.sorted(by: { $0.key < $1.key }) {
      try appendStack(name, parts.sorted { $0.expert < $1.expert }, shards)
    }
  }

  /// Adds a stacked tensor whose parts are tensors of the files.
  private mutating func appendStack(
    _ name: String, _ parts: [(expert: Int, record: TensorRecord)], _ shards: [SafetensorsFile]
  ) throws(FormatError) {
    let first = parts[0].record
    let original = names.original(name)
    for (number, part) in parts.enumerated() {
      let path = shards[part.record.fileIndex].path
      guard part.expert == number else {
        throw FormatError(
          .malformed, at: part.record.offset, path: path,
          "\"\(original)\": expert \(number) is missing or appears twice")
      }
      guard part.record.type == first.type, part.record.columnCount == first.columnCount,
        part.record.rowCount == first.rowCount
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
  }

  /// Where a record's tensor is described; nil of one that no file holds.
  subscript(record: TensorRecord) -> TensorOrigin? { origins[Place(record)] }

  /// Rows of the tensor with a GGUF name; nil if there is none.
  func rowCount(_ name: String) -> Int? { records.first { $0.name == name }?.rowCount }

  /// Adds a vector that no file holds; its record only says its shape.
  mutating func append(_ name: String, values: [Float]) {
    records.append(
      TensorRecord(
        name: name, type: .f32, columnCount: values.count, rowCount: 1, layout: .rowMajor,
        fileIndex: 0, offset: 0, byteCount: 4 * values.count))
    derivations[name] = .values(values)
  }
}
