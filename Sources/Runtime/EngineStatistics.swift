/// What an engine did so far, as of the end of its last sweep.
public struct EngineStatistics: Sendable {
  /// Sequences that have a place, and those that wait for one.
  public internal(set) var openCount = 0
  public internal(set) var queuedCount = 0
  public internal(set) var sweepCount = 0
  /// Rows of all sweeps: tokens read and answered.
  public internal(set) var rowCount = 0
  /// Tokens drawn.
  public internal(set) var drawnCount = 0
  /// Time of all sweeps, tokens drawn included.
  public internal(set) var sweepNanoseconds = 0
  /// Part of it and of the time up to the next sweep in which nothing was multiplied: from the logits to the start of
  /// the sweep that followed at once.
  public internal(set) var gapNanoseconds = 0
  /// Bytes read from the model.
  public internal(set) var bytesRead = 0
  /// Memory of keys and values that weights have at the moment.
  public internal(set) var lentByteCount = 0
  /// Where the time of all sweeps went.
  public internal(set) var times = TimeBreakdown()
}
