import BlockIO
import TensorBasics

/// A sequence as the engine's thread and its callers see it.
final class SequenceRecord: @unchecked Sendable {
  // Safety: what changes is touched with the lock of the exchange held; the flag is atomic.
  let id: UInt64
  /// As it was opened, without its tokens.
  let request: SequenceRequest
  /// Raised when nothing more is wanted; its rows are dead from the next layer on.
  let cancellation = CancellationFlag()
  /// Whoever pulls sleeps here.
  let changed: Monitor
  /// Tasks that wait for news.
  var waiters: [CheckedContinuation<Void, Never>] = []
  var mailbox = Mailbox()
  var condition: Condition
  /// Whether one of the engine's places is its own.
  var hasPlace = false
  var isInSweep = false
  /// Tokens of its context.
  var contextCount = 0
  /// Rows that the engine had computed when its turn was asked for.
  var startRowCount = 0
  /// How many others were before it when it was last told.
  var aheadCount = 0
  var usage = TokenSequence.Usage()

  enum Condition {
    /// It waits for a place, with its first turn.
    case queued(Turn)
    case underWay
    /// Between turns.
    case idle
    /// It was cancelled or failed.
    case over
  }

  /// What a turn begins with.
  struct Turn {
    var tokens: [Int32]
    var limit: Int
  }

  init(id: UInt64, _ request: SequenceRequest, _ condition: Condition, changed: Monitor) {
    self.id = id
    self.request = request
    self.condition = condition
    self.changed = changed
  }

  /// What it asks for, beside others.
  var claim: FairShares.Claim {
    FairShares.Claim(
      client: request.client, priority: request.priority, startRowCount: startRowCount)
  }

  /// Whether a turn was asked for and has not ended.
  var hasTurn: Bool {
    switch condition {
    case .queued, .underWay: true
    case .idle, .over: false
    }
  }

  var isOver: Bool {
    if case .over = condition { true } else { false }
  }
}

/// Events of a turn that were not taken yet: at most its tokens, and one of each other kind.
struct Mailbox {
  typealias Event = TokenSequence.Event

  /// Sequences that are queued before this one, where that is news.
  var ahead: Int?
  var reading: (done: Int, of: Int, reused: Int)?
  /// `finished` or `failed`.
  var end: Event?
  private var tokens: [Int32] = []
  /// Of each token, where they were asked for.
  private var probabilities: [[TokenProbability]] = []
  /// Position of the first token.
  private var firstPosition = 0
  private var takenCount = 0

  var isEmpty: Bool {
    ahead == nil && reading == nil && end == nil && takenCount == tokens.count
  }

  /// Makes it empty for a turn whose answer begins at `position`.
  mutating func begin(answerAt position: Int) {
    (ahead, reading, end) = (nil, nil, nil)
    tokens.removeAll(keepingCapacity: true)
    probabilities.removeAll(keepingCapacity: true)
    (firstPosition, takenCount) = (position, 0)
  }

  mutating func append(_ token: Int32, _ probabilities: [TokenProbability]?) {
    tokens.append(token)
    if let probabilities { self.probabilities.append(probabilities) }
  }

  /// The next event.
  mutating func take() -> Event? {
    if let ahead {
      self.ahead = nil
      return .queued(ahead: ahead)
    }
    if let reading {
      self.reading = nil
      return .reading(done: reading.done, of: reading.of, reused: reading.reused)
    }
    if takenCount < tokens.count {
      defer { takenCount += 1 }
      return .token(
        id: tokens[takenCount], position: firstPosition + takenCount,
        logProbabilities: probabilities.indices.contains(takenCount)
          ? probabilities[takenCount] : [])
    }
    defer { end = nil }
    return end
  }
}
