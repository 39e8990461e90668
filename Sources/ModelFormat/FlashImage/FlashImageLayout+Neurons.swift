import TensorBasics

extension FlashImage.Layout {
  /// Takes gate, up and down out of the plan's tensors and describes bundles of them, which have no
  /// place yet.
  static func bundleNeurons(
    of plan: inout ModelDescription, single: Bool, _ selector: NeuronSelection?
  ) throws(FormatError) {
    guard let configuration = plan.configuration, configuration.experts == nil,
      configuration.feedForwardLength > 1, !plan.tensors.isEmpty
    else { throw FormatError(.unsupported, "there is no dense FFN to put in bundles of neurons") }
    let table = try TensorTable(plan.tensors)
    let roles = configuration.neuronRoles
    var layers: [NeuronBundles] = []
    var selections: [TensorRecord] = []
    for layer in 0..<configuration.layerCount {
      var types: [NeuronBundles.Role: ElementType] = [:]
      for role in roles {
        guard var tensor = table[role.tensorName(layer: layer)] else { continue }
        types[role] = tensor.type
        guard role == roles.last else { continue }
        tensor.name = TensorRecord.selectionName(layer: layer)
        selections.append(tensor)
      }
      layers.append(try bundles(types, roles, configuration, single: single))
    }
    guard layers.allSatisfy({ $0.neuronsPerBundle == layers[0].neuronsPerBundle }) else {
      throw FormatError(
        .unsupported,
        "the down matrices of the layers differ in their blocks; bundles of single"
          + " neurons can hold them")
    }
    // Equal distances in all layers, because a cache of bundles has equal slots.
    let stride = layers.map { FlashImage.roundedUp($0.byteCount) }.max() ?? 0
    for index in layers.indices { layers[index].byteStride = stride }
    let names = Set(
      (0..<configuration.layerCount).flatMap { layer in
        NeuronBundles.Role.allCases.map { $0.tensorName(layer: layer) }
      })
    plan.tensors.removeAll { names.contains($0.name) }
    plan.tensors += selections + (selector?.tensors ?? [])
    plan.neurons = NeuronLayout(
      layers: layers, predictor: selector?.predictor, thresholds: selector?.thresholds)
    try plan.validate()
  }

  private static func bundles(
    _ types: [NeuronBundles.Role: ElementType], _ roles: [NeuronBundles.Role],
    _ configuration: DecoderConfiguration, single: Bool
  ) throws(FormatError) -> NeuronBundles {
    let neurons = single ? 1 : types[.down]?.blockElementCount ?? 1
    let length = configuration.feedForwardLength
    guard length % neurons == 0 else {
      throw FormatError(
        .unsupported, "an FFN of \(length) neurons cannot be cut into bundles of \(neurons)")
    }
    var parts: [NeuronBundles.Part] = []
    for role in roles {
      guard let type = types[role],
        let byteCount = NeuronBundles.partByteCount(
          role, type, neuronsPerBundle: neurons, hiddenSize: configuration.hiddenSize)
      else {
        throw FormatError(
          .unsupported,
          "\(types[role]?.name ?? "") cannot store neurons of \(configuration.hiddenSize)"
            + " elements")
      }
      parts.append(NeuronBundles.Part(role: role, type: type, byteCount: byteCount))
    }
    return NeuronBundles(
      neuronsPerBundle: neurons, bundleCount: length / neurons, offset: 0, byteStride: 0,
      parts: parts, checksumOffset: 0)
  }
}

extension NeuronBundles.Role {
  /// The tensor of a source that bundles of `layer` hold.
  public func tensorName(layer: Int) -> String { "blk.\(layer).ffn_\(rawValue).weight" }
}

extension NeuronBundles {
  /// Where the bundles lie.
  public var bundleRange: Range<Int> { offset..<offset + bundleCount * byteStride }

  /// Puts checksums and bundles at `place` of the file and returns where they end.
  mutating func place(at place: Int) -> Int {
    checksumOffset = place
    offset = FlashImage.roundedUp(place + checksumByteCount)
    return bundleRange.upperBound
  }
}

extension TensorRecord {
  /// The matrix that decides which neurons of `layer` are active, by itself.
  public static func selectionName(layer: Int) -> String { "blk.\(layer).ffn_select.weight" }

  /// The layer whose deciding matrix this is; nil for any other tensor.
  public var selectedLayer: Int? {
    name.hasSuffix(".ffn_select.weight") ? layer : nil
  }
}
