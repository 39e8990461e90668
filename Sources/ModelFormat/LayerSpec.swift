/// One layer of a decoder: its blocks, one after the other.
///
/// Usual layers have two of one branch each, attention and an FFN. A layer has at most two blocks. It attends at most once and scans at
/// most once, because keys and values, and states, are numbered by layers, and has at most one FFN, or its experts.
public struct LayerSpec: Sendable, Codable, Equatable {
  public var blocks: [BlockSpec]

  public init(blocks: [BlockSpec]) { self.blocks = blocks }

  /// Llama's layer: both blocks begin with RMSNorm.
  public static let usual = LayerSpec(blocks: [
    BlockSpec(preNorm: .rms, branches: [.attention(AttentionSpec())]),
    BlockSpec(preNorm: .rms, branches: [.feedForward(FeedForwardSpec())]),
  ])

  /// The attention of the layer, which a layer without any does not get by being set.
  public var attention: AttentionSpec? {
    get { first(\.attention) }
    set { if let newValue { replace(.attention(newValue)) { $0.attention != nil } } }
  }

  /// The scan of the layer; set, it takes the place of its scan, or else of its attention.
  public var scan: ScanSpec? {
    get { first(\.scan) }
    set {
      let scans = scan != nil
      if let newValue { replace(.scan(newValue)) { scans ? $0.scan != nil : $0.isMixer } }
    }
  }

  /// The dense FFN of the layer; set, it takes the place of what was there.
  public var feedForward: FeedForwardSpec? {
    get { first(\.feedForward) }
    set { if let newValue { replace(.feedForward(newValue)) { !$0.isMixer } } }
  }

  /// The experts of the layer; set, they take the place of what was there.
  public var experts: ExpertConfiguration? {
    get { first(\.experts) }
    set { if let newValue { replace(.experts(newValue)) { !$0.isMixer } } }
  }

  private func first<Part>(_ part: KeyPath<BranchSpec, Part?>) -> Part? {
    for block in blocks {
      for branch in block.branches { if let found = branch[keyPath: part] { return found } }
    }
    return nil
  }

  private mutating func replace(_ new: BranchSpec, where matches: (BranchSpec) -> Bool) {
    for block in blocks.indices {
      for index in blocks[block].branches.indices where matches(blocks[block].branches[index]) {
        blocks[block].branches[index] = new
      }
    }
  }
}

/// residual += scale · postNorm(Σ branches(preNorm(residual)))
public struct BlockSpec: Sendable, Equatable {
  /// nil = branches see the residual stream as it is.
  public var preNorm: NormKind?
  public var branches: [BranchSpec]
  public var postNorm: NormKind?
  public var scale: Float = 1
  /// residual = residualScale · preNorm(residual) + …; nil = residual + ….
  public var residualScale: Float?

  public init(preNorm: NormKind?, branches: [BranchSpec], postNorm: NormKind? = nil) {
    self.preNorm = preNorm
    self.branches = branches
    self.postNorm = postNorm
  }
}

extension BlockSpec: Codable {
  private enum CodingKeys: String, CodingKey {
    case preNorm, branches, postNorm, scale, residualScale
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    preNorm = try container.decodeIfPresent(NormKind.self, forKey: .preNorm)
    branches = try container.decode([BranchSpec].self, forKey: .branches)
    postNorm = try container.decodeIfPresent(NormKind.self, forKey: .postNorm)
    scale = try container.decode(Float.self, forKey: .scale)
    residualScale = try container.decodeIfPresent(Float.self, forKey: .residualScale)
  }
}

/// What a block computes of its input; branches of one block are added.
public enum BranchSpec: Sendable, Equatable {
  case attention(AttentionSpec)
  case scan(ScanSpec)
  case feedForward(FeedForwardSpec)
  case experts(ExpertConfiguration)

  var attention: AttentionSpec? { if case .attention(let spec) = self { spec } else { nil } }
  var scan: ScanSpec? { if case .scan(let spec) = self { spec } else { nil } }
  /// Whether it is what lets tokens see those before them.
  package var isMixer: Bool { attention != nil || scan != nil }
  var feedForward: FeedForwardSpec? { if case .feedForward(let spec) = self { spec } else { nil } }
  var experts: ExpertConfiguration? { if case .experts(let spec) = self { spec } else { nil } }
}

extension BranchSpec: Codable {
  private enum CodingKeys: String, CodingKey { case attention, scan, feedForward, experts }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    if let spec = try container.decodeIfPresent(AttentionSpec.self, forKey: .attention) {
      self = .attention(spec)
    } else if let spec = try container.decodeIfPresent(ScanSpec.self, forKey: .scan) {
      self = .scan(spec)
    } else if let spec = try container.decodeIfPresent(FeedForwardSpec.self, forKey: .feedForward) {
      self = .feedForward(spec)
    } else {
      self = .experts(try container.decode(ExpertConfiguration.self, forKey: .experts))
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encodeIfPresent(attention, forKey: .attention)
    try container.encodeIfPresent(scan, forKey: .scan)
    try container.encodeIfPresent(feedForward, forKey: .feedForward)
    try container.encodeIfPresent(experts, forKey: .experts)
  }
}

