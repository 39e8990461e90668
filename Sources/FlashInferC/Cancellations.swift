import Synchronization
import TensorBasics

/// Who asked for which generations to end.
///
/// Any thread asks at any time, also just before a generation begins or after it ended. What is asked for is
/// never lost, and with a ticket it never ends another generation than the one that was meant.
final class Cancellations: Sendable {
  /// Raised while the generation under way is to end.
  let flag = CancellationFlag()

  private struct State {
    var isUnderWay = false
    /// The caller's number for the generation under way; 0 = none.
    var ticket: UInt64 = 0
    /// Whether the generation under way, or the next, is to end.
    var isWanted = false
    /// Generations of this ticket and smaller ones are to end.
    var lastTicket: UInt64 = 0

    var isCancelled: Bool { isWanted || (ticket != 0 && ticket <= lastTicket) }
  }
  private let state = Mutex(State())

  /// A generation begins.
  func begin(ticket: UInt64) {
    state.withLock { state in
      state.isUnderWay = true
      state.ticket = ticket
      if state.isCancelled { flag.raise() } else { flag.lower() }
    }
  }

  /// It ended: what was asked of it is done.
  ///
  /// - Returns: whether it was asked to, be it in its last moment.
  func end() -> Bool {
    state.withLock { state in
      let wasCancelled = flag.isRaised
      state.isUnderWay = false
      state.isWanted = false
      flag.lower()
      return wasCancelled
    }
  }

  /// Ends the generation under way, or if there is none the next.
  func cancel() {
    state.withLock { state in
      state.isWanted = true
      if state.isUnderWay { flag.raise() }
    }
  }

  /// Ends the generation of that ticket and those of smaller ones, whether or not they have begun.
  func cancel(through ticket: UInt64) {
    state.withLock { state in
      state.lastTicket = max(state.lastTicket, ticket)
      if state.isUnderWay, state.isCancelled { flag.raise() }
    }
  }
}
