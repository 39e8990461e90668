/// Where an image's tensor gets its elements from, when a model is converted.
public enum TensorContent: Sendable, Equatable {
  /// From the source's tensor, as they are.
  case stored
  /// From the source's tensor with 1 added: norms that a family stores as their distance from 1.
  case storedPlusOne
  /// From these tensors of the source, one an expert in ascending order: the parts of a stacked one.
  case parts([TensorRecord])
  /// From these values: a vector that the source only implies (RoPE factors).
  case values([Float])
}
