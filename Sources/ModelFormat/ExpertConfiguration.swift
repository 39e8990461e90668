/// Shape and arithmetic of the experts that stand in place of a layer's FFN.
///
/// A router scores all experts; the best ``expertsPerToken`` run, ties going to the lower
/// number, and their outputs are summed, weighted by their scores.
public struct ExpertConfiguration: Sendable, Equatable {
  /// Experts of a layer.
  public var expertCount: Int
  /// Experts that run for a token.
  public var expertsPerToken: Int
  /// Width of one expert's FFN.
  public var feedForwardLength: Int
  /// Width of the expert that always runs; nil without.
  public var sharedFeedForwardLength: Int?
  /// The shared expert's output is multiplied by the sigmoid of `ffn_gate_inp_shexp · x`.
  public var gatesSharedExpert: Bool
  /// The chosen experts' scores are divided by their sum.
  ///
  /// Of a softmax over all experts that is the softmax over those that were chosen.
  public var normalisesWeights: Bool
  /// How scores come about, and what they are chosen by.
  public var routing = ExpertRouting()
  /// Biases on gate, up and down of each expert (`ffn_gate_exps.bias`, all experts' one after the other).
  public var hasBiases = false

  public init(
    expertCount: Int, expertsPerToken: Int, feedForwardLength: Int,
    sharedFeedForwardLength: Int? = nil, gatesSharedExpert: Bool = false, normalisesWeights: Bool,
    routing: ExpertRouting = ExpertRouting(), hasBiases: Bool = false
  ) {
    self.expertCount = expertCount
    self.expertsPerToken = expertsPerToken
    self.feedForwardLength = feedForwardLength
    self.sharedFeedForwardLength = sharedFeedForwardLength
    self.gatesSharedExpert = gatesSharedExpert
    self.normalisesWeights = normalisesWeights
    self.routing = routing
    self.hasBiases = hasBiases
  }
}

/// How a router's scores come about, and what experts are chosen by.
public struct ExpertRouting: Sendable, Codable, Equatable {
  public enum Score: String, Sendable, Codable, CaseIterable {
    /// A softmax over all experts.
    case softmax
    /// Of each expert by itself.
    case sigmoid
  }

  public var score = Score.softmax
  /// A bias on the router's product (`ffn_gate_inp.bias`).
  public var hasBias = false
  /// A bias on scores where experts are chosen, and not where they are weighed (`exp_probs_b.bias`).
  public var hasSelectionBias = false
  /// Only experts of some groups may be chosen; nil = all may.
  public var groups: Groups?
  /// Factor on weights.
  public var scale: Float = 1

  /// Groups of equally many experts that follow each other.
  public struct Groups: Sendable, Codable, Equatable {
    public var count: Int
    /// Groups of which experts may be chosen: those whose best two are the highest in sum, the first among equals.
    public var usedCount: Int

    public init(count: Int, usedCount: Int) {
      self.count = count
      self.usedCount = usedCount
    }
  }

  public init() {}

  /// DeepSeek V3's: a sigmoid of each product, and a bias where experts are chosen.
  static var biasedSigmoid: ExpertRouting {
    var routing = ExpertRouting()
    (routing.score, routing.hasSelectionBias) = (.sigmoid, true)
    return routing
  }

  /// Whether experts are chosen by other numbers than they are weighed with.
  public var choosesByOtherNumbers: Bool { hasSelectionBias || groups != nil }
}

extension ExpertConfiguration: Codable {
  private enum CodingKeys: String, CodingKey {
    case expertCount, feedForwardLength, sharedFeedForwardLength, gatesSharedExpert
    case normalisesWeights, routing, hasBiases
    case expertsPerToken = "usedExpertCount"
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    expertCount = try container.decode(Int.self, forKey: .expertCount)
    expertsPerToken = try container.decode(Int.self, forKey: .expertsPerToken)
    feedForwardLength = try container.decode(Int.self, forKey: .feedForwardLength)
    sharedFeedForwardLength = try container.decodeIfPresent(
      Int.self, forKey: .sharedFeedForwardLength)
    gatesSharedExpert = try container.decode(Bool.self, forKey: .gatesSharedExpert)
    normalisesWeights = try container.decode(Bool.self, forKey: .normalisesWeights)
    let routing = try container.decodeIfPresent(ExpertRouting.self, forKey: .routing)
    self.routing = routing ?? ExpertRouting()
    hasBiases = try container.decodeIfPresent(Bool.self, forKey: .hasBiases) ?? false
  }

  /// What the first families with experts do not have is stated only where it is there.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(expertCount, forKey: .expertCount)
    try container.encode(expertsPerToken, forKey: .expertsPerToken)
    try container.encode(feedForwardLength, forKey: .feedForwardLength)
    try container.encodeIfPresent(sharedFeedForwardLength, forKey: .sharedFeedForwardLength)
    try container.encode(gatesSharedExpert, forKey: .gatesSharedExpert)
    try container.encode(normalisesWeights, forKey: .normalisesWeights)
    if routing != ExpertRouting() { try container.encode(routing, forKey: .routing) }
    if hasBiases { try container.encode(true, forKey: .hasBiases) }
  }
}

extension ExpertConfiguration {
  /// Whether readers of images that know no more than a softmax over all experts understand it.
  var isOfFirstFamilies: Bool { routing == ExpertRouting() && !hasBiases }

  /// More experts than any model's layer has.
  static let expertLimit = 4096

  /// Checks that the values describe experts that can run, small enough for products of shapes.
  ///
  /// - Throws: ``FormatError`` naming the value.
  func validate(path: String?) throws(FormatError) {
    guard expertCount != 1 else {
      throw FormatError(
        .unsupported, path: path, "a single expert is not supported; it would be a dense model")
    }
    let groups = routing.groups ?? ExpertRouting.Groups(count: 1, usedCount: 1)
    let bounded: [(name: String, value: Int, range: ClosedRange<Int>)] = [
      ("expert count", expertCount, 2...Self.expertLimit),
      ("used expert count", expertsPerToken, 1...max(1, expertCount)),
      ("expert feed-forward length", feedForwardLength, 1...1 << 22),
      ("shared expert feed-forward length", sharedFeedForwardLength ?? 1, 1...1 << 22),
      ("expert group count", groups.count, 1...max(1, expertCount / 2)),
      ("used expert group count", groups.usedCount, 1...max(1, groups.count)),
    ]
    for (name, value, range) in bounded where !range.contains(value) {
      throw FormatError(
        .malformed, path: path,
        "\(name) is \(value); \(range.lowerBound) to \(range.upperBound) is possible")
    }
    let choiceCount = expertCount / groups.count * groups.usedCount
    let problems: [(holds: Bool, message: String)] = [
      (
        sharedFeedForwardLength != nil || !gatesSharedExpert,
        "there is a gate for a shared expert, but no shared expert"
      ),
      (
        expertCount % groups.count == 0 && expertsPerToken <= choiceCount,
        "\(expertsPerToken) of \(expertCount) experts cannot be chosen from \(groups.usedCount) of "
          + "\(groups.count) groups"
      ),
      (
        routing.scale.isFinite && routing.scale > 0,
        "the factor on experts' weights is \(routing.scale), not a positive number"
      ),
    ]
    for (holds, message) in problems where !holds {
      throw FormatError(.malformed, path: path, message)
    }
  }
}
