import TensorBasics

/// What a training tool knows of choosing a model's neurons, without the values themselves.
public struct NeuronSelection: Sendable {
  /// The identity of the model it was made for.
  public var identity: ModelIdentity
  public var predictor: NeuronPredictor?
  /// Calibrated thresholds; of a file that was only parsed their values are still zero.
  public var thresholds: NeuronThresholds?
  /// The predictor's matrices and biases.
  public var tensors: [TensorRecord]
  /// Each layer's threshold, one F32.
  public var thresholdTensors: [TensorRecord]

  /// Checks a selector file's header against the decoder it is for.
  ///
  /// Its metadata has `model_identity`; with tensors `blk.N.ffn_predictor_a.weight`,
  /// `blk.N.ffn_predictor_b.weight`, `blk.N.ffn_predictor.bias` also `recalls`, `predicted_fractions`
  /// and `active_fractions`, JSON arrays of a number a layer; with tensors `blk.N.ffn_threshold` also
  /// `kept_fraction`.
  ///
  /// - Throws: ``FormatError`` if something is missing, superfluous or of the wrong shape.
  public init(
    _ file: SafetensorsFile, for configuration: DecoderConfiguration
  ) throws(FormatError) {
    let reader = SelectorReader(file: file, configuration: configuration)
    identity = try reader.identity()
    (predictor, tensors) = try reader.predictor()
    (thresholds, thresholdTensors) = try reader.thresholds()
    guard predictor != nil || thresholds != nil else {
      throw reader.error("there is neither a predictor nor a threshold for each layer")
    }
    guard tensors.count + thresholdTensors.count == file.tensors.count else {
      throw reader.error("there are tensors that no layer's predictor or threshold has")
    }
  }
}

private struct SelectorReader {
  let file: SafetensorsFile
  let configuration: DecoderConfiguration
  let records: [String: SafetensorsTensor]

  init(file: SafetensorsFile, configuration: DecoderConfiguration) {
    self.file = file
    self.configuration = configuration
    records = Dictionary(file.tensors.map { ($0.name, $0) }) { first, _ in first }
  }

  func error(_ message: String) -> FormatError {
    FormatError(.malformed, path: file.path, message)
  }

  func identity() throws(FormatError) -> ModelIdentity {
    guard let identity = file.metadata["model_identity"].flatMap(ModelIdentity.init(text:)) else {
      throw error("model_identity is not sixteen hexadecimal digits")
    }
    return identity
  }

  func predictor() throws(FormatError) -> (NeuronPredictor?, [TensorRecord]) {
    guard records["blk.0.ffn_predictor_a.weight"] != nil else { return (nil, []) }
    var ranks: [Int] = []
    var tensors: [TensorRecord] = []
    let (width, length) = (configuration.hiddenSize, configuration.feedForwardLength)
    for layer in 0..<configuration.layerCount {
      let prefix = "blk.\(layer).ffn_predictor"
      let rank = records["\(prefix)_a.weight"]?.shape.first ?? 0
      guard (1...width).contains(rank) else {
        throw error("tensor \"\(prefix)_a.weight\" is missing or has an impossible rank")
      }
      ranks.append(rank)
      tensors.append(try tensor("\(prefix)_a.weight", [rank, width]))
      tensors.append(try tensor("\(prefix)_b.weight", [length, rank]))
      tensors.append(try tensor("\(prefix).bias", [length], types: [.f32]))
    }
    let predictor = NeuronPredictor(
      ranks: ranks, recalls: try numbers("recalls"),
      predictedFractions: try numbers("predicted_fractions"),
      activeFractions: try numbers("active_fractions"))
    return (predictor, tensors)
  }

  func thresholds() throws(FormatError) -> (NeuronThresholds?, [TensorRecord]) {
    guard records["blk.0.ffn_threshold"] != nil else { return (nil, []) }
    var tensors: [TensorRecord] = []
    for layer in 0..<configuration.layerCount {
      tensors.append(try tensor("blk.\(layer).ffn_threshold", [1], types: [.f32]))
    }
    guard let kept = file.metadata["kept_fraction"].flatMap(Double.init), (0...1).contains(kept)
    else { throw error("kept_fraction is not a number from 0 to 1") }
    let values = [Float](repeating: 0, count: configuration.layerCount)
    return (NeuronThresholds(values: values, keptFraction: kept), tensors)
  }

  private func tensor(
    _ name: String, _ shape: [Int], types: [ElementType] = [.f16, .f32]
  ) throws(FormatError) -> TensorRecord {
    guard let found = records[name], found.shape == shape, let type = found.type.elementType,
      types.contains(type)
    else {
      throw error(
        "tensor \"\(name)\" is missing or not \(types.map(\.name).joined(separator: " or ")) of"
          + " shape \(shape)")
    }
    return TensorRecord(
      name: name, type: type, columnCount: shape[shape.count - 1],
      rowCount: shape.count == 2 ? shape[0] : 1, layout: .rowMajor, fileIndex: 0,
      offset: found.offset, byteCount: found.byteCount)
  }

  /// A JSON array of one number a layer, from 0 to 1.
  private func numbers(_ key: String) throws(FormatError) -> [Double] {
    let json = file.metadata[key].flatMap { text in
      Array(text.utf8).withUnsafeBytes { try? JSONParser.parse($0, at: 0, path: file.path) }
    }
    let numbers = (json?.array ?? []).compactMap(\.double)
    guard numbers.count == configuration.layerCount, numbers.allSatisfy((0...1).contains) else {
      throw error("\(key) is not an array of a number from 0 to 1 for each layer")
    }
    return numbers
  }
}
