public import ArgumentParser
public import Runtime

/// Options on drafts of tokens, several of which one sweep verifies.
public struct DraftArguments: ParsableArguments {
  /// Where drafts come from.
  public enum Choice: ExpressibleByArgument, Sendable, Equatable {
    case auto, off, lookup
    /// A file of a smaller model.
    case model(path: String)

    public init?(argument: String) {
      switch argument {
      case "auto": self = .auto
      case "off": self = .off
      case "lookup": self = .lookup
      case "": return nil
      default: self = .model(path: argument)
      }
    }

    public var defaultValueDescription: String { "auto" }
  }

  @Option(
    help: ArgumentHelp(
      """
      Where tokens are drafted that one sweep verifies: lookup (what followed earlier in the context where it ended like now), \
      a smaller model of the same vocabulary, which stays in memory, or off; auto is lookup. The answer is the same with any.
      """, valueName: "auto|off|lookup|file"))
  public var draft = Choice.auto

  public init() {}

  /// Has drafts planned, and a draft model beside the model.
  ///
  /// - Returns: what answers are to be drafted by.
  public func plan(
    _ request: inout MemoryPlan.Request, for model: LanguageModel, _ resources: ResourceOptions
  ) throws -> DraftChoice {
    request.draftRowCount = draft == .off ? 0 : DraftChoice.usualRowCount
    guard case .model(let path) = draft else { return draft == .off ? .off : .lookup }
    let file = try Progress.showing("opening \(Progress.name(path))") { _ in
      try LanguageModel.open(path, backend: resources.io)
    }
    let drafter = try DraftModel(file, for: model, request)
    request.callerByteCount += drafter.byteCount
    return .model(drafter)
  }
}
