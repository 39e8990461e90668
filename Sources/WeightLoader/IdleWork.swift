import BlockIO
import TensorBasics

/// What is done while a stream waits for the drive.
package protocol IdleWork: AnyObject {
  /// Does a part of it, unless that takes longer than the drive is busy.
  ///
  /// - Parameter nanoseconds: about how long the drive takes for what it was asked for.
  /// - Returns: whether anything was done.
  func work(within nanoseconds: Int) -> Bool
}

extension WeightStream {
  /// Waits for a piece that was asked for.
  func wait(for piece: Int) throws(LoaderError) {
    let start = monotonicNanoseconds()
    var workedNanoseconds = 0
    statistics.stalls += 1
    while !isReady(piece) {
      guard device.inFlight > 0 else { throw .notExpected(piece: piece) }
      let wanted = Wanted.run(plan.runOfPiece[piece])
      if idleWork != nil {
        if try reapOne(for: wanted, waiting: false) {
          try pump()
          continue
        }
        let start = monotonicNanoseconds()
        if workWhileReading() {
          workedNanoseconds += monotonicNanoseconds() - start
          continue
        }
      }
      try reapOne(for: wanted)
      try pump()
    }
    statistics.stallNanoseconds += monotonicNanoseconds() - start - workedNanoseconds
  }

  private func workWhileReading() -> Bool {
    let rate = device.statistics.bytesPerSecond
    guard let idleWork, rate > 0 else { return false }
    return idleWork.work(within: Int(Double(readingByteCount) / rate * 1e9))
  }
}
