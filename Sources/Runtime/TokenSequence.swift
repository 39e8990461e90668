import TensorBasics

/// One line of tokens that an ``Engine`` reads and continues.
///
/// A sequence has turns: ``Engine/open(_:whenFull:)`` begins the first, ``append(_:limit:)`` each of the others. What a
/// turn brings is pulled, with ``next(timeout:)`` or from ``events``; the engine never waits for whoever pulls. Between
/// turns the context is kept.
///
/// Any thread may call anything at any time. The tokens are the same, bit for bit, whatever other sequences do.
/// Dropping the last reference cancels. A sequence keeps its engine alive.
public final class TokenSequence: Sendable {
  /// Its number in the engine, which no other sequence ever has.
  public var id: UInt64 { record.id }
  /// The engine that it belongs to.
  public let engine: Engine
  private let record: SequenceRecord
  private var exchange: EngineExchange { engine.exchange }

  init(_ engine: Engine, _ record: SequenceRecord) {
    self.engine = engine
    self.record = record
  }

  deinit { exchange.close(record) }

  /// What a pull finds.
  package enum Pull: Sendable {
    case event(Event)
    /// Nothing came in time.
    case timeout
    /// The turn is over and all of it was taken.
    case end
  }

  /// The next event of the turn, once there is one.
  ///
  /// - Parameter timeout: how long to wait; nil = as long as it takes.
  /// - Returns: nil where nothing came in time, or no turn is under way and all events were taken.
  public func next(timeout: Duration? = nil) -> Event? {
    guard case .event(let event) = pull(timeout: timeout) else { return nil }
    return event
  }

  /// As ``next(timeout:)``, which tells no event from no turn.
  package func pull(timeout: Duration? = nil) -> Pull {
    exchange.take(from: record, until: Self.deadline(timeout))
  }

  /// When a wait ends, on the monotonic clock; nil = never.
  static func deadline(_ timeout: Duration?) -> Int? {
    timeout.map { timeout in
      let (seconds, attoseconds) = timeout.components
      let most = Int64.max / 4_000_000_000
      let nanoseconds =
        Int(min(max(seconds, 0), most)) * 1_000_000_000 + Int(max(0, attoseconds) / 1_000_000_000)
      return monotonicNanoseconds() + nanoseconds
    }
  }

  /// The events of the turn under way, which end with it.
  public var events: SequenceEvents { SequenceEvents(sequence: self) }

  /// Waits for an event or the end of the turn, or until the task is cancelled.
  func waitForNews() async { await exchange.waitForNews(of: record) }

  /// Begins the next turn: adds tokens to the context, and continues it.
  ///
  /// The context is what was read and every token of answers that events told of; an end token is not among them.
  ///
  /// - Parameters:
  ///   - tokens: may be empty, where the context is not: the last answer goes on then.
  ///   - limit: as ``SequenceRequest/limit``.
  /// - Throws: ``RuntimeError/sequence(_:)`` before the end of the turn before was taken, and after the sequence was
  ///   cancelled or failed; ``RuntimeError/badPrompt(_:)`` if the tokens do not fit; what the engine failed with.
  public func append(_ tokens: [Int32], limit: Int) throws(RuntimeError) {
    try exchange.append(tokens, limit: limit, to: record)
  }

  /// Whether it waits for a place.
  package var isQueued: Bool { exchange.isQueued(record) }

  /// Tokens of the context, as far as events told of them.
  public var contextCount: Int { exchange.contextCount(of: record) }

  /// Cuts the context after its first `position` tokens, as if the others had never been there.
  ///
  /// - Throws: as ``append(_:limit:)``; ``SequenceError/noSuchPosition(_:count:)``.
  public func truncate(to position: Int) throws(RuntimeError) {
    try exchange.truncate(record, to: position)
  }

  /// Another sequence with the same context, or its first `position` tokens, whose turns are its own.
  ///
  /// - Parameters:
  ///   - position: tokens that it begins with; nil = all.
  ///   - stream: as ``SamplingOptions/stream``: what it draws differs from what this one draws.
  /// - Throws: as ``truncate(to:)``; ``SequenceError/full(sequenceCount:)``.
  public func fork(at position: Int? = nil, stream: UInt32) throws(RuntimeError) -> TokenSequence {
    TokenSequence(engine, try exchange.fork(record, at: position, stream: stream))
  }

  /// Ends the turn under way, and the sequence: nothing more is computed for it, and its memory goes to others.
  ///
  /// The turn's end can be pulled at once. Nothing happens where it is over already.
  public func cancel() { exchange.cancel(record) }
}
