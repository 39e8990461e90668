/// What an engine did so far, as of the end of its last sweep; what is said to be live, as of now.
public struct EngineStatistics: Sendable {
  /// What one client has of the engine.
  public struct Client: Sendable, Equatable {
    /// As of ``SequenceRequest/client``.
    public let name: String
    /// Its sequences that have a place, and those that wait for one.
    public let openCount: Int
    public let queuedCount: Int
    /// Rows computed for it.
    public let rowCount: Int
  }

  /// Sequences that have a place, and those that wait for one.
  public internal(set) var openCount = 0
  public internal(set) var queuedCount = 0
  /// Clients that ask for something, and those of late, live; in the order of their names.
  public internal(set) var clients: [Client] = []
  public internal(set) var sweepCount = 0
  /// Rows of all sweeps: tokens read and answered.
  public internal(set) var rowCount = 0
  /// Tokens drawn.
  public internal(set) var drawnCount = 0
  /// Drafts that were verified.
  public internal(set) var drafts = DraftCounts()
  /// Time of all sweeps, tokens drawn included.
  public internal(set) var sweepNanoseconds = 0
  /// Part of it and of the time up to the next sweep in which nothing was multiplied: from the logits to the start of
  /// the sweep that followed at once.
  public internal(set) var gapNanoseconds = 0
  /// Layers that the sweep under way has passed, live; all of them while it is at the output head, nil between sweeps.
  public internal(set) var passedLayerCount: Int?
  /// Bytes read from the model, live.
  public internal(set) var bytesRead = 0
  /// Time in which reads of the model were under way, live.
  public internal(set) var driveNanoseconds = 0
  /// Bytes of keys and values written: to the file for what memory does not hold, and to the store.
  public internal(set) var keyValueBytesWritten = 0
  /// Experts that sweeps asked for, and those of them that were in memory or on their way.
  public internal(set) var expertUseCount = 0
  public internal(set) var expertHitCount = 0
  /// Memory of keys and values that weights have at the moment.
  public internal(set) var lentByteCount = 0
  /// Where the time of all sweeps went.
  public internal(set) var times = TimeBreakdown()
}
