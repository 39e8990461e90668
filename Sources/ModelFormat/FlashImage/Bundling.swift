/// How an image places the matrices of its experts (`docs/format.md`, section 5).
public enum Bundling: String, Sendable, CaseIterable {
  /// Each stacked tensor by itself, its parts one after the other.
  case none
  /// Gate, up and down of one expert together, so that one read brings an expert.
  case experts
}
