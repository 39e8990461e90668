/// Proposes what followed the last time that the context ended like this (prompt lookup, as in "Inference with
/// Reference", arXiv:2304.04487 §3), in the context itself and in earlier answers, and what the model took for likely
/// the last time that it came to the same tokens (``TokenSuccessors``).
///
/// Where the context's last tokens occurred before is found as deflate finds its matches: positions with the same hash of
/// their last two tokens are chained, the latest first. The longest match counts, of equal ones the latest, and one in the
/// context before one in an answer; where there is none of two tokens, the latest place of the last one. A match that
/// reaches the context's end goes on with what is proposed, so that a period is continued. All of it makes one tree, the
/// likeliest first.
package final class LookupDrafter: Drafter {
  private static let hashBitCount = OutputHistory.hashBitCount
  /// Earlier places that are compared with the end.
  private static let mostCandidates = 48
  /// Tokens that a match is followed back.
  private static let longestMatch = 32

  /// The latest position of each hash, after which its two tokens end, and of each position the one before it with the
  /// same hash; 0 = none.
  private var latest = [Int32](repeating: 0, count: 1 << hashBitCount)
  private var previous: [Int32] = []
  /// As ``latest``, of one token.
  private var latestOfOne = [Int32](repeating: 0, count: 1 << hashBitCount)
  /// The least match that it goes on from.
  private let leastMatch: Int
  package let recycles: Bool
  private let memory: DraftMemory?
  /// The longest matches of different next tokens, the longest first.
  private var matches: [Match] = []

  /// Where the context's end occurred before.
  private struct Match {
    var isInHistory: Bool
    /// Position of what followed.
    var end: Int
    var length: Int
    var next: Int32
  }
  /// Next tokens of matches that are proposed beside one another.
  static let mostMatches = 3

  private var frontier = DraftFrontier()

  /// - Parameters:
  ///   - contextLength: most tokens of a path.
  ///   - leastMatch: tokens of the shortest match that is of use.
  ///   - recycles: whether what the model took for likely before is proposed.
  ///   - memory: what is known of all answers; nil = nothing.
  package init(
    contextLength: Int, leastMatch: Int = 1, recycles: Bool = true, memory: DraftMemory? = nil
  ) {
    (self.leastMatch, self.recycles) = (leastMatch, recycles)
    self.memory = memory
    matches.reserveCapacity(Self.mostMatches + 1)
    previous.reserveCapacity(contextLength + 1)
  }

  /// Memory of a drafter.
  static func byteCount(contextLength: Int) -> Int {
    MemoryLayout<Int32>.stride * ((2 << hashBitCount) + contextLength + 1)
      + DraftFrontier.byteCount
  }

  package func propose(after context: DraftContext, into draft: inout Draft) {
    context.path.withUnsafeBufferPointer { propose(after: $0, into: &draft) }
  }

  private func propose(after path: UnsafeBufferPointer<Int32>, into draft: inout Draft) {
    guard path.count > 1 else { return }
    index(path)
    findMatches(path)
    frontier.removeAll()
    for (number, match) in matches.enumerated() where match.length >= leastMatch {
      frontier.insert(
        DraftFrontier.Candidate(
          token: match.next, parent: -1, grade: DraftAcceptance.grade(matchLength: match.length),
          rank: number, match: (number, match.end)), of: draft)
    }
    insertSuccessors(of: -1, path, draft)
    while draft.hasRoom, let next = frontier.takeLikeliest() {
      let newNode = draft.tokens.count
      guard
        let node = draft.append(
          next.token, after: next.parent, grade: next.grade, rank: next.rank),
        draft.wantsMore(after: node)
      else { continue }
      if let (number, position) = next.match {
        proceed(matches[number], number, to: position + 1, node, path, draft)
      }
      if node == newNode { insertSuccessors(of: node, path, draft) }
    }
  }

  /// Has what followed a match further on follow a node.
  private func proceed(
    _ match: Match, _ number: Int, to position: Int, _ node: Int,
    _ path: UnsafeBufferPointer<Int32>, _ draft: Draft
  ) {
    let token: Int32
    if match.isInHistory {
      guard let known = memory?.history.known(at: position) else { return }
      token = known
    } else {
      token =
        position < path.count
        ? path[position] : draft.token(at: position - path.count, onPathTo: node)
    }
    frontier.insert(
      DraftFrontier.Candidate(
        token: token, parent: node, grade: DraftAcceptance.grade(matchLength: match.length),
        match: (number, position)), of: draft)
  }

  /// Has what the model took for likely after a node's token before follow it.
  private func insertSuccessors(
    of node: Int, _ path: UnsafeBufferPointer<Int32>, _ draft: Draft
  ) {
    guard recycles, let successors = memory?.successors else { return }
    let (before, last) = draft.lastTwo(of: path, upTo: node)
    if let row = successors.row(after: before, last) { insert(row, isInContext: true, node, draft) }
    if let row = successors.row(after: last) { insert(row, isInContext: false, node, draft) }
  }

  private func insert(
    _ row: TokenSuccessors.Row, isInContext: Bool, _ node: Int, _ draft: Draft
  ) {
    for place in 0..<TokenSuccessors.width {
      guard let (token, grade) = row[place] else { return }
      frontier.insert(
        DraftFrontier.Candidate(
          token: token, parent: node,
          grade: DraftAcceptance.grade(successor: grade, isInContext: isInContext)), of: draft)
    }
  }

  /// Takes in the positions that it does not know yet, but the last, which is looked for.
  private func index(_ path: UnsafeBufferPointer<Int32>) {
    while previous.count < path.count {
      let position = previous.count
      var before: Int32 = 0
      if position > 0 { latestOfOne[Self.hash(path[position - 1], 0)] = Int32(position) }
      if position > 1 {
        let hash = Self.hash(path[position - 2], path[position - 1])
        before = latest[hash]
        latest[hash] = Int32(position)
      }
      previous.append(before)
    }
  }

  private func findMatches(_ path: UnsafeBufferPointer<Int32>) {
    matches.removeAll(keepingCapacity: true)
    let hash = Self.hash(path[path.count - 2], path[path.count - 1])
    var candidate = Int(latest[hash])
    for _ in 0..<Self.mostCandidates where candidate > 0 {
      note(
        Match(
          isInHistory: false, end: candidate,
          length: length(path) { $0 <= candidate ? path[candidate - $0] : nil },
          next: path[candidate]))
      candidate = Int(previous[candidate])
    }
    if let history = memory?.history {
      candidate = history.candidates(after: hash)
      for _ in 0..<Self.mostCandidates where candidate > 0 {
        if let next = history.known(at: candidate) {
          note(
            Match(
              isInHistory: true, end: candidate,
              length: length(path) { history.known(at: candidate - $0) }, next: next))
        }
        candidate = history.candidate(before: candidate)
      }
    }
    guard matches.isEmpty else { return }
    let single = Int(latestOfOne[Self.hash(path[path.count - 1], 0)])
    guard single > 0, path[single - 1] == path[path.count - 1] else { return }
    matches.append(Match(isInHistory: false, end: single, length: 1, next: path[single]))
  }

  /// Tokens of the path's end that lie before a place.
  ///
  /// - Parameter before: the token so many before the place, from 1 on; nil where there is none.
  private func length(
    _ path: UnsafeBufferPointer<Int32>, _ before: (_ distance: Int) -> Int32?
  ) -> Int {
    var length = 0
    while length < Self.longestMatch, length < path.count,
      before(length + 1) == path[path.count - 1 - length]
    {
      length += 1
    }
    return length
  }

  /// Takes a match in where it is among the longest of its kind.
  private func note(_ match: Match) {
    // Shorter ones are of other tokens with the same hash.
    guard match.length > 1 else { return }
    if let known = matches.firstIndex(where: { $0.next == match.next }) {
      guard matches[known].length < match.length else { return }
      matches.remove(at: known)
    }
    matches.insert(
      match, at: matches.firstIndex { $0.length < match.length } ?? matches.count)
    if matches.count > Self.mostMatches { matches.removeLast() }
  }

  static func hash(_ first: Int32, _ second: Int32, bitCount: Int = hashBitCount) -> Int {
    let mixed =
      (UInt32(bitPattern: first) &* 0x9E37_79B1) ^ (UInt32(bitPattern: second) &* 0x85EB_CA77)
    return Int(((mixed ^ (mixed >> 15)) &* 0x2C1B_3C6D) >> UInt32(32 - bitCount))
  }
}
