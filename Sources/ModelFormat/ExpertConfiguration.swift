/// Shape and arithmetic of the experts that stand in place of every layer's FFN.
///
/// A router scores all experts by a softmax; the best ``expertsPerToken`` run, ties going to the lower
/// number, and their outputs are summed, weighted by their probabilities.
public struct ExpertConfiguration: Sendable, Codable, Equatable {
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
  /// The chosen experts' probabilities are divided by their sum.
  public var normalisesWeights: Bool

  public init(
    expertCount: Int, expertsPerToken: Int, feedForwardLength: Int,
    sharedFeedForwardLength: Int? = nil, gatesSharedExpert: Bool = false, normalisesWeights: Bool
  ) {
    self.expertCount = expertCount
    self.expertsPerToken = expertsPerToken
    self.feedForwardLength = feedForwardLength
    self.sharedFeedForwardLength = sharedFeedForwardLength
    self.gatesSharedExpert = gatesSharedExpert
    self.normalisesWeights = normalisesWeights
  }

  private enum CodingKeys: String, CodingKey {
    case expertCount, feedForwardLength, sharedFeedForwardLength, gatesSharedExpert
    case normalisesWeights
    case expertsPerToken = "usedExpertCount"
  }
}

extension ExpertConfiguration {
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
    let bounded: [(name: String, value: Int, range: ClosedRange<Int>)] = [
      ("expert count", expertCount, 2...Self.expertLimit),
      ("used expert count", expertsPerToken, 1...max(1, expertCount)),
      ("expert feed-forward length", feedForwardLength, 1...1 << 22),
      ("shared expert feed-forward length", sharedFeedForwardLength ?? 1, 1...1 << 22),
    ]
    for (name, value, range) in bounded where !range.contains(value) {
      throw FormatError(
        .malformed, path: path,
        "\(name) is \(value); \(range.lowerBound) to \(range.upperBound) is possible")
    }
    guard sharedFeedForwardLength != nil || !gatesSharedExpert else {
      throw FormatError(
        .malformed, path: path, "there is a gate for a shared expert, but no shared expert")
    }
  }
}
