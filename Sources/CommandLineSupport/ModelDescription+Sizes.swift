public import ModelFormat
public import TensorBasics

extension ModelDescription {
  /// The type that most bytes of matrices are of; nil where there are no matrices.
  public var commonMatrixType: ElementType? {
    var byteCounts: [ElementType: Int] = [:]
    for tensor in tensors where tensor.rowCount > 1 && !tensor.isOfSelector {
      byteCounts[tensor.type, default: 0] += tensor.byteCount
    }
    for layer in neurons?.layers ?? [] {
      for part in layer.parts {
        byteCounts[part.type, default: 0] += layer.bundleCount * part.byteCount
      }
    }
    return byteCounts.max { ($0.value, $0.key.name) < ($1.value, $1.key.name) }?.key
  }

  /// Elements of all weights, those in bundles of neurons included; what only selects neurons is none of the
  /// model's.
  public var parameterCount: Int {
    var count = 0
    for tensor in storedTensors where !tensor.isOfSelector && !tensor.isScale {
      count += tensor.rowCount * tensor.columnCount
    }
    for layer in neurons?.layers ?? [] {
      let neuronCount = layer.bundleCount * layer.neuronsPerBundle
      count += neuronCount * layer.parts.count * (configuration?.hiddenSize ?? 0)
    }
    return count
  }

  /// Bytes of the tensors that lie in the files.
  public var storedByteCount: Int { storedTensors.reduce(0) { $0 + $1.byteCount } }

  /// Bytes of all weights: of ``storedTensors`` and of bundles of neurons.
  public var weightByteCount: Int {
    (neurons?.layers ?? []).reduce(storedByteCount) { $0 + $1.bundleCount * $1.byteCount }
  }
}

extension TensorRecord {
  /// Whether the tensor serves to choose neurons: a predictor's, or the second copy of the deciding matrix.
  fileprivate var isOfSelector: Bool {
    name.contains(".ffn_predictor") || name.contains(".ffn_select.")
  }

  /// Whether the tensor holds the scales of a packed one.
  fileprivate var isScale: Bool { name.hasSuffix(".weight_scale") }
}
