/// Linear attention, whose tokens see what a state of fixed size holds of those before them.
///
/// Queries, keys and values go through a short convolution over positions, then through the scan of each value head:
/// S ← e^(a · softplus(α + bias)) S, S ← S + k (β (v − Sᵀk))ᵀ, o = Sᵀq, with q and k of length 1, q divided by √keyLength and
/// β a sigmoid (gated delta rule, arXiv:2412.06464). RMSNorm(o) · SiLU(z) goes through the output
/// projection. ``Inputs`` says how others differ.
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
  /// Outputs go through RMSNorm (`ssm_norm`); only Mamba-2's may do without.
  public var hasNorm = true
  /// Factors on what Mamba-2's input matrix gives: z, values, keys, queries and steps; nil = none.
  public var inputScales: [Float]?

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
    /// No scan, but a convolution between gates (LFM2): in one matrix (`ssm_in`) B, C and x, each as long as the values; B ⊙ x goes
    /// through the convolution, without SiLU, and what comes of it times C through the output projection.
    case gatedConvolution
    /// Lightning attention (arXiv:2401.04658): in one matrix (`attn_qkv`), for each head its query, key and value, and z in another
    /// (`attn_gate`). What a head forgets (`ssm_a`) depends on no token; S ← e^a S + k vᵀ, queries and keys staying as long as they are,
    /// and RMSNorm over all heads, with an epsilon of 10⁻⁶, is multiplied by the sigmoid of z.
    case lightning
    /// Gated linear attention (arXiv:2312.06635): queries, keys, values and z in a matrix each (`attn_q`, `attn_k`, `attn_v`,
    /// `attn_gate`), without a convolution. Each key of a head forgets by itself: S ← α ∘ S + k vᵀ with α = σ(B A x + b)^(1/16),
    /// A (`ssm_f_a`) having ``decayRank`` rows and B (`ssm_f_b`) as many columns. Keys stay as long as they are, queries are
    /// divided by √keyLength.
    case gatedLinear
    /// No scan, but a convolution in front of a gate (Based, arXiv:2402.18668): in one matrix with a bias (`ssm_in`) u and C, each as long
    /// as the values; SiLU of what comes of u's convolution, times C, goes through the output projection, which has a bias too.
    case activatedConvolution
    /// Based's linear attention: queries, keys and values in a matrix each (`attn_q`, `attn_k`, `attn_v`), without a convolution, decays,
    /// gate or norm. A token sees those before it by 1 + s + s²/2 with s = qᵀk ÷ √keyLength, divided by the sum of these: the state has a
    /// key for each of ``featureCount`` products of a key's elements, and a column more than a value, for the sum.
    case taylor
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
  /// Whether a state has a decay for each key.
  public var decaysKeys: Bool { inputs == .gatedLinear }
  /// Numbers that the decays of gated linear attention come from.
  public static let decayRank = 16
  /// Rows of the first input matrix.
  package var inputRowCount: Int {
    switch inputs {
    case .gatedLinear, .taylor: keysLength
    case .byKind, .apart, .lightning: channelCount
    case .byKeyHead: channelCount + valuesLength
    case .mamba2: channelCount + valuesLength + valueHeadCount
    case .gatedConvolution: 3 * channelCount
    case .activatedConvolution: 2 * channelCount
    }
  }
  /// What goes through the convolution: queries, keys and values.
  public var channelCount: Int {
    scans ? 2 * keysLength + valuesLength : valuesLength
  }
  /// Whether there is a state beside what the convolution remembers.
  public var scans: Bool { inputs != .gatedConvolution && inputs != .activatedConvolution }
  /// Elements of a key of ``Inputs/taylor`` in the state: 1, its elements, and the products of any two of them.
  public var featureCount: Int { 1 + keyLength + keyLength * (keyLength + 1) / 2 }

  /// A convolution between gates.
  ///
  /// - Parameter width: channels, which are as many values of one head.
  public static func gatedConvolution(
    width: Int, tapCount: Int, inputs: Inputs = .gatedConvolution
  ) -> ScanSpec {
    ScanSpec(
      keyHeadCount: 1, valueHeadCount: 1, keyLength: 1, valueLength: width, tapCount: tapCount,
      inputs: inputs)
  }
}

