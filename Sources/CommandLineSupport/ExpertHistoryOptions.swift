public import ArgumentParser
public import Runtime

/// Whether what is known of the use of experts goes from one run to the next.
public struct ExpertHistoryOptions: ParsableArguments {
  @Flag(
    help: """
      Neither use nor keep the file that remembers, beside MODEL or in the cache folder, which \
      experts were used most.
      """)
  public var noExpertHistory = false

  /// The flag's name up to 0.1, accepted until 0.3.
  @Flag(name: .customLong("no-hotness"), help: .hidden)
  public var noHotness = false

  private var isUsed: Bool { !noExpertHistory && !noHotness }

  public init() {}

  /// Before the first token: gives a session the expert history of earlier runs.
  public func recall(_ session: Session) throws {
    if isUsed { try session.loadExpertUsage(note: Terminal.warn) }
  }

  /// At the end, however the run ended: saves the session's expert history.
  public func remember(_ session: Session) {
    if isUsed { session.saveExpertUsage(note: Terminal.warn) }
  }
}
