/// Tokens that may follow nodes of a draft, of which the likeliest is taken first: best-first search, as in SpecExec
/// (arXiv:2406.02532 §4.1).
struct DraftFrontier {
  struct Candidate {
    var token: Int32
    /// The node that it may follow; −1 = the path's end.
    var parent: Int
    /// See ``DraftAcceptance``.
    var grade: Int
    var rank = 0
    /// The match that it continues, and its position there.
    var match: (number: Int, position: Int)?
    /// How likely it is reached and right.
    fileprivate(set) var likelihood = 0.0
  }

  /// What is less likely to be reached and right is no draft.
  private static let leastLikelihood = 0.01
  /// What follows each node and the path's end: successors of two kinds, and what goes on with matches.
  private static let capacity =
    (Draft.capacity + 1) * (2 * TokenSuccessors.width + LookupDrafter.mostMatches)
  /// Memory of one.
  static let byteCount = MemoryLayout<Candidate>.stride * capacity
  private var candidates: [Candidate] = []

  init() { candidates.reserveCapacity(Self.capacity) }

  mutating func removeAll() { candidates.removeAll(keepingCapacity: true) }

  /// Adds a candidate, unless it is hardly ever right.
  mutating func insert(_ candidate: Candidate, of draft: Draft) {
    var candidate = candidate
    candidate.likelihood =
      draft.likelihood(of: candidate.parent)
      * draft.share(after: candidate.parent, grade: candidate.grade, rank: candidate.rank)
    if candidate.likelihood >= Self.leastLikelihood { candidates.append(candidate) }
  }

  /// How likely the likeliest is; 0 = there is none.
  var highestLikelihood: Double { candidates.reduce(0) { max($0, $1.likelihood) } }

  /// Takes the likeliest off, of equal ones the earlier.
  mutating func takeLikeliest() -> Candidate? {
    guard var best = candidates.indices.first else { return nil }
    for index in candidates.indices
    where candidates[index].likelihood > candidates[best].likelihood {
      best = index
    }
    return candidates.remove(at: best)
  }
}
