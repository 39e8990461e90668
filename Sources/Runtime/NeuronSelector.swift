import Kernels
import ModelFormat
import TensorBasics
public import WeightLoader

/// Who names the neurons that a token needs, in a model whose FFNs lie in bundles of neurons.
public enum NeuronSelector: String, Sendable, CaseIterable {
  /// The deciding matrix itself, computed whole: what a ReLU makes zero is skipped, which changes
  /// nothing.
  case exact
  /// The image's trained low-rank predictor (arXiv:2312.11514, §3.1): what it misses is lost.
  case predictor
  /// The deciding matrix, computed whole, against the image's calibrated thresholds: what is small is
  /// lost.
  case threshold
  /// Every neuron: the dense model.
  case all

  /// Whether the deciding matrix is computed whole, beside the bundles.
  var decidesByMatrix: Bool { self == .exact || self == .threshold }

  /// The selector to use with an image.
  ///
  /// - Parameter request: the one asked for; nil = exact if that is possible.
  /// - Returns: nil if the model's FFNs do not lie in bundles of neurons.
  /// - Throws: ``RuntimeError/notRunnable(path:reason:)`` if the image lacks what the selector needs.
  static func resolve(
    _ request: NeuronSelector?, for source: ModelSource, _ configuration: DecoderConfiguration
  ) throws(RuntimeError) -> NeuronSelector? {
    func refusal(_ reason: String) -> RuntimeError {
      .notRunnable(path: source.path, reason: reason)
    }
    guard let neurons = source.description.neurons else {
      guard let request else { return nil }
      throw refusal(
        "selector \(request.rawValue): the FFNs do not lie in bundles of neurons "
          + "(flashinfer-convert --bundle neurons)")
    }
    if let column = neurons.layers.lazy.filter({ $0.neuronsPerBundle == 1 })
      .compactMap({ $0.part(.down)?.part.type }).first(where: { !NeuronColumns.supports($0) })
    {
      throw refusal("columns of single neurons in \(column.name) are not supported")
    }
    if let matrix = source.description.tensors.first(where: {
      $0.name.contains(".ffn_predictor") && $0.type.isQuantised
    }) {
      throw refusal("tensor '\(matrix.name)' is \(matrix.type.name); predictors are floats")
    }
    let isReLU = configuration.activation == .relu
    var possible = [NeuronSelector.all]
    if isReLU { possible.append(.exact) }
    if neurons.predictor != nil { possible.append(.predictor) }
    if neurons.thresholds != nil { possible.append(.threshold) }
    let names = possible.map(\.rawValue).joined(separator: ", ")
    guard let chosen = request ?? (isReLU ? .exact : nil) else {
      throw refusal(
        "the activation is \(configuration.activation.rawValue), so skipping neurons is not exact: "
          + "name a selector (\(names))")
    }
    guard possible.contains(chosen) else {
      throw refusal(
        chosen == .exact
          ? "selector exact: the activation is \(configuration.activation.rawValue), which makes "
            + "no neuron zero; \(names) can be used"
          : "selector \(chosen.rawValue): the image holds none; \(names) can be used")
    }
    return chosen
  }
}

/// How a session treats bundles of neurons; what is nil follows from the image.
public struct NeuronOptions: Sendable {
  public var selector: NeuronSelector?
  /// Bound on the memory for bundles; nil = what the budget leaves.
  public var windowByteCount: Int?
  /// What stays in memory; to measure what the window saves.
  public var retention: NeuronReading.Retention?
  /// Reads each part of a bundle by itself; to measure what bundling saves.
  public var readsPartsApart: Bool

  public init(
    selector: NeuronSelector? = nil, windowByteCount: Int? = nil,
    retention: NeuronReading.Retention? = nil, readsPartsApart: Bool = false
  ) {
    self.selector = selector
    self.windowByteCount = windowByteCount
    self.retention = retention
    self.readsPartsApart = readsPartsApart
  }

  /// How bundles are read and kept under `selector`.
  func reading(_ selector: NeuronSelector) -> NeuronReading {
    NeuronReading(
      includesDecidingPart: !selector.decidesByMatrix,
      retention: retention ?? (selector == .all ? .fixed : .recent),
      readsPartsApart: readsPartsApart)
  }
}
