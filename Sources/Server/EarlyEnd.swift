import Runtime
import Synchronization

/// Ends the answers to a request before they are complete, and remembers why: the first reason counts.
final class EarlyEnd: Admission.Occupant {
  enum Reason: Sendable {
    /// Nobody reads them any more.
    case left
    /// Their time is over: what is there is the answer.
    case timeLimit
    /// Another client has their place in the queue.
    case gaveWay(retrySeconds: Int)
  }

  private struct State {
    var reason: Reason?
    var sequences: [TokenSequence] = []
  }

  private let state = Mutex(State())

  /// Names the sequences; where the end came before them, they end now.
  func watch(_ sequences: [TokenSequence]) {
    let isOver = state.withLock { state in
      state.sequences = sequences
      return state.reason != nil
    }
    if isOver { for sequence in sequences { sequence.cancel() } }
  }

  func end(_ reason: Reason) {
    let sequences = state.withLock { state in
      state.reason = state.reason ?? reason
      return state.sequences
    }
    for sequence in sequences { sequence.cancel() }
  }

  /// Whether they ended because their time was over.
  var isTimeLimit: Bool {
    if case .timeLimit? = state.withLock(\.reason) { true } else { false }
  }

  /// What an end means that is none of the model's.
  ///
  /// - Throws: unless what was answered so far is the answer.
  func check() throws {
    switch state.withLock(\.reason) {
    case .timeLimit: break
    case .left, nil: throw CancellationError()
    case .gaveWay(let seconds): throw APIError.gaveWay(seconds)
    }
  }

  // MARK: - Occupant

  var isQueued: Bool {
    let sequences = state.withLock(\.sequences)
    return !sequences.isEmpty && sequences.allSatisfy(\.isQueued)
  }

  func giveWay(retrySeconds: Int) { end(.gaveWay(retrySeconds: retrySeconds)) }
}
