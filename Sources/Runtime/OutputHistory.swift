/// The tokens of the latest answers of all sequences, in which lookup finds what was said before (the history of
/// "Inference with Reference", arXiv:2304.04487 §3).
///
/// A ring: the oldest are overwritten. Positions with the same hash of their last two tokens are chained, the latest first.
/// One thread uses it.
package final class OutputHistory {
  static let hashBitCount = 12
  /// Ends each answer; no token.
  private static let separator: Int32 = -1

  /// [capacity], of which `count` were ever written.
  private var tokens: [Int32]
  private var count = 0
  /// The latest position after which a hash's two tokens end, and of each position the one before it with the same hash, as
  /// counted from the first token ever; 0 = none.
  private var latest = [Int32](repeating: 0, count: 1 << hashBitCount)
  private var previous: [Int32]

  /// - Parameter capacity: tokens that it holds.
  package init(capacity: Int = usualCapacity) {
    tokens = Array(repeating: Self.separator, count: capacity)
    previous = Array(repeating: 0, count: capacity)
  }

  package static let usualCapacity = 1 << 14

  /// Memory of a history.
  static let byteCount = 8 * usualCapacity + 4 << hashBitCount

  /// Takes in an answer.
  package func append(_ answer: some Sequence<Int32>) {
    // Positions are of 32 bits.
    if count > Int(Int32.max) - 2 * tokens.count { removeAll() }
    for token in answer { append(token) }
    append(Self.separator)
  }

  private func append(_ token: Int32) {
    let place = count % tokens.count
    tokens[place] = token
    count += 1
    previous[place] = 0
    guard count > 1, token >= 0, self.token(at: count - 2) >= 0 else { return }
    let hash = LookupDrafter.hash(self.token(at: count - 2), token)
    previous[place] = latest[hash]
    latest[hash] = Int32(count)
  }

  private func removeAll() {
    count = 0
    for index in latest.indices { latest[index] = 0 }
    for index in tokens.indices { (tokens[index], previous[index]) = (Self.separator, 0) }
  }

  private func token(at position: Int) -> Int32 { tokens[position % tokens.count] }

  /// Positions that may follow what ends in two tokens, the latest first.
  func candidates(after hash: Int) -> Int { Int(latest[hash]) }

  func candidate(before position: Int) -> Int {
    isKept(position - 1) ? Int(previous[(position - 1) % tokens.count]) : 0
  }

  /// The token at a position; nil where an answer ends or it was overwritten.
  func known(at position: Int) -> Int32? {
    guard isKept(position) else { return nil }
    let token = token(at: position)
    return token >= 0 ? token : nil
  }

  private func isKept(_ position: Int) -> Bool {
    position >= 0 && position < count && position >= count - tokens.count
  }
}
