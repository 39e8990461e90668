import HTTPTypes
import Runtime
import Synchronization

/// How many answers may be under way or wait: a request beyond that is told when to come again.
final class Admission: Sendable {
  /// Answers that the engine has places for, and those that may wait.
  let placeCount: Int
  let queueCount: Int
  private let state = Mutex(State())

  private struct State {
    var answerCount = 0
    /// Moving average of what an answer takes.
    var meanSeconds = 1.0
  }

  init(placeCount: Int, queueCount: Int) {
    self.placeCount = placeCount
    self.queueCount = queueCount
  }

  /// A request's share, which is given back with its last reference, when its answers have been sent.
  final class Share: Sendable {
    private let admission: Admission
    private let count: Int

    fileprivate init(_ admission: Admission, _ count: Int) {
      self.admission = admission
      self.count = count
    }

    deinit { admission.state.withLock { $0.answerCount -= count } }
  }

  /// Learns from an answer that ended how long they take.
  func note(_ usage: TokenSequence.Usage) {
    let seconds = Double(usage.endNanoseconds - usage.startNanoseconds) / 1e9
    state.withLock { $0.meanSeconds += (seconds - $0.meanSeconds) / 8 }
  }

  /// Room for so many answers.
  ///
  /// - Throws: ``APIError``: 429 where there is none now, 400 where there never is.
  func enter(_ count: Int) throws -> Share {
    let most = placeCount + queueCount
    guard count <= most else {
      throw APIError.bad(
        "n", "the request asks for \(count) answers; at most \(most) can be under way or wait",
        code: "too_many_answers")
    }
    let retrySeconds = state.withLock { state -> Int? in
      guard state.answerCount + count > most else {
        state.answerCount += count
        return nil
      }
      let excess = Double(state.answerCount + count - most)
      return Int(min(600, max(1, (state.meanSeconds * excess / Double(placeCount)).rounded(.up))))
    }
    guard let retrySeconds else { return Share(self, count) }
    throw APIError(
      .tooManyRequests,
      "\(placeCount) answers are under way and \(queueCount) wait: come again in about "
        + "\(retrySeconds) s", code: "queue_full", retrySeconds: retrySeconds)
  }
}
