/// Proposes what followed the last time that the context ended like this (prompt lookup, as in "Inference with
/// Reference", arXiv:2304.04487 §3).
///
/// Where the context's last tokens occurred before is found as deflate finds its matches: positions with the same hash of
/// their last two tokens are chained, the latest first. The longest match counts, of equal ones the latest; where there is
/// none of two tokens, the latest place of the last one. A match that
/// reaches the context's end goes on with what is proposed, so that a period is continued.
package final class LookupDrafter: Drafter {
  private static let hashBitCount = 12
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

  /// - Parameters:
  ///   - contextLength: most tokens of a path.
  ///   - leastMatch: tokens of the shortest match that is of use.
  package init(contextLength: Int, leastMatch: Int = 1) {
    self.leastMatch = leastMatch
    previous.reserveCapacity(contextLength + 1)
  }

  /// Memory of a drafter.
  static func byteCount(contextLength: Int) -> Int {
    MemoryLayout<Int32>.stride * ((2 << hashBitCount) + contextLength + 1)
  }

  package func propose(after context: DraftContext, into draft: inout Draft) {
    context.path.withUnsafeBufferPointer { propose(after: $0, into: &draft) }
  }

  private func propose(after path: UnsafeBufferPointer<Int32>, into draft: inout Draft) {
    guard path.count > 1 else { return }
    index(path)
    guard let (end, length) = longestMatch(path), length >= leastMatch else { return }
    let grade = DraftAcceptance.grade(matchLength: length)
    while draft.wantsMore {
      let source = end + draft.tokens.count
      draft.append(
        source < path.count ? path[source] : draft.tokens[source - path.count], grade: grade)
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

  /// Where the longest match ends, before the path's end, and its length.
  private func longestMatch(_ path: UnsafeBufferPointer<Int32>) -> (end: Int, length: Int)? {
    var (best, bestLength) = (0, 0)
    var candidate = Int(latest[Self.hash(path[path.count - 2], path[path.count - 1])])
    for _ in 0..<Self.mostCandidates where candidate > 0 {
      var length = 0
      while length < min(candidate, Self.longestMatch),
        path[candidate - 1 - length] == path[path.count - 1 - length]
      {
        length += 1
      }
      if length > max(1, bestLength) { (best, bestLength) = (candidate, length) }
      if length == Self.longestMatch { break }
      candidate = Int(previous[candidate])
    }
    guard bestLength == 0 else { return (best, bestLength) }
    let single = Int(latestOfOne[Self.hash(path[path.count - 1], 0)])
    return single > 0 && path[single - 1] == path[path.count - 1] ? (single, 1) : nil
  }

  private static func hash(_ first: Int32, _ second: Int32) -> Int {
    let mixed =
      (UInt32(bitPattern: first) &* 0x9E37_79B1) ^ (UInt32(bitPattern: second) &* 0x85EB_CA77)
    return Int(((mixed ^ (mixed >> 15)) &* 0x2C1B_3C6D) >> UInt32(32 - hashBitCount))
  }
}
