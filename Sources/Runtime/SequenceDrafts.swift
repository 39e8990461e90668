import TensorBasics

/// The drafts of one sequence: what its drafter proposed for the next sweep, and how often that was right.
struct SequenceDrafts {
  /// nil once it failed.
  private var drafter: (any Drafter)?
  private var draft = Draft()
  /// What is verified after the path's last token.
  private(set) var rows = DraftRows()
  private(set) var counts = DraftCounts()
  /// Why there are no drafts any more; taken by whoever tells people.
  private(set) var failure: RuntimeError?
  /// Time that a draft takes to make, a moving average, and that of the last proposal.
  private var draftNanoseconds = 0.0
  private(set) var lastNanoseconds = 0

  /// nil where there are to be no drafts.
  ///
  /// - Parameter history: earlier answers.
  init?(_ choice: DraftChoice, contextLength: Int, history: OutputHistory? = nil) {
    guard let makeDrafter = choice.makeDrafter else { return nil }
    drafter = makeDrafter(contextLength, history)
  }

  /// Memory of a sequence's drafts.
  static func byteCount(contextLength: Int) -> Int {
    LookupDrafter.byteCount(contextLength: contextLength) + 16 * 8 * Draft.capacity
  }

  /// How likely each token is to be reached and right, descending, and how many are verified whatever that costs.
  var proposal: (likelihoods: [Double], forcedCount: Int) {
    (Array(draft.ordered), draft.isForced ? draft.tokens.count : 0)
  }

  /// Proposes tokens, as many as there is room for.
  mutating func propose(after context: DraftContext, _ room: DraftRoom, _ gate: DraftGate) {
    rows.removeAll()
    draft.begin(
      room, leastLikelihood: gate.leastLikelihood(draftNanoseconds: draftNanoseconds))
    lastNanoseconds = 0
    guard room.count > 0, let drafter else { return }
    let start = monotonicNanoseconds()
    do throws(RuntimeError) { try drafter.propose(after: context, into: &draft) } catch {
      (failure, self.drafter) = (error, nil)
      draft.removeAll()
    }
    lastNanoseconds = monotonicNanoseconds() - start
    if !draft.tokens.isEmpty {
      let each = Double(lastNanoseconds) / Double(draft.tokens.count)
      draftNanoseconds += (draftNanoseconds == 0 ? 1 : 0.125) * (each - draftNanoseconds)
    }
  }

  /// Takes why there are no drafts any more.
  mutating func takeFailure() -> RuntimeError? {
    defer { failure = nil }
    return failure
  }

  /// Has the likeliest verified.
  ///
  /// - Parameters:
  ///   - count: how many.
  ///   - branchCount: most branches.
  mutating func choose(count: Int, branchCount: Int) {
    draft.layOut(count: count, branchCount: branchCount, into: &rows)
  }

  /// Has none verified.
  mutating func drop() { rows.removeAll() }

  /// Notes which of the rows that were verified the model drew itself: one, and those that it follows; 0 = none.
  mutating func note(lastRight row: Int) {
    counts.draftedCount += rows.tokens.count
    counts.acceptedCount += rows.depth(ofRow: row)
    draft.note(rows, lastRight: row)
    rows.removeAll()
  }
}

/// Drafts that were verified.
public struct DraftCounts: Sendable, Equatable {
  public internal(set) var draftedCount = 0
  /// Those that the model drew itself.
  public internal(set) var acceptedCount = 0

  public init() {}

  package static func += (left: inout DraftCounts, right: DraftCounts) {
    left.draftedCount += right.draftedCount
    left.acceptedCount += right.acceptedCount
  }
}
