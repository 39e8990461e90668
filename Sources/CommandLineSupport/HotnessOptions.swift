public import ArgumentParser
public import Runtime

/// Whether what is known of the use of experts goes from one run to the next.
public struct HotnessOptions: ParsableArguments {
  @Flag(
    help: """
      Neither use nor keep the file that remembers, beside MODEL or in the cache folder, which \
      experts were used most.
      """)
  public var noHotness = false

  public init() {}

  /// Before the first token: tells a session what earlier runs learnt.
  public func recall(_ session: Session) throws {
    if !noHotness { try session.recallExperts(note: Terminal.warn) }
  }

  /// At the end, whatever ended it: keeps what the session learnt.
  public func remember(_ session: Session) {
    if !noHotness { session.rememberExperts(note: Terminal.warn) }
  }
}
