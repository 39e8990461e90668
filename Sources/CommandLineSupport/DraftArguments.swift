public import ArgumentParser
import Runtime

/// Options on drafts of tokens, several of which one sweep verifies.
public struct DraftArguments: ParsableArguments {
  /// Where drafts come from.
  public enum Choice: String, ExpressibleByArgument, CaseIterable, Sendable {
    case auto, off, lookup
  }

  @Option(
    help: """
      Where tokens are drafted that one sweep verifies: lookup (what followed the context's end earlier in the context) or \
      off; auto is lookup. Drafts are verified where that is expected to pay. The answer is the same with any.
      """)
  public var draft = Choice.auto

  public init() {}

  /// Most drafts that a sweep is to verify.
  public var rowCount: Int { draft == .off ? 0 : DraftChoice.usualRowCount }
}
