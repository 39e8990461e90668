import TensorBasics

/// The end of a bounded or unbounded sleep.
struct Deadline {
  private let nanoseconds: Int?

  init(timeoutMilliseconds: Int?) {
    nanoseconds = timeoutMilliseconds.map {
      monotonicNanoseconds() + min(max($0, 0), 1 << 31) * 1_000_000
    }
  }

  /// Time left, at least zero; nil if there is no end.
  var remainingNanoseconds: Int? {
    nanoseconds.map { max(0, $0 - monotonicNanoseconds()) }
  }
}
