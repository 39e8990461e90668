/// What is added to the logit of a token before anything else is done with it.
public struct TokenBias: Sendable, Hashable {
  public var token: Int32
  public var bias: Float

  public init(token: Int32, bias: Float) {
    self.token = token
    self.bias = bias
  }
}

/// How the next token is chosen from logits.
public struct SamplingOptions: Sendable {
  /// 0 = greedy: the highest logit, the lowest id on a tie.
  public var temperature: Float
  /// Keep the k highest logits; 0 = all.
  public var topK: Int
  /// Keep the smallest set of highest probabilities whose sum reaches this; 1 = all.
  public var topP: Float
  /// Keep tokens with at least this share of the highest probability; 0 = all.
  public var minP: Float
  /// Divides positive and multiplies negative logits of recent tokens (arXiv:1909.05858 §4.1);
  /// 1 = off.
  public var repetitionPenalty: Float
  /// How many of the latest tokens count as recent.
  public var repetitionWindow: Int
  /// What is added to the logits of single tokens.
  public var logitBias: [TokenBias] = []
  /// Subtracted from the logits of tokens that the answer has.
  public var presencePenalty: Float = 0
  /// Subtracted from a token's logit as often as the answer has it.
  public var frequencyPenalty: Float = 0
  /// Names the random choices: equal prompts, seeds and streams give equal answers.
  public var seed: UInt64
  /// The seeds that people can give: those that are the same number everywhere, in JSON and in shells.
  public static let seeds = 0...Int.max
  /// What ``seeds`` are, for people.
  public static let seedForm = "a whole number from \(seeds.lowerBound) to \(seeds.upperBound)"
  /// Names one of several independent answers with the same seed.
  public var stream: UInt32

  public init(
    temperature: Float = 0.7, topK: Int = 40, topP: Float = 0.95, minP: Float = 0.05,
    repetitionPenalty: Float = 1, repetitionWindow: Int = 64, seed: UInt64 = 0, stream: UInt32 = 0
  ) {
    self.temperature = temperature
    self.topK = topK
    self.topP = topP
    self.minP = minP
    self.repetitionPenalty = repetitionPenalty
    self.repetitionWindow = repetitionWindow
    self.seed = seed
    self.stream = stream
  }

  /// Whether logits are others before they are filtered.
  var changesLogits: Bool {
    repetitionPenalty != 1 || !logitBias.isEmpty || presencePenalty != 0 || frequencyPenalty != 0
  }
}
