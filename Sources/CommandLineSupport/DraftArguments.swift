public import ArgumentParser
import KVCache
import ModelFormat
public import Runtime
import TensorBasics
import WeightLoader

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
      Where tokens are drafted that one sweep verifies: lookup (what followed where the context ended like now before, and \
      what the model took for likely there), a smaller model of the same vocabulary, which stays in memory, or off; auto is lookup. The answer is the same with any.
      """, valueName: "auto|off|lookup|file"))
  public var draft = Choice.auto

  public init() {}

  /// Has drafts planned, and a draft model beside the model.
  ///
  /// - Parameter takesDrafts: whether the model's own attention is computed here.
  /// - Returns: what answers are to be drafted by.
  /// - Throws: ``CommandError`` where what was asked for cannot be.
  public func plan(
    _ request: inout MemoryPlan.Request, for model: LanguageModel, _ resources: ResourceOptions,
    takesDrafts: Bool = true
  ) throws -> DraftChoice {
    let takesDrafts = takesDrafts && request.keyValues.policy.takesDrafts
    guard draft == .auto || draft == .off || takesDrafts else {
      throw CommandError(
        .usage,
        "--draft goes with attention that does not depend on queries: leave out --kv-policy top and drives, or --draft"
      )
    }
    request.draftRowCount = draft == .off || !takesDrafts ? 0 : DraftChoice.usualRowCount
    let before = request
    guard let drafter = try openModel(for: model, request, resources) else {
      return draft == .off ? .off : .lookup
    }
    drafter.reserve(in: &request)
    Self.warnWhereStreamed(model, without: before, with: request, drafter)
    return .model(drafter)
  }

  /// The smaller model that drafts; nil = none does.
  ///
  /// - Parameter request: what the other is planned with.
  /// - Throws: ``CommandError`` where there is none or it cannot draft.
  public func openModel(
    for model: LanguageModel, _ request: MemoryPlan.Request, _ resources: ResourceOptions
  ) throws -> DraftModel? {
    guard case .model(let path) = draft else { return nil }
    do {
      return try Progress.showing("opening \(Progress.name(path))") { _ in
        try DraftModel(
          LanguageModel.open(path, backend: resources.io), for: model, request)
      }
    } catch let error as RuntimeError { throw Self.refusal(of: path, error) }
  }

  private static func refusal(of path: String, _ error: RuntimeError) -> CommandError {
    let status = ExitStatus(error)
    if status == .noInput {
      return CommandError(
        status,
        "--draft is auto, off, lookup or the file of a smaller model, and there is no '\(path)': \(error)"
      )
    }
    if case .budgetTooSmall(let budget, let minimum, _) = error {
      return CommandError(
        status,
        "--draft \(path): the draft model alone takes \(minimum) of the \(budget) of --ram; give more, a shorter --context, "
          + "fewer --sequences or a smaller draft model")
    }
    return CommandError(status, "--draft \(path): \(error)")
  }

  /// Says what the draft model takes, and where it pushes a model out of memory that would fit.
  private static func warnWhereStreamed(
    _ model: LanguageModel, without before: MemoryPlan.Request, with request: MemoryPlan.Request,
    _ drafter: DraftModel
  ) {
    func streamed(_ request: MemoryPlan.Request) -> Int? {
      try? MemoryPlan.make(
        request, source: model.source, configuration: model.configuration
      ).residency.streamedByteCount
    }
    var before = before
    before.assumedProcessByteCount = request.assumedProcessByteCount
    guard let alone = streamed(before), let beside = streamed(request) else { return }
    let taken = "the draft model takes \(ByteCount(drafter.byteCount)) of --ram"
    if alone == 0, beside > 0 {
      Terminal.warn(
        "\(taken), and \(ByteCount(beside)) of weights are read for each sweep, which all fit in memory without it: "
          + "--draft lookup is faster here")
    } else {
      Terminal.remark(
        "\(taken); each sweep reads \(ByteCount(beside)), without it \(ByteCount(alone))")
    }
  }
}
