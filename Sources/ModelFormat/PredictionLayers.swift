import TensorBasics

/// Layers after a model's last one, which predict further tokens and are no part of it.
///
/// Such a layer is a decoder of its own (DeepSeek-V3, arXiv:2412.19437, §2.2; GGUF's `nextn`): it goes through the model's hidden state
/// after a token and the embedding of the next one, joined, and gives the token after that. Embedding, norm and head are the model's,
/// where it has none.
public struct PredictionLayers: Sendable {
  public internal(set) var layerCount = 0
  public internal(set) var tensorCount = 0
  /// Bytes of their tensors.
  public internal(set) var byteCount = 0
  /// Why the first of them cannot draft; nil where it can.
  public internal(set) var problem: String?
  /// The first of them as the only layer of a model; nil where it cannot draft.
  fileprivate var decoder: (configuration: DecoderConfiguration, tensors: [TensorRecord])?

  /// What people should know of them.
  var note: String {
    let one = layerCount == 1
    return
      "\(layerCount) \(one ? "layer that predicts" : "layers that predict") further tokens (\(tensorCount) "
      + "\(tensorCount == 1 ? "tensor" : "tensors"), \(ByteCount(byteCount))) \(one ? "is" : "are") left out, "
      + (problem.map { "and cannot draft: \($0)" } ?? "but for --draft mtp")
  }
}

extension ModelDescription {
  /// The first layer that predicts further tokens, as a model in the same files; nil where there is none, or it cannot draft.
  public var predictor: ModelDescription? {
    guard let decoder = predictionLayers?.decoder else { return nil }
    var model = self
    model.configuration = decoder.configuration
    model.tensors = decoder.tensors
    (model.predictionLayers, model.notes) = (nil, [])
    return model
  }

  /// Takes tensors of layers after the last one away.
  mutating func takePredictionLayers(after layerCount: Int) -> [TensorRecord] {
    func isLater(_ tensor: TensorRecord) -> Bool {
      let words = tensor.name.split(separator: ".", maxSplits: 2)
      return words.count == 3 && words[0] == "blk" && Int(words[1]).map { $0 >= layerCount } == true
    }
    defer { tensors.removeAll(where: isLater) }
    return tensors.filter(isLater)
  }

  /// Notes layers after the last one, and whether the first of them can draft.
  ///
  /// - Parameters:
  ///   - stored: their tensors, under GGUF names.
  ///   - prepare: makes what files store what a decoder has.
  mutating func note(
    predictionLayers stored: [TensorRecord], path: String?,
    _ prepare: ([TensorRecord], DecoderConfiguration) throws(FormatError) -> [TensorRecord]
  ) {
    guard let first = stored.compactMap(\.layer).min() else { return }
    var found = PredictionLayers()
    found.layerCount = Set(stored.compactMap(\.layer)).count
    found.tensorCount = stored.count
    found.byteCount = stored.reduce(0) { $0 + $1.byteCount }
    do throws(FormatError) {
      let decoder = try self.decoder(ofLayer: first, stored, prepare)
      try ModelDescription(
        configuration: decoder.configuration, files: files, tensors: decoder.tensors
      ).validate(path: path, origins: PredictionOrigins(layer: first, path: path))
      found.decoder = decoder
    } catch { found.problem = error.message }
    predictionLayers = found
    notes.append(found.note)
  }

  /// A layer after the last one as the only one of a decoder, with what it shares with the model.
  private func decoder(
    ofLayer number: Int, _ stored: [TensorRecord],
    _ prepare: ([TensorRecord], DecoderConfiguration) throws(FormatError) -> [TensorRecord]
  ) throws(FormatError) -> (configuration: DecoderConfiguration, tensors: [TensorRecord]) {
    guard var predictor = configuration?.predictor else {
      throw FormatError(.unsupported, "no layer of the model attends, which it would be like")
    }
    var own = stored.filter { $0.layer == number }
    for index in own.indices {
      own[index].name = "blk.0." + own[index].name.dropFirst("blk.\(number).".count)
      if let name = Self.sharedNames[own[index].name] { own[index].name = name }
    }
    own = try prepare(own, predictor)
    if own.contains(where: { $0.name == DecoderConfiguration.headName }) {
      predictor.tiesOutput = false
    }
    let names = Set(
      own.flatMap { [$0.name, TensorRecord.factorName(ofWeight: $0.name) ?? $0.name] })
    return (predictor, own + tensors.filter { $0.layer == nil && !names.contains($0.name) })
  }

  /// What a layer may have of its own in place of the model's.
  private static let sharedNames = [
    "blk.0.nextn.embed_tokens.weight": DecoderConfiguration.embeddingName,
    "blk.0.nextn.shared_head_head.weight": DecoderConfiguration.headName,
    "blk.0.nextn.shared_head_norm.weight": "output_norm.weight",
  ]
}

/// The names that a layer's tensors have in files, of a layer that is the only one of its decoder.
private struct PredictionOrigins: TensorOrigins {
  let layer: Int
  let path: String?

  func origin(of tensor: TensorRecord) -> TensorOrigin {
    TensorOrigin(name: name(tensor.name), path: path, offset: tensor.offset)
  }

  func origin(ofMissing name: String) -> TensorOrigin {
    TensorOrigin(name: self.name(name), path: path)
  }

  private func name(_ name: String) -> String {
    let prefix = "blk.0."
    return name.hasPrefix(prefix) ? "blk.\(layer)." + name.dropFirst(prefix.count) : name
  }
}

extension DecoderConfiguration {
  /// The decoder whose only layer predicts a further token: it is as the last that attends. nil where none attends.
  public var predictor: DecoderConfiguration? {
    guard let layer = layers.last(where: { $0.attention != nil }) else { return nil }
    var configuration = self
    (configuration.layers, configuration.joinsStates) = ([layer], true)
    return configuration
  }

  /// What joins embeddings and hidden states, in front of the first layer; nil where nothing does.
  public var joinTensors: JoinTensors? {
    guard joinsStates else { return nil }
    let prefix = "blk.0.nextn."
    return JoinTensors(
      embeddingNorm: NormTensors(.rms, prefix + "enorm", count: hiddenSize),
      stateNorm: NormTensors(.rms, prefix + "hnorm", count: hiddenSize),
      matrix: Projection(prefix + "eh_proj", columns: 2 * hiddenSize, rows: hiddenSize))
  }
}

/// residual = matrix · [embeddingNorm(embedding); stateNorm(state)]
public struct JoinTensors: Sendable {
  public let embeddingNorm: NormTensors
  public let stateNorm: NormTensors
  public let matrix: Projection

  var all: [TensorSpec] { embeddingNorm.all + stateNorm.all + matrix.all }
}
