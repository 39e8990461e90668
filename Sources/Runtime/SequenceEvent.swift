extension TokenSequence {
  /// What happens to a sequence, in this order in each turn.
  public enum Event: Sendable {
    /// It waits for a place, after that many others. Told again when the number changes.
    case queued(ahead: Int)
    /// So many of the context's tokens are read; `reused` of them were before the turn began. Progress that was not taken in
    /// time is told once.
    case reading(done: Int, of: Int, reused: Int)
    /// A token of the answer, its place in the context, and where they were asked for the most probable tokens there,
    /// most probable first, with the token itself after them if it is none of them.
    case token(id: Int32, position: Int, logProbabilities: [TokenProbability])
    /// The turn is over.
    case finished(Finish)
    /// The sequence is over, because its keys and values, the model or the drive failed.
    case failed(RuntimeError)
  }

  /// How a turn ended.
  public struct Finish: Sendable {
    public var reason: FinishReason
    /// The stop string that the answer came to; nil if something else ended it.
    public var stop: String?
    public var usage: Usage
    /// Where it was asked for, the pooled hidden states of the tokens that the turn added; nil where it added none.
    ///
    /// As they are after the model's last norm: as many numbers as the model's hidden size.
    public var embedding: [Float]?

    init(
      _ reason: FinishReason, stop: String? = nil, _ usage: Usage, embedding: [Float]? = nil
    ) {
      self.embedding = embedding
      self.reason = reason
      self.stop = stop
      self.usage = usage
    }
  }

  /// What a turn took.
  public struct Usage: Sendable {
    /// Tokens of the context when the answer began.
    public internal(set) var promptTokenCount = 0
    /// Those of them whose keys and values were there before the turn.
    public internal(set) var reusedTokenCount = 0
    /// Tokens of the answer.
    public internal(set) var answerTokenCount = 0
    /// Tokens that were drafted and verified for it.
    public internal(set) var drafts = DraftCounts()
    /// Monotonic times: when the turn was asked for, when it had a place, of the first token that was drawn, and of the end.
    public internal(set) var startNanoseconds = 0
    public internal(set) var beginNanoseconds: Int?
    public internal(set) var firstTokenNanoseconds: Int?
    public internal(set) var endNanoseconds = 0
  }
}

/// A token that could follow, with the natural logarithm of its probability.
public struct TokenProbability: Sendable, Equatable {
  public var token: Int32
  public var logProbability: Double

  public init(token: Int32, logProbability: Double) {
    self.token = token
    self.logProbability = logProbability
  }
}
