/// The drafts of one sequence: what its drafter proposed for the next sweep, and how often that was right.
struct SequenceDrafts {
  private let drafter: any Drafter
  private var acceptance = DraftAcceptance()
  private var draft = Draft()
  /// Of each draft, how likely it is that it and all before it are right; descending.
  private(set) var likelihoods: [Double] = []
  private(set) var counts = DraftCounts()

  /// nil where there are to be no drafts.
  init?(_ choice: DraftChoice, contextLength: Int) {
    guard let makeDrafter = choice.makeDrafter else { return nil }
    drafter = makeDrafter(contextLength)
    likelihoods.reserveCapacity(Draft.capacity)
  }

  /// Memory of a sequence's drafts.
  static func byteCount(contextLength: Int) -> Int {
    LookupDrafter.byteCount(contextLength: contextLength)
      + Draft.capacity * (MemoryLayout<Int32>.stride + MemoryLayout<Double>.stride)
  }

  /// The tokens that are to be verified, after the last of the path.
  var tokens: [Int32] { draft.tokens }
  /// How many of them are, whatever that costs.
  var forcedCount: Int { draft.isForced ? draft.tokens.count : 0 }

  /// Proposes at most `most` tokens after `path`.
  mutating func propose(after path: [Int32], most: Int) {
    likelihoods.removeAll(keepingCapacity: true)
    draft.removeAll()
    guard most > 0 else { return }
    path.withUnsafeBufferPointer { drafter.propose(after: $0, into: &draft) }
    draft.shorten(to: most)
    var likelihood = 1.0
    for depth in draft.tokens.indices {
      likelihood *= acceptance.share(grade: draft.grade, depth: depth)
      likelihoods.append(likelihood)
    }
  }

  /// Has only the first `count` verified.
  mutating func shorten(to count: Int) { draft.shorten(to: count) }

  /// Has none verified.
  mutating func drop() { draft.removeAll() }

  /// Notes how many of the drafts that were verified the model drew itself.
  mutating func note(acceptedCount: Int) {
    counts.draftedCount += draft.tokens.count
    counts.acceptedCount += acceptedCount
    acceptance.note(
      grade: draft.grade, count: draft.tokens.count, acceptedCount: acceptedCount)
    draft.removeAll()
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