extension ScanSpec {
  private enum CodingKeys: String, CodingKey {
    case keyHeadCount, valueHeadCount, keyLength, valueLength, tapCount, inputs
    case takesKeysInTurn, hasTapBias, hasNorm, inputScales
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    self.init(
      keyHeadCount: try container.decode(Int.self, forKey: .keyHeadCount),
      valueHeadCount: try container.decode(Int.self, forKey: .valueHeadCount),
      keyLength: try container.decode(Int.self, forKey: .keyLength),
      valueLength: try container.decode(Int.self, forKey: .valueLength),
      tapCount: try container.decode(Int.self, forKey: .tapCount),
      inputs: try container.decode(Inputs.self, forKey: .inputs))
    takesKeysInTurn = try container.decode(Bool.self, forKey: .takesKeysInTurn)
    hasTapBias = try container.decode(Bool.self, forKey: .hasTapBias)
    hasNorm = try container.decodeIfPresent(Bool.self, forKey: .hasNorm) ?? true
    inputScales = try container.decodeIfPresent([Float].self, forKey: .inputScales)
  }

  /// What the first scans do not have is stated only where it is there.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(keyHeadCount, forKey: .keyHeadCount)
    try container.encode(valueHeadCount, forKey: .valueHeadCount)
    try container.encode(keyLength, forKey: .keyLength)
    try container.encode(valueLength, forKey: .valueLength)
    try container.encode(tapCount, forKey: .tapCount)
    try container.encode(inputs, forKey: .inputs)
    try container.encode(takesKeysInTurn, forKey: .takesKeysInTurn)
    try container.encode(hasTapBias, forKey: .hasTapBias)
    if !hasNorm { try container.encode(false, forKey: .hasNorm) }
    try container.encodeIfPresent(inputScales, forKey: .inputScales)
  }
}

extension ScanSpec {
  /// More taps than the convolution can have.
  static let tapLimit = 8
  /// More elements of keys whose products are keys.
  static let taylorLimit = 64
  /// Of z, values, keys, queries and steps.
  static let inputScaleCount = 5

  /// Why it cannot run; nil if it can.
  var problem: String? {
    let bounded: [(name: String, value: Int, limit: Int)] = [
      ("key head count", keyHeadCount, 1 << 10), ("value head count", valueHeadCount, 1 << 10),
      ("key head length", keyLength, 1 << 10),
      ("value head length", valueLength, scans ? 1 << 10 : 1 << 20),
      ("convolution length", tapCount, Self.tapLimit),
    ]
    for (name, value, limit) in bounded where value < 1 || value > limit {
      return "\(name) of a scan is \(value); 1 to \(limit) is possible"
    }
    guard !takesKeysInTurn || inputs == .byKind || inputs == .apart else {
      return "a scan whose inputs lie in one matrix takes key heads in turn"
    }
    guard hasNorm && inputScales == nil || inputs == .mamba2 else {
      return "a scan without norm, or with factors on its inputs, is Mamba-2's"
    }
    let scales = inputScales ?? Array(repeating: 1, count: Self.inputScaleCount)
    guard scales.count == Self.inputScaleCount, scales.allSatisfy(\.isFinite) else {
      return "factors on a scan's inputs are \(scales), not \(Self.inputScaleCount) finite numbers"
    }
    guard inputs != .taylor || keyLength <= Self.taylorLimit else {
      return "products of \(keyLength) elements; of 1 to \(Self.taylorLimit) they can be keys"
    }
    let isAlone = tapCount == 1 && !hasTapBias && groupSize == 1
    guard isAlone || inputs != .gatedLinear && inputs != .taylor else {
      return "linear attention without a convolution has as many key heads as value heads"
    }
    return valueHeadCount % keyHeadCount == 0
      ? nil : "\(valueHeadCount) value heads do not divide among \(keyHeadCount) key heads"
  }

  var canonicalNumbers: [Int] {
    [
      keyHeadCount, valueHeadCount, keyLength, valueLength, tapCount,
      Inputs.allCases.firstIndex(of: inputs) ?? 0, takesKeysInTurn ? 1 : 0,
      hasTapBias ? 1 : 0,
    ] + (hasNorm && inputScales == nil ? [] : [hasNorm ? 1 : 0])
      + (inputScales ?? []).map { Int($0.bitPattern) }
  }
}
