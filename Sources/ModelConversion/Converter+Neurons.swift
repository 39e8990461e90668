import ModelFormat
import TensorBasics
import WeightLoader

/// What a conversion changed.
public struct ConversionReport: Sendable {
  /// The relative error of columns that were requantised for bundles of single neurons; nil if there were none.
  ///
  /// The root of the sum of squared differences over that of squared values, of all layers.
  public let columnError: Double?
}

extension Converter {
  /// Refuses bundles of neurons that no run could use.
  static func check(
    _ bundling: Bundling?, _ selector: SelectorFile?, _ source: ModelSource
  ) throws(ConversionError) {
    guard let bundling, bundling.isOfNeurons else {
      guard selector == nil else {
        throw .notPossible("a selector file goes with bundles of neurons")
      }
      return
    }
    guard source.description.extents.isEmpty else {
      throw .notPossible("\(source.path) is a flash image already")
    }
    guard let configuration = source.description.configuration else {
      throw .notPossible("\(source.path) holds no weights")
    }
    guard source.description.needsConversion == nil else {
      throw .notPossible(
        "the weights of \(source.path) are packed: bundles of neurons are made of weights that are stored"
          + " as F32, F16, BF16 or a type of GGUF's")
    }
    guard configuration.experts == nil else {
      throw .notPossible(
        "\(source.path) has experts; only a dense model is put in bundles of neurons")
    }
    if let problem = configuration.neuronProblem {
      throw .notPossible("\(source.path): \(problem)")
    }
    guard configuration.activation == .relu || selector != nil else {
      throw .notPossible(
        "the activation of \(source.path) is \(configuration.activation.rawValue), which leaves no"
          + " neuron exactly zero: skipping neurons is exact only with relu. A selector file with"
          + " thresholds or a predictor can choose which ones to skip anyway")
    }
  }

  /// The identity of a dense model, for which predictors are trained and with which they are checked; all its
  /// weights are read for it unless its checksums are remembered. nil for a model with experts.
  static func identity(
    of source: ModelSource, _ cancellation: CancellationFlag,
    _ progress: (_ byteCount: Int) -> Void
  ) throws(ConversionError) -> ModelIdentity? {
    guard source.description.configuration?.experts == nil else { return nil }
    do {
      return try source.computeIdentity(cancellation: cancellation, progress: progress)
    } catch { throw .loader(error) }
  }

  /// The bundles to plan, and in the plan the types of down matrices in them.
  ///
  /// Where all down matrices are floats neurons are single ones. A column of floats stays as it is or is
  /// quantised along its own length; a column of a quantised matrix becomes Q8_0.
  static func resolved(
    _ bundling: Bundling?, _ source: ModelSource, _ plan: inout ModelDescription,
    _ choice: QuantisationChoice?
  ) -> Bundling? {
    guard let bundling, bundling.isOfNeurons, let configuration = plan.configuration else {
      return bundling
    }
    let tensors = source.description.tensors
    let downs = tensors.indices.filter { tensors[$0].name.hasSuffix(".ffn_down.weight") }
    guard bundling == .singleNeurons || downs.allSatisfy({ !tensors[$0].type.isQuantised }) else {
      return .neurons
    }
    for index in downs {
      let type = tensors[index].type
      if type.isQuantised {
        plan.tensors[index].type = .q8_0
      } else {
        plan.tensors[index].type = choice?.type(forLength: configuration.hiddenSize) ?? type
      }
    }
    return .singleNeurons
  }
}
