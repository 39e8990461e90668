/// What became of a request.
public struct RequestOutcome: Sendable, Equatable {
  /// When it was to begin, and when its end was there, in nanoseconds of the monotonic clock.
  public var start: Int
  public var end: Int
  /// When pieces of its answer came.
  public var pieces: [Int] = []
  public var promptTokenCount = 0
  /// Tokens of the prompt that the server knew.
  public var cachedTokenCount = 0
  public var answerTokenCount = 0
  /// What kind of failure it ended with: `status 429`, `timeout`, `connection`, `broken stream`; nil if it was answered.
  public var failure: String?
  /// What the server, or the connection, said to a request that failed; nil where it said nothing.
  public var message: String?

  public init(start: Int, end: Int) { (self.start, self.end) = (start, end) }

  /// Seconds up to the first piece of the answer.
  public var firstTokenSeconds: Double? { pieces.first.map { Double($0 - start) / 1e9 } }
  public var seconds: Double { Double(end - start) / 1e9 }
  /// Mean of the seconds from a token to the next; nil where there are not two.
  public var secondsPerToken: Double? {
    guard answerTokenCount > 1, let first = pieces.first, let last = pieces.last else { return nil }
    return Double(last - first) / 1e9 / Double(answerTokenCount - 1)
  }
}
