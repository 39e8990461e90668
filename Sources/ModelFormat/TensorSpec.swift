import TensorBasics

/// A tensor that a decoder of a given configuration has.
public struct TensorSpec: Sendable, Equatable {
  /// GGUF name.
  public let name: String
  public let role: Role
  public let columnCount: Int
  /// Rows; of a stacked tensor those of all experts.
  public let rowCount: Int
  /// Experts whose matrices are stacked in it; nil for a plain tensor.
  public let expertCount: Int?
  /// Whether the decoder runs without it.
  public let isOptional: Bool

  /// What a tensor is used for.
  public enum Role: Sendable {
    /// Activations are multiplied by it in every sweep, in the order in which a decoder lists its tensors.
    case product
    /// Experts, of which those that are chosen are multiplied by.
    case experts
    /// Single rows are read, and where output and embedding are tied, activations multiplied.
    case table
    /// It stays in memory as f32.
    case vector
  }

  private init(
    _ name: String, _ role: Role, _ columnCount: Int, _ rowCount: Int = 1,
    expertCount: Int? = nil, isOptional: Bool = false
  ) {
    self.name = name
    self.role = role
    self.columnCount = columnCount
    self.rowCount = rowCount * (expertCount ?? 1)
    self.expertCount = expertCount
    self.isOptional = isOptional
  }

  static func vector(_ name: String, _ count: Int, isOptional: Bool = false) -> TensorSpec {
    TensorSpec(name, .vector, count, isOptional: isOptional)
  }

  static func product(_ name: String, columns: Int, rows: Int) -> TensorSpec {
    TensorSpec(name, .product, columns, rows)
  }

  static func table(_ name: String, columns: Int, rows: Int) -> TensorSpec {
    TensorSpec(name, .table, columns, rows)
  }

  static func experts(_ name: String, columns: Int, rows: Int, count: Int) -> TensorSpec {
    TensorSpec(name, .experts, columns, rows, expertCount: count)
  }

  /// What a product with this matrix may be multiplied by at its end: one number, or one for each expert. Converters
  /// write it for NVFP4; nil for what is no matrix of a layer and no output head, and for routers.
  fileprivate var factor: TensorSpec? {
    guard role == .product || role == .experts, !name.hasSuffix(".ffn_gate_inp.weight"),
      let factor = TensorRecord.factorName(ofWeight: name)
    else { return nil }
    return .vector(factor, expertCount ?? 1, isOptional: true)
  }
}

extension TensorRecord {
  /// The name of the tensor that holds the factor of products with the matrix called `weight`.
  public static func factorName(ofWeight weight: String) -> String? {
    let suffix = ".weight"
    return weight.hasSuffix(suffix) ? weight.dropLast(suffix.count) + ".scale" : nil
  }
}

extension DecoderConfiguration {
  /// Name of the tensor that turns hidden states into logits, `[vocabularyCount, hiddenSize]`.
  public var outputHeadName: String { tiesOutput ? Self.embeddingName : Self.headName }

  public static let embeddingName = "token_embd.weight"
  public static let positionsName = "position_embd.weight"
  public static let headName = "output.weight"
  /// Tables of which single rows are read.
  public static let tableNames = [embeddingName, positionsName]

  /// Every tensor of such a decoder, in the order a token meets them; a tied table comes first only.
  public var expectedTensors: [TensorSpec] { expectedTensors(neurons: nil) }

  /// The same of a model whose FFNs are in bundles of `neurons`, which is valid.
  func expectedTensors(neurons: NeuronLayout?) -> [TensorSpec] {
    var tensors: [TensorSpec] = []
    if positionOffset == nil {
      if shortContextLength != nil {
        tensors = [RopeScaling.shortFactorsName, RopeScaling.longFactorsName].map {
          .vector($0, ropeDimensionCount / 2)
        }
      } else {
        tensors = [.vector(RopeScaling.factorsName, ropeDimensionCount / 2, isOptional: true)]
      }
    }
    tensors.append(.table(Self.embeddingName, columns: hiddenSize, rows: vocabularyCount))
    if let positionOffset {
      tensors.append(
        .table(Self.positionsName, columns: hiddenSize, rows: contextLength + positionOffset))
    }
    if let joinTensors { tensors += joinTensors.all }
    for layer in 0..<layerCount {
      for block in blockTensors(ofLayer: layer, neurons: neurons) { tensors += block.all }
    }
    tensors += outputNormTensors.all
    if !tiesOutput {
      tensors.append(.product(Self.headName, columns: hiddenSize, rows: vocabularyCount))
    }
    return tensors + tensors.compactMap(\.factor)
  }
}

extension ModelDescription {
  /// Every tensor of such a model, as ``DecoderConfiguration/expectedTensors``.
  ///
  /// If ``neurons`` are in bundles, what chooses them takes the place of gate, up and down. The description must be
  /// valid.
  public var expectedTensors: [TensorSpec] {
    configuration?.expectedTensors(neurons: neurons) ?? []
  }

