/// Keeps a device's statistics as reads come and go; every device has one.
package struct StatisticsRecorder {
  private var totals = IOStatistics()
  private var lastChangeNanoseconds = 0

  /// Reads submitted and not yet reaped.
  package private(set) var inFlight = 0

  package init() {}

  /// Counts a read submitted at `now`.
  package mutating func began(at now: Int) {
    totals = snapshot(at: now)
    lastChangeNanoseconds = now
    inFlight += 1
  }

  /// Counts a read that succeeded or failed at `now`.
  package mutating func ended(startedAt start: Int, at now: Int) {
    totals = snapshot(at: now)
    lastChangeNanoseconds = now
    inFlight -= 1
    totals.requests += 1
    totals.latency.record(nanoseconds: now - start)
  }

  /// Counts every read in flight as abandoned at `now`.
  package mutating func gaveUp(at now: Int) {
    totals = snapshot(at: now)
    lastChangeNanoseconds = now
    inFlight = 0
  }

  /// Counts bytes from the kernel.
  package mutating func received(byteCount: Int) { totals.bytesRead += byteCount }

  /// Counts reads that had to be continued or repeated.
  package mutating func retried(_ count: Int = 1) { totals.retries += count }

  /// Counts time slept.
  package mutating func waited(nanoseconds: Int) { totals.waitNanoseconds += nanoseconds }

  /// The totals, the period since the last change included.
  package func snapshot(at now: Int) -> IOStatistics {
    guard inFlight > 0 else { return totals }
    var result = totals
    result.busyNanoseconds += now - lastChangeNanoseconds
    result.depthNanoseconds += inFlight * (now - lastChangeNanoseconds)
    return result
  }
}

extension StatisticsRecorder {
  /// Counts a transfer that succeeded or failed.
  mutating func ended(_ transfer: Transfer, at now: Int) {
    received(byteCount: transfer.receivedByteCount)
    retried(transfer.retryCount)
    ended(startedAt: transfer.startNanoseconds, at: now)
  }
}
