/// What an image places together (`docs/format.md`, sections 5 and 6).
public enum Bundling: String, Sendable, CaseIterable {
  /// Nothing: each tensor by itself, the parts of a stacked one one after the other.
  case none
  /// Gate, up and down of one expert, so that one read brings an expert.
  case experts
  /// The rows of gate and up and the columns of down of one neuron, or of as many neurons as a quant
  /// block of the down matrix has columns.
  case neurons
  /// The same of one neuron, whatever the type of the down matrix.
  case singleNeurons = "single-neurons"

  /// Whether dense FFNs are in bundles.
  public var isOfNeurons: Bool { self == .neurons || self == .singleNeurons }
}