  /// Checks the configuration, and that tensors are exactly those it asks for, in shape and kind.
  ///
  /// - Throws: ``FormatError`` naming the tensor that is missing, unexpected or of the wrong shape.
  public func validate(path: String? = nil) throws(FormatError) {
    try validate(path: path, origins: StoredTensorNames(path: path, files: files))
  }

  /// - Parameter origins: what the files call their tensors, for errors.
  func validate(path: String?, origins: some TensorOrigins) throws(FormatError) {
    if let tokenizer { try tokenizer.validate(path: path) }
    guard let configuration else {
      guard tensors.isEmpty, neurons == nil else {
        throw FormatError(.malformed, path: path, "there are tensors, but no configuration")
      }
      return
    }
    try configuration.validate(path: path)
    try neurons?.validate(configuration, path: path)
    if tensors.isEmpty, neurons == nil { return }
    let table = try TensorTable(tensors, origins: origins)
    var expectedCount = 0
    for expectation in expectedTensors {
      guard let tensor = table[expectation.name] else {
        if expectation.isOptional { continue }
        let origin = origins.origin(ofMissing: expectation.name)
        throw FormatError(
          .malformed, path: origin.path,
          "tensor \"\(origin.name)\" is missing" + reason(forMissing: expectation.name))
      }
      expectedCount += 1
      try tensor.validate(against: expectation, origin: origins.origin(of: tensor))
    }
    guard expectedCount < tensors.count else { return }
    let expected = Set(expectedTensors.map(\.name))
    if let other = tensors.first(where: { !expected.contains($0.name) }) {
      let origin = origins.origin(of: other)
      throw FormatError(
        .unsupported, at: origin.offset, path: origin.path,
        "tensor \"\(origin.name)\" has no place in the architecture"
          + " \"\(configuration.architecture)\" as it is supported" + (layerMismatch ?? ""))
    }
  }

  /// What may be the reason for a tensor that is not there, as the end of a sentence.
  private func reason(forMissing name: String) -> String {
    if name == "output.weight" {
      return
        ": the model is not whole, or its configuration lacks \"tie_word_embeddings\": true, which says that the "
        + "table of embeddings is the output too"
    }
    return name.hasPrefix("blk.") ? layerMismatch ?? "" : ""
  }

  /// That there are tensors of more or fewer layers than the configuration says; nil where the numbers agree.
  private var layerMismatch: String? {
    let layers = tensors.lazy.compactMap { tensor -> Int? in
      let words = tensor.name.split(separator: ".", maxSplits: 2)
      return words.count == 3 && words[0] == "blk" ? Int(words[1]) : nil
    }
    guard let configuration, let last = layers.max(), last + 1 != configuration.layerCount else {
      return nil
    }
    return
      ": there are tensors of \(last + 1) layers, and the configuration (num_hidden_layers, or block_count) says "
      + "\(configuration.layerCount)"
  }
}

extension TensorRecord {
  fileprivate func validate(
    against expected: TensorSpec, origin: TensorOrigin
  ) throws(FormatError) {
    let (name, offset, path) = (origin.name, origin.offset, origin.path)
    guard columnCount == expected.columnCount, rowCount == expected.rowCount else {
      throw FormatError(
        .malformed, at: offset, path: path,
        "tensor \"\(name)\" has \(rowCount) rows of \(columnCount), not \(expected.rowCount) of"
          + " \(expected.columnCount)")
    }
    guard stack?.count == expected.expertCount else {
      let (stated, wanted) = (stack?.count ?? 1, expected.expertCount ?? 1)
      throw FormatError(
        .malformed, at: offset, path: path,
        "tensor \"\(name)\" stacks \(stated) matrices, not \(wanted)")
    }
    guard expected.rowCount > 1 || !type.isQuantised else {
      throw FormatError(
        .unsupported, at: offset, path: path,
        "tensor \"\(name)\" is a vector of type \(type.name); vectors are F32, F16 or BF16")
    }
  }
}

/// Tensors by name, built once from a ``ModelDescription``.
public struct TensorTable: Sendable {
  private let records: [String: TensorRecord]

  /// - Throws: ``FormatError`` if two tensors share a name.
  public init(_ tensors: [TensorRecord], path: String? = nil) throws(FormatError) {
    try self.init(tensors, origins: StoredTensorNames(path: path))
  }

  fileprivate init(
    _ tensors: [TensorRecord], origins: some TensorOrigins
  ) throws(FormatError) {
    var records: [String: TensorRecord] = [:]
    records.reserveCapacity(tensors.count)
    for tensor in tensors where records.updateValue(tensor, forKey: tensor.name) != nil {
      let origin = origins.origin(of: tensor)
      throw FormatError(
        .malformed, at: origin.offset, path: origin.path,
        "tensor \"\(origin.name)\" appears twice")
    }
    self.records = records
  }

  /// The tensor called `name` (GGUF name).
  public subscript(name: String) -> TensorRecord? { records[name] }
}
