import TensorBasics

/// The drafts of one sequence: what its drafter proposed for the next sweep, and how often that was right.
struct SequenceDrafts {
  /// nil once it failed.
  private var drafter: (any Drafter)?
  private var draft = Draft()
  private(set) var counts = DraftCounts()
  /// Why there are no drafts any more; taken by whoever tells people.
  private(set) var failure: RuntimeError?
  /// Time that a draft takes to make, a moving average, and that of the last proposal.
  private var draftNanoseconds = 0.0
  private(set) var lastNanoseconds = 0

  /// nil where there are to be no drafts.
  init?(_ choice: DraftChoice, contextLength: Int) {
    guard let makeDrafter = choice.makeDrafter else { return nil }
    drafter = makeDrafter(contextLength)
  }

  /// Memory of a sequence's drafts.
  static func byteCount(contextLength: Int) -> Int {
    LookupDrafter.byteCount(contextLength: contextLength) + 3 * 8 * Draft.capacity
  }

  /// The tokens that are to be verified, after the last of the path.
  var tokens: [Int32] { draft.tokens }
  /// How likely each of them is to be reached and right, and how many are verified whatever that costs.
  var proposal: (likelihoods: [Double], forcedCount: Int) {
    (draft.likelihoods, draft.isForced ? draft.tokens.count : 0)
  }

  /// Proposes at most `most` tokens.
  mutating func propose(after context: DraftContext, most: Int, _ gate: DraftGate) {
    draft.begin(
      most: most, leastLikelihood: gate.leastLikelihood(draftNanoseconds: draftNanoseconds))
    lastNanoseconds = 0
    guard most > 0, let drafter else { return }
    let start = monotonicNanoseconds()
    do throws(RuntimeError) { try drafter.propose(after: context, into: &draft) } catch {
      (failure, self.drafter) = (error, nil)
      draft.shorten(to: 0)
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

  /// Has only the first `count` verified.
  mutating func shorten(to count: Int) { draft.shorten(to: count) }

  /// Has none verified.
  mutating func drop() { draft.shorten(to: 0) }

  /// Notes how many of the drafts that were verified the model drew itself.
  mutating func note(acceptedCount: Int) {
    counts.draftedCount += draft.tokens.count
    counts.acceptedCount += acceptedCount
    draft.note(acceptedCount: acceptedCount)
  }
}

/// Drafts that were verified.
public struct DraftCounts: Sendable, Equatable {
  public internal(set) var draftedCount = 0
  /// Those that the model drew itself.
  public internal(set) var acceptedCount = 0

  static func += (left: inout DraftCounts, right: DraftCounts) {
    left.draftedCount += right.draftedCount
    left.acceptedCount += right.acceptedCount
  }
}
