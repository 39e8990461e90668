/// What cannot be asked of a sequence, or of an engine, as it stands.
public enum SequenceError: Error, Sendable, Equatable, CustomStringConvertible {
  /// As many sequences are open as memory was planned for.
  case full(sequenceCount: Int)
  /// The turn under way has not ended, or its end was not taken yet.
  case underWay
  /// It was cancelled or failed: its context is gone.
  case over
  /// The engine was stopped.
  case engineStopped
  /// The context does not reach so far.
  case noSuchPosition(Int, count: Int)
  /// A grammar was given to an engine whose memory was planned without.
  case noGrammars
  /// No token of the vocabulary can continue the answer as its grammar asks.
  case noTokenFits
  /// The grammar allows so many readings of the answer that they cannot be followed.
  case grammarTooAmbiguous

  public var description: String {
    switch self {
    case .full(let count):
      "all \(count) sequences that memory was planned for are open: wait until one ends, ask to be queued, or plan "
        + "for more"
    case .underWay:
      "the sequence is still answering: take its events to the end of the turn first, or cancel it"
    case .over: "the sequence was cancelled or failed, and its context is gone: open a new one"
    case .engineStopped: "the engine was stopped"
    case .noSuchPosition(let position, let count):
      "position \(position) is outside the context, which holds \(count) tokens"
    case .noGrammars: "the engine was planned without grammars (MemoryPlan.Request.usesGrammars)"
    case .noTokenFits:
      "no token of the vocabulary can continue the answer as its grammar asks, or the grammar allows too many readings to "
        + "find one"
    case .grammarTooAmbiguous:
      "the grammar allows more readings of the answer than can be followed: make it less ambiguous"
    }
  }
}
