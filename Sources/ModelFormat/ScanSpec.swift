/// Linear attention, whose tokens see what a state of fixed size holds of those before them.
///
/// Queries, keys and values go through a short convolution over positions, then through the scan of each value head:
/// S ← e^(a · softplus(α + bias)) S, S ← S + k (β (v − Sᵀk))ᵀ, o = Sᵀq, with q and k of length 1, q divided by √keyLength and
/// β a sigmoid (gated delta rule, arXiv:2412.06464). RMSNorm(o) · SiLU(z) goes through the output projection.
public struct ScanSpec: Sendable, Codable, Equatable {
  public var keyHeadCount: Int
  /// A multiple of ``keyHeadCount``.
  public var valueHeadCount: Int
  /// Elements of a query or key head.
  public var keyLength: Int
  /// Elements of a value head.
  public var valueLength: Int
  /// Positions that the convolution sees, the token's own included.
  public var tapCount: Int
  public var inputs: Inputs
  /// Value heads take key heads in turn, the first, the second, …; otherwise those that follow each other share one.
  public var takesKeysInTurn = false
  /// A bias on the convolution (`ssm_conv1d.bias`).
  public var hasTapBias = false

  public init(
    keyHeadCount: Int, valueHeadCount: Int, keyLength: Int, valueLength: Int, tapCount: Int,
    inputs: Inputs
  ) {
    self.keyHeadCount = keyHeadCount
    self.valueHeadCount = valueHeadCount
    self.keyLength = keyLength
    self.valueLength = valueLength
    self.tapCount = tapCount
    self.inputs = inputs
  }

  /// How the rows of the input projections lie.
  public enum Inputs: String, Sendable, Codable, CaseIterable {
    /// In one matrix (`ssm_in`), for each key head its query, key, values and z; in another (`ssm_ba`) what its value heads' β
    /// come from, and then their α.
    case byKeyHead
    /// Queries, keys and values in one (`attn_qkv`), and z in another (`attn_gate`); β and α as before.
    case byKind
    /// As ``byKind``, and β and α in matrices of their own (`ssm_beta`, `ssm_alpha`).
    case apart
    /// Mamba-2's (arXiv:2405.21060): in one matrix (`ssm_in`) z, values, keys, queries and the steps Δ. Queries and keys stay as long
    /// as they are, β is softplus(Δ + bias), which the decay has too, and the state takes values as they are: S ← S + k (β v)ᵀ. To o
    /// a share of v is added (`ssm_d`), and RMSNorm over the value heads of a key head follows SiLU(z).
    case mamba2
  }

  /// The key head that a value head reads.
  public func keyHead(of valueHead: Int) -> Int {
    takesKeysInTurn ? valueHead % keyHeadCount : valueHead / groupSize
  }

  /// Value heads that read one key head.
  public var groupSize: Int { valueHeadCount / keyHeadCount }
  /// Elements of all query heads, or key heads.
  public var keysLength: Int { keyHeadCount * keyLength }
  /// Elements of all value heads.
  public var valuesLength: Int { valueHeadCount * valueLength }
  /// Rows of the first input matrix.
  package var inputRowCount: Int {
    switch inputs {
    case .byKind, .apart: channelCount
    case .byKeyHead: channelCount + valuesLength
    case .mamba2: channelCount + valuesLength + valueHeadCount
    }
  }
  /// What goes through the convolution: queries, keys and values.
  public var channelCount: Int { 2 * keysLength + valuesLength }
}

extension ScanSpec {
  /// More taps than the convolution can have.
  static let tapLimit = 8

  /// Why it cannot run; nil if it can.
  var problem: String? {
    let bounded: [(name: String, value: Int, limit: Int)] = [
      ("key head count", keyHeadCount, 1 << 10), ("value head count", valueHeadCount, 1 << 10),
      ("key head length", keyLength, 1 << 10), ("value head length", valueLength, 1 << 10),
      ("convolution length", tapCount, Self.tapLimit),
    ]
    for (name, value, limit) in bounded where value < 1 || value > limit {
      return "\(name) of a scan is \(value); 1 to \(limit) is possible"
    }
    guard !takesKeysInTurn || inputs == .byKind || inputs == .apart else {
      return "a scan whose inputs lie in one matrix takes key heads in turn"
    }
    return valueHeadCount % keyHeadCount == 0
      ? nil : "\(valueHeadCount) value heads do not divide among \(keyHeadCount) key heads"
  }

  var canonicalNumbers: [Int] {
    [
      keyHeadCount, valueHeadCount, keyLength, valueLength, tapCount,
      Inputs.allCases.firstIndex(of: inputs) ?? 0, takesKeysInTurn ? 1 : 0,
      hasTapBias ? 1 : 0,
    ]
  }
}
