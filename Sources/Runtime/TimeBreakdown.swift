import Glibc
import TensorBasics

/// Where the time of a session's steps went, as the coordinating thread saw it.
///
/// The parts do not overlap: while the drive is waited for nothing computes, and what a region's other
/// threads do is inside the coordinator's own time. What is in no part is the rest: planning, submitting
/// reads, and the code between the steps.
public struct TimeBreakdown: Sendable {
  public enum Part: Int, CaseIterable, Sendable {
    /// Waiting for the drive.
    case drive
    /// Products with weights, the making of their int8 activations included.
    case products
    case attention
    /// Embedding rows, norms, RoPE, storing keys and values, activations (of experts with the int8 form of
    /// them), residuals.
    case elementwise
  }

  private var nanoseconds = [4 of Int](repeating: 0)

  public init() {}

  /// Nanoseconds of `part`.
  public subscript(part: Part) -> Int {
    get { nanoseconds[part.rawValue] }
    set { nanoseconds[part.rawValue] = newValue }
  }

  public static func + (left: TimeBreakdown, right: TimeBreakdown) -> TimeBreakdown {
    var result = left
    for part in Part.allCases { result[part] += right[part] }
    return result
  }

  public static func - (left: TimeBreakdown, right: TimeBreakdown) -> TimeBreakdown {
    var result = left
    for part in Part.allCases { result[part] -= right[part] }
    return result
  }
}

/// The clock that a decoder's parts share.
final class StepClock {
  private(set) var times = TimeBreakdown()

  /// Performs `work` and counts its time as `part`.
  func measure<Failure: Error>(
    _ part: TimeBreakdown.Part, _ work: () throws(Failure) -> Void
  ) throws(Failure) {
    let start = monotonicNanoseconds()
    try work()
    times[part] += monotonicNanoseconds() - start
  }
}
