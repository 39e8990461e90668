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
    case auto, off, lookup, mtp
    /// A file of a smaller model.
    case model(path: String)

    public init?(argument: String) {
      switch argument {
      case "auto": self = .auto
      case "off": self = .off
      case "lookup": self = .lookup
      case "mtp": self = .mtp
      case "": return nil
      default: self = .model(path: argument)
      }
    }

    public var defaultValueDescription: String { "auto" }

    /// As it was asked for where something drafts that takes memory; nil otherwise.
    fileprivate var modelName: String? {
      switch self {
      case .auto, .off, .lookup: nil
      case .mtp: "mtp"
      case .model(let path): path
      }
    }
  }

  @Option(
    help: ArgumentHelp(
      """
      Where tokens are drafted that one sweep verifies: lookup (what followed where the context ended like now before, and \
      what the model took for likely there), mtp (the model's own layer that predicts further tokens, of a GGUF file that has one) or a smaller \
      model of the same vocabulary, both of which stay in memory, or off; auto is lookup. The answer is the same with any.
      """, valueName: "auto|off|lookup|mtp|file"))
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
    let alone = request
    guard let drafter = try openModel(for: model, request, resources) else {
      return draft == .off ? .off : .lookup
    }
    drafter.reserve(in: &request)
    func plan(_ request: MemoryPlan.Request) throws(RuntimeError) -> MemoryPlan {
      try MemoryPlan.make(request, source: model.source, configuration: model.configuration)
    }
    // Whoever asked may do with fewer sequences; nil where they, the draft model and drafts do not fit.
    func leastPlan(_ budget: Int) throws(RuntimeError) -> MemoryPlan? {
      var least = request
      (least.sequenceCount, least.budgetByteCount) = (1, budget)
      do throws(RuntimeError) {
        let plan = try plan(least)
        return plan.draftRowCount > 0 ? plan : nil
      } catch {
        guard case .budgetTooSmall = error else { throw error }
        return nil
      }
    }
    let budget = request.budgetByteCount
    guard let least = try leastPlan(budget) else {
      let minimum = try MemoryPlan.leastBudget(above: budget, from: 2 * budget) {
        budget throws(RuntimeError) in
        try leastPlan(budget) != nil
      }
      throw tooSmall(budget, minimum, drafter)
    }
    let beside = request.sequenceCount == 1 ? least : try? plan(request)
    if let beside, let without = try? plan(alone) {
      Self.tell(drafter, without: without, with: beside)
    }
    return .model(drafter)
  }

  /// Why memory does not do, and the least that would.
  private func tooSmall(_ budget: Int, _ minimum: Int, _ drafter: DraftModel) -> CommandError {
    // What a process takes differs a little from run to run.
    let unit = 1 << 20
    let named = ByteCount((minimum + 2 * unit - 1) / unit * unit)
    return CommandError(
      .notPossibleHere,
      "--draft \(draft.modelName ?? ""): \(ByteCount(budget)) is too small: the smallest that works here with drafts is "
        + "\(named), of which the draft model takes \(ByteCount(drafter.byteCount)); give more, a shorter --context or a smaller "
        + "draft model, or leave out --draft")
  }

  /// Refuses a draft model where memory has no room for drafts beside it, and says so of lookup where it was asked for.
  ///
  /// - Parameter plan: of the model that is drafted for.
  public func expectRoom(in plan: MemoryPlan) throws {
    guard plan.draftRowCount == 0 else { return }
    let remedy = "give more --ram, a shorter --context or fewer --sequences"
    switch draft {
    case .auto, .off: return
    case .lookup:
      Terminal.warn("memory has no room for drafts, and answers go on without: \(remedy)")
    case .mtp, .model:
      throw CommandError(
        .notPossibleHere,
        "--draft \(draft.modelName ?? ""): memory has room for the draft model, but not for drafts beside it: \(remedy), or leave out --draft"
      )
    }
  }

  /// The smaller model that drafts, or the model's own layer; nil = neither does.
  ///
  /// - Parameter request: what the other is planned with.
  /// - Throws: ``CommandError`` where there is none or it cannot draft.
  public func openModel(
    for model: LanguageModel, _ request: MemoryPlan.Request, _ resources: ResourceOptions
  ) throws -> DraftModel? {
    guard let name = draft.modelName else { return nil }
    do {
      guard case .model(let path) = draft else {
        return try DraftModel(predictorOf: model, backend: resources.io, request)
      }
      return try Progress.showing("opening \(Progress.name(path))") { _ in
        try DraftModel(
          LanguageModel.open(path, backend: resources.io), for: model, request)
      }
    } catch let error as RuntimeError { throw Self.refusal(of: name, error) }
  }

  private static func refusal(of path: String, _ error: RuntimeError) -> CommandError {
    let status = ExitStatus(error)
    if status == .noInput {
      return CommandError(
        status,
        "--draft is auto, off, lookup, mtp or the file of a smaller model, and there is no '\(path)': \(error)"
      )
    }
    if case .budgetTooSmall(let budget, let minimum, _) = error {
      return CommandError(
        status,
        "--draft \(path): the draft model alone takes \(minimum) of the \(budget) of --ram; give more, a shorter --context, "
          + "fewer --sequences or a smaller draft model")
    }
    let reason = "\(error)"
    return CommandError(
      status, reason.hasPrefix(path) ? "--draft \(reason)" : "--draft \(path): \(reason)")
  }

  /// Says what a draft model takes, and where the model would be as fast or faster without it.
  public static func tell(
    _ drafter: DraftModel, without alone: MemoryPlan, with beside: MemoryPlan
  ) {
    let taken = "the draft model takes \(ByteCount(drafter.byteCount)) of --ram"
    if alone.readsNothing {
      Terminal.warn(
        beside.readsNothing
          ? "\(taken); the model is in memory, where drafting takes longer than it spares: --draft lookup is faster here"
          : "\(taken), and \(beside.sweepReading) each sweep, which all fit in memory without it: --draft lookup is faster here"
      )
    } else {
      Terminal.remark(
        "\(taken): \(beside.sweepReading) each sweep; without it, \(alone.sweepReading) one")
    }
  }
}

extension MemoryPlan {
  /// Whether all weights stay in memory.
  fileprivate var readsNothing: Bool {
    residency.streamedByteCount == 0 && expertSlotCount >= expertCount
  }

  /// What sweeps read.
  fileprivate var sweepReading: String {
    let streamed = "\(ByteCount(residency.streamedByteCount)) of weights are read for"
    return expertCount == 0
      ? streamed : "of \(expertCount) experts \(expertSlotCount) are in memory, and \(streamed)"
  }
}
