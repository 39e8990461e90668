import KVCache
import WeightLoader

// The boundary between weights and keys and values moves at the edges of sweeps (`docs/decisions/0050`).
extension EngineCore {
  /// Memory that is lent, or taken back, at least.
  ///
  /// Each time some is taken back, what was read ahead is read again, which is a ring of staging memory.
  static func leastLoan(_ request: MemoryPlan.Request, _ plan: KeyValuePlan) -> Int {
    max(request.leastLoanByteCount, plan.retainedByteCount / loanShare)
  }

  private static let loanShare = 16

  /// Before a sweep: lends weights what keys and values will not need in it, and takes back what they may need.
  func lend() throws(RuntimeError) {
    guard stream.borrowableByteCount > 0 else { return }
    let needed = neededByteCount
    try takeBack(needed)
    let spare = keyValues.unusedByteCount - needed
    guard spare >= 2 * leastLoan, stream.borrowedByteCount < stream.borrowableByteCount else {
      return
    }
    try borrow(keyValues.lentByteCount + spare - leastLoan)
  }

  /// What the batch's sequences may come to take in the sweep.
  private var neededByteCount: Int {
    batch.spans.reduce(0) { $0 + $1.cache.growth($1.positions) }
  }

  /// Whether the sweep has a use for memory that sequences outside of the batch have: its own need it, or weights.
  var hasUseOfMemory: Bool {
    stream.borrowedByteCount < stream.borrowableByteCount
      || keyValues.unusedByteCount < neededByteCount
  }

  /// Whether another sequence has a place, and room to begin.
  var hasRoomForSequence: Bool {
    freeSequenceCount > 0
      && keyValues.unusedByteCount + keyValues.lentByteCount >= keyValues.openingByteCount
  }

  /// Makes so much memory free for keys and values, or as much as there is, before they need it.
  func takeBack(_ needed: Int) throws(RuntimeError) {
    let (unused, lent) = (keyValues.unusedByteCount, keyValues.lentByteCount)
    guard lent > 0, unused < needed else { return }
    do {
      try decoder.expectNothing()
      try borrow(max(0, lent - (needed - unused) - leastLoan))
    } catch {
      abandon()
      throw error
    }
  }

  private func borrow(_ byteCount: Int) throws(RuntimeError) {
    do { keyValues.lend(try stream.borrow(byteCount)) } catch { throw RuntimeError(error) }
  }
}
