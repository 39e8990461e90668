/// Times within which a request is answered well enough.
public struct LatencyTargets: Sendable, Equatable {
  /// Seconds up to the first token, from a token to the next on average, and up to the end; nil = any.
  public var firstToken: Double?
  public var perToken: Double?
  public var whole: Double?

  public static let forms = "ttft=SECONDS, tpot=SECONDS and total=SECONDS, with commas between them"

  /// `ttft=0.5,tpot=50ms,total=20`; nil if it is none.
  public init?(_ text: String) {
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      let sides = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard sides.count == 2, let seconds = Self.seconds(sides[1]) else { return nil }
      switch sides[0] {
      case "ttft": firstToken = seconds
      case "tpot": perToken = seconds
      case "total": whole = seconds
      default: return nil
      }
    }
  }

  /// `0.5`, `0.5s` or `500ms`.
  private static func seconds(_ text: Substring) -> Double? {
    let (digits, scale) =
      text.hasSuffix("ms")
      ? (text.dropLast(2), 1e-3) : (text.hasSuffix("s") ? text.dropLast() : text, 1)
    guard let value = Double(digits), value > 0, value.isFinite else { return nil }
    return value * scale
  }

  /// Whether an answered request kept to all of them.
  public func isMet(by outcome: RequestOutcome) -> Bool {
    func keeps(_ value: Double?, _ most: Double?) -> Bool {
      most.map { (value ?? 0) <= $0 } ?? true
    }
    return outcome.failure == nil && keeps(outcome.firstTokenSeconds, firstToken)
      && keeps(outcome.secondsPerToken, perToken) && keeps(outcome.seconds, whole)
  }
}

/// What a load has shown.
public struct LoadSummary: Sendable {
  public let requestCount: Int
  public let answeredCount: Int
  /// How many failed, by their kind.
  public let failures: [String: Int]
  /// What the first that failed was told, after its kind: `status 400: …`; nil where none failed.
  public let firstFailure: String?
  /// From the first beginning to the last end.
  public let seconds: Double
  /// Of answered requests.
  public let promptTokenCount: Int
  public let cachedTokenCount: Int
  public let answerTokenCount: Int
  /// Seconds, ascending, of answered requests: to the first token, from a piece of an answer to the next, to the end.
  public let firstToken: [Double]
  public let betweenTokens: [Double]
  public let whole: [Double]
  /// Answered requests that kept to the targets.
  public let goodCount: Int

  public init(_ outcomes: [RequestOutcome], _ targets: LatencyTargets? = nil) {
    let answered = outcomes.filter { $0.failure == nil }
    requestCount = outcomes.count
    answeredCount = answered.count
    failures = Dictionary(grouping: outcomes.compactMap(\.failure)) { $0 }.mapValues(\.count)
    firstFailure =
      outcomes.lazy.compactMap { outcome in
        outcome.failure.map { kind in outcome.message.map { "\(kind): \($0)" } ?? kind }
      }.first
    let start = outcomes.map(\.start).min() ?? 0
    seconds = Double((outcomes.map(\.end).max() ?? start) - start) / 1e9
    promptTokenCount = answered.reduce(0) { $0 + $1.promptTokenCount }
    cachedTokenCount = answered.reduce(0) { $0 + $1.cachedTokenCount }
    answerTokenCount = answered.reduce(0) { $0 + $1.answerTokenCount }
    firstToken = answered.compactMap(\.firstTokenSeconds).sorted()
    betweenTokens = answered.flatMap { outcome in
      zip(outcome.pieces, outcome.pieces.dropFirst()).map { Double($1 - $0) / 1e9 }
    }.sorted()
    whole = answered.map(\.seconds).sorted()
    goodCount = answered.count { targets?.isMet(by: $0) ?? true }
  }

  /// The least of ascending values that `share` of them do not exceed; NaN if there are none.
  public static func percentile(_ share: Double, of values: [Double]) -> Double {
    guard !values.isEmpty else { return .nan }
    return values[
      min(values.count - 1, max(0, Int((share * Double(values.count)).rounded(.up)) - 1))]
  }
}
