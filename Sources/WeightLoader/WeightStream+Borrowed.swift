import Glibc
import TensorBasics

// Streamed runs stay in memory that somebody else has no use for at the time (`docs/decisions/0050`).
extension WeightStream {
  /// Memory from which huge pages serve it, of which the last may reach beyond what is borrowed.
  static var hugePagesByteCount: Int { 64 << 20 }
  private var hugePageByteCount: Int {
    plan.borrowableByteCount >= Self.hugePagesByteCount ? 2 << 20 : 0
  }

  /// Most memory that may be borrowed.
  public var borrowableByteCount: Int {
    plan.borrowableByteCount + (plan.borrowers.isEmpty ? 0 : hugePageByteCount)
      + (bundles?.borrowableByteCount ?? 0)
  }

  /// Memory that is borrowed.
  public var borrowedByteCount: Int {
    byteCount(borrowers: borrowerCount) + (bundles?.borrowedByteCount ?? 0)
  }

  /// Has as many streamed runs stay in memory as `byteCount` bytes hold, and once those are all, bundles in what is left.
  ///
  /// The runs come with the next sweeps that read them. What had room before and has none any more is forgotten; its memory is
  /// free when this returns.
  ///
  /// - Returns: bytes that are borrowed from here on, `byteCount` at most.
  /// - Precondition: to give something back, no sweep is announced, and no piece or bundle held.
  /// - Throws: ``LoaderError/io(_:)``; ``LoaderError/interrupted``, where reads into what is to be given back are
  ///   waited for: nothing is given back then.
  @discardableResult
  public func borrow(_ byteCount: Int) throws(LoaderError) -> Int {
    if byteCount < borrowedByteCount { try settleForReturn() }
    var count = borrowerCount
    while count < plan.borrowers.count, self.byteCount(borrowers: count + 1) <= byteCount {
      count += 1
    }
    while count > 0, self.byteCount(borrowers: count) > byteCount { count -= 1 }
    if count < borrowerCount {
      giveBack(plan.borrowers[count..<borrowerCount])
    } else {
      place(plan.borrowers[borrowerCount..<count])
    }
    borrowerCount = count
    // Only once all runs have room, so that what bundles have never shrinks while more is borrowed.
    let isComplete = count == plan.borrowers.count
    bundles?.borrow(isComplete ? byteCount - self.byteCount(borrowers: count) : 0)
    return borrowedByteCount
  }

  /// Memory of the first so many borrowers.
  private func byteCount(borrowers count: Int) -> Int {
    count == 0 ? 0 : endOfBorrowers(count) + hugePageByteCount
  }

  /// Where the memory of the first `count` borrowers ends.
  private func endOfBorrowers(_ count: Int) -> Int {
    guard count > 0 else { return 0 }
    let run = plan.runs[plan.borrowers[count - 1]]
    return (run.borrowedOffset ?? 0) + run.byteCount
  }

  /// Gives runs a place; those of the first time while another thread commits its memory.
  private func place(_ borrowers: ArraySlice<Int>) {
    guard let last = borrowers.indices.last else { return }
    for run in borrowers { hasPlace[run] = true }
    guard borrowedPopulation == nil else { return }
    borrowedPopulation = PagePrefaulter(
      UnsafeMutableRawBufferPointer(start: borrowed.address, count: endOfBorrowers(last + 1)))
  }

  /// Waits for reads that may go where memory is given back.
  private func settleForReturn() throws(LoaderError) {
    try settleAbandoned()
    precondition(
      sweeps.isEmpty && firstSequence == nextSequence, "a sweep may need what is given back")
    while device.inFlight > 0 { try reapOne(for: .rest) }
    // It commits what was borrowed at first.
    borrowedPopulation?.stop()
  }

  private func giveBack(_ borrowers: ArraySlice<Int>) {
    for index in borrowers {
      if placedReady[index] { placedReadyCount -= 1 }
      (hasPlace[index], placedSubmitted[index], placedReady[index]) = (false, false, false)
      isHomeCompared[index] = rereads == nil
      let run = plan.runs[index]
      for piece in run.pieces { layouts[piece] = plan.pieces[piece].layout }
      madvise(borrowed.address + (run.borrowedOffset ?? 0), run.byteCount, MADV_DONTNEED)
    }
  }
}
