/// How decode attention reads keys and values.
public enum AttentionMode: Sendable, Equatable {
  /// Every key and every value, exactly.
  case dense
  /// SparF (arXiv 2409.04992, Alg. 1) in a drive, SparQ (arXiv 2312.04985) on a host: `compression` is
  /// both the share of query channels and the share of tokens that are used, 0 < compression ≤ 1.
  case sparse(compression: Double)

  /// The share of channels and of tokens that take part in arithmetic.
  public var entryFraction: Double {
    switch self {
    case .dense: 1
    case .sparse(let compression): compression
    }
  }

  /// The share of pages that hold at least one used entry and are read.
  ///
  /// The paper says that the first of the two filtering steps keeps "about half sparsity" and the second
  /// reaches all of it. Read as equal steps, each keeps √compression; of the readings in
  /// `docs/in-storage.md` only this one gives the volume of its Table III.
  public var pageFraction: Double { entryFraction.squareRoot() }

  /// Keys are stored a second time, by channel.
  public var storesKeysTwice: Bool { self != .dense }

  /// Bytes stored per byte of keys and values: 1.5 with a second copy of the keys.
  public var storedFraction: Double { storesKeysTwice ? 1.5 : 1 }
}