public enum NormKind: String, Sendable, Codable, CaseIterable {
  case rms
  /// LayerNorm, which also centres and adds a bias (`attn_norm.bias`).
  case layer
}

/// Attention over the keys and values of the layer.
public struct AttentionSpec: Sendable, Codable, Equatable {
  /// Biases on the query, key and value projections.
  public var hasBiases = false
  /// A bias on the output projection.
  public var hasOutputBias = false
  /// RMSNorm on queries and keys before RoPE (`attn_q_norm`, `attn_k_norm`); nil = none.
  public var headNorm: HeadNorm?
  /// How positions enter; nil = the layer does not know them.
  public var rope: RopeTable? = .full
  /// Positions that a token sees, its own included; nil = all.
  public var window: Int?
  /// A number for each query head that takes part in its softmax and has no value (`attn_sinks`).
  public var hasSinks = false
  /// The query projection has, for each head, its query and then as many elements whose sigmoids multiply its output.
  public var hasGate = false
  /// Query heads; nil = the decoder's.
  public var queryHeadCount: Int?
  /// KV heads; nil = the decoder's.
  public var keyValueHeadCount: Int?
  /// Elements of a value head; nil = as many as of a key.
  public var valueLength: Int?
  /// Factor on values.
  public var valueScale: Float = 1

  public init() {}

  /// What RMSNorm is computed over.
  public enum HeadNorm: String, Sendable, Codable, CaseIterable {
    /// Each head by itself.
    case heads
    /// The whole projection.
    case projection
  }

  /// Which of the decoder's RoPE tables rotates queries and keys.
  public enum RopeTable: String, Sendable, Codable, CaseIterable {
    case full
    /// That of layers with a window, where the family has two.
    case sliding
  }
}

extension AttentionSpec {
  /// Whether its heads are the decoder's, which is all that readers of the first images with layers know.
  var hasUsualHeads: Bool {
    queryHeadCount == nil && keyValueHeadCount == nil && valueLength == nil && valueScale == 1
  }

  private enum CodingKeys: String, CodingKey {
    case hasBiases, hasOutputBias, headNorm, rope, window, hasSinks, hasGate
    case queryHeadCount, keyValueHeadCount, valueLength, valueScale
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    hasBiases = try container.decode(Bool.self, forKey: .hasBiases)
    hasOutputBias = try container.decode(Bool.self, forKey: .hasOutputBias)
    headNorm = try container.decodeIfPresent(HeadNorm.self, forKey: .headNorm)
    rope = try container.decodeIfPresent(RopeTable.self, forKey: .rope)
    window = try container.decodeIfPresent(Int.self, forKey: .window)
    hasSinks = try container.decodeIfPresent(Bool.self, forKey: .hasSinks) ?? false
    hasGate = try container.decodeIfPresent(Bool.self, forKey: .hasGate) ?? false
    queryHeadCount = try container.decodeIfPresent(Int.self, forKey: .queryHeadCount)
    keyValueHeadCount = try container.decodeIfPresent(Int.self, forKey: .keyValueHeadCount)
    valueLength = try container.decodeIfPresent(Int.self, forKey: .valueLength)
    valueScale = try container.decodeIfPresent(Float.self, forKey: .valueScale) ?? 1
  }

  /// What the first families stated in this form do not have is stated only where it is there.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(hasBiases, forKey: .hasBiases)
    try container.encode(hasOutputBias, forKey: .hasOutputBias)
    try container.encodeIfPresent(headNorm, forKey: .headNorm)
    try container.encodeIfPresent(rope, forKey: .rope)
    try container.encodeIfPresent(window, forKey: .window)
    if hasSinks { try container.encode(true, forKey: .hasSinks) }
    if hasGate { try container.encode(true, forKey: .hasGate) }
    try container.encodeIfPresent(queryHeadCount, forKey: .queryHeadCount)
    try container.encodeIfPresent(keyValueHeadCount, forKey: .keyValueHeadCount)
    try container.encodeIfPresent(valueLength, forKey: .valueLength)
    if valueScale != 1 { try container.encode(valueScale, forKey: .valueScale) }
  }
}

/// down(activation(gate(x)) * up(x)), without gate down(activation(up(x)))
public struct FeedForwardSpec: Sendable, Codable, Equatable {
  public var isGated = true
  /// Biases on up and down.
  public var hasBiases = false
  /// Its width; nil = the decoder's.
  public var length: Int?

  public init() {}
}
