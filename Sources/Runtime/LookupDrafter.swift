/// Proposes what followed the last time that the context ended like this (prompt lookup, as in "Inference with
/// Reference", arXiv:2304.04487 §3).
///
/// Where the context's last tokens occurred before is found as deflate finds its matches: positions with the same hash of
/// their last two tokens are chained, the latest first. The longest match counts, of equal ones the latest. A match that
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

  /// - Parameter contextLength: most tokens of a path.
  package init(contextLength: Int) { previous.reserveCapacity(contextLength + 1) }

  /// Memory of a drafter.
  static func byteCount(contextLength: Int) -> Int {
    MemoryLayout<Int32>.stride * ((1 << hashBitCount) + contextLength + 1)
  }

  package func propose(after path: UnsafeBufferPointer<Int32>, into draft: inout Draft) {
    guard path.count > 2 else { return }
    index(path)
    guard let (end, length) = longestMatch(path) else { return }
    draft.grade = DraftAcceptance.grade(matchLength: length)
    for index in 0..<Draft.capacity {
      let source = end + index
      draft.append(source < path.count ? path[source] : draft.tokens[source - path.count])
    }
  }

  /// Takes in the positions that it does not know yet, but the last, which is looked for.
  private func index(_ path: UnsafeBufferPointer<Int32>) {
    while previous.count < path.count {
      let position = previous.count
      guard position >= 2 else {
        previous.append(0)
        continue
      }
      let hash = Self.hash(path[position - 2], path[position - 1])
      previous.append(latest[hash])
      latest[hash] = Int32(position)
    }
  }

  /// Where the longest match ends, before the path's end, and its length.
  private func longestMatch(_ path: UnsafeBufferPointer<Int32>) -> (end: Int, length: Int)? {
    var (best, bestLength) = (0, 1)
    var candidate = Int(latest[Self.hash(path[path.count - 2], path[path.count - 1])])
    for _ in 0..<Self.mostCandidates where candidate > 0 {
      var length = 0
      while length < min(candidate, Self.longestMatch),
        path[candidate - 1 - length] == path[path.count - 1 - length]
      {
        length += 1
      }
      if length > bestLength { (best, bestLength) = (candidate, length) }
      if length == Self.longestMatch { break }
      candidate = Int(previous[candidate])
    }
    return bestLength > 1 ? (best, bestLength) : nil
  }

  private static func hash(_ first: Int32, _ second: Int32) -> Int {
    let mixed =
      (UInt32(bitPattern: first) &* 0x9E37_79B1) ^ (UInt32(bitPattern: second) &* 0x85EB_CA77)
    return Int(((mixed ^ (mixed >> 15)) &* 0x2C1B_3C6D) >> UInt32(32 - hashBitCount))
  }
}
