import Glibc

/// Processor time of this thread that one piece of work may take.
///
/// It stops what no count of steps foresees; what is sound never comes near it. Time that other threads or
/// programs take does not count.
package final class TimeLimit {
  private var allowed: Int
  /// Processor time at the first tick of the clock; nil before it.
  private var start: Int?
  private var tick = TimeLimit.now(CLOCK_MONOTONIC_COARSE)

  package init(nanoseconds: Int) {
    allowed = nanoseconds
  }

  /// Adds to what is allowed.
  package func allow(nanoseconds: Int) {
    let (sum, overflow) = allowed.addingReportingOverflow(nanoseconds)
    allowed = overflow ? Int.max : sum
  }

  /// Whether it is used up.
  package var isOver: Bool {
    // The coarse clock costs a few nanoseconds to read, the processor's time some hundred.
    let tick = Self.now(CLOCK_MONOTONIC_COARSE)
    guard tick != self.tick else { return false }
    self.tick = tick
    let now = Self.now(CLOCK_THREAD_CPUTIME_ID)
    guard let start else {
      start = now
      return false
    }
    return now - start > allowed
  }

  private static func now(_ clock: clockid_t) -> Int {
    var time = timespec()
    clock_gettime(clock, &time)
    return time.tv_sec * 1_000_000_000 + time.tv_nsec
  }
}
