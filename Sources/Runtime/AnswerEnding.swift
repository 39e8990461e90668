import Tokenization

/// Decides when an answer ends: at an end token, at a stop string, or where it is long enough.
struct AnswerEnding {
  /// Most tokens that are drawn.
  let limit: Int
  /// Tokens drawn so far, a final end token included.
  private(set) var drawnCount = 0
  /// Why the answer is over; nil as long as it goes on.
  private(set) var reason: FinishReason?
  /// The stop string that ended it.
  var stop: String? { text?.stop }

  private let lengthReason: FinishReason
  private let endTokens: [Int32]
  /// nil where nobody needs the text.
  private var text: AnswerText?

  /// - Parameters:
  ///   - asked: most tokens that the caller wants.
  ///   - promptCount: tokens before the answer, in a context of `contextLength`. The last token of an answer need not be
  ///     read, so one more than there is room for can be drawn.
  ///   - endTokens: those that end the answer.
  init(
    limit asked: Int, promptCount: Int, contextLength: Int, endTokens: [Int32], text: AnswerText?
  ) {
    limit = min(asked, max(1, contextLength - promptCount))
    lengthReason = limit < asked ? .context : .length
    self.endTokens = endTokens
    self.text = text
    if limit == 0 { reason = lengthReason }
  }

  /// Tokens that may still be drawn.
  var leftCount: Int { reason == nil ? limit - drawnCount : 0 }

  /// Takes a token that was drawn, and appends the text that it settles to `output`.
  ///
  /// - Returns: whether the token is part of the answer; one that ends it is not.
  mutating func take(_ token: Int32, text output: inout [UInt8]) -> Bool {
    drawnCount += 1
    guard !endTokens.contains(token) else {
      reason = .stop
      text?.finish(&output)
      return false
    }
    text?.append(token, to: &output)
    if stop == nil, drawnCount == limit {
      reason = lengthReason
      text?.finish(&output)
    }
    if stop != nil { reason = .stop }
    return true
  }

  /// Ends the answer after its last token, because nothing can follow.
  mutating func complete(text output: inout [UInt8]) {
    guard stop == nil else { return }
    reason = .stop
    text?.finish(&output)
  }

  /// Ends the answer where it is.
  mutating func cancel(text output: inout [UInt8]) {
    reason = .cancelled
    text?.release(&output)
  }
}
