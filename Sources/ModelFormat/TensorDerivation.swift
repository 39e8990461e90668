import TensorBasics

/// How a tensor of a model follows from what its files hold, where it is not stored as the graph needs it.
public enum TensorDerivation: Sendable, Equatable {
  /// The stored values with 1 added: norms that a family stores as their distance from 1.
  case plusOne
  /// −eˣ of the stored values: decays that a family stores as the logarithms of their rates.
  case negatedPower
  /// These values; no file holds them (RoPE factors, which a configuration implies).
  case values([Float])
  /// What a conversion makes of packed rows.
  case packed(PackedMatrix)
  /// Columns of what is stored, from `firstColumn` on and `columnStep` apart, of rows of `storedColumnCount` elements: a
  /// conversion transposes them.
  case transposed(firstColumn: Int, columnStep: Int, storedColumnCount: Int)
  /// Every other element of a stored vector that is twice as long, from `first` on.
  case everyOther(first: Int)
}

extension TensorDerivation {
  /// Makes of stored values, each by itself, those of the graph.
  package func apply(to values: UnsafeMutablePointer<Float>, count: Int) {
    switch self {
    case .plusOne: for index in 0..<count { values[index] += 1 }
    case .negatedPower:
      for index in 0..<count { values[index] = Float(-CanonicalMath.exp(Double(values[index]))) }
    case .values, .packed, .transposed, .everyOther: break
    }
  }
}
