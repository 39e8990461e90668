import TensorBasics

/// A drive that has not answered for some seconds, and what is waited for.
public struct Stall: Sendable, CustomStringConvertible {
  public let path: String
  /// Of the read or write that is needed first, in bytes.
  public let offset: Int
  public let byteCount: Int
  /// What lies there: a tensor's name, or the layer that keys and values are of.
  public let tensorName: String
  public let readsInFlight: Int
  /// How long none has completed.
  public let seconds: Int

  public init(
    path: String, offset: Int, byteCount: Int, tensorName: String, readsInFlight: Int,
    seconds: Int
  ) {
    self.path = path
    self.offset = offset
    self.byteCount = byteCount
    self.tensorName = tensorName
    self.readsInFlight = readsInFlight
    self.seconds = seconds
  }

  public var description: String {
    "\(path): the drive has not answered for \(seconds) s: \(ByteCount(byteCount)) at byte "
      + "\(offset) ('\(tensorName)'); \(readsInFlight) reads in flight"
  }
}

/// The steps in which all waits for a drive are made, and when a wait has lasted long enough to be reported.
///
/// Steps are short, so that a request to stop is noticed within a tenth of a second. A wait is reported after two
/// seconds, then whenever it has doubled.
public struct StallWatch: Sendable {
  private var start: Int?
  private var nextNanoseconds = Self.firstNanoseconds
  private static let firstNanoseconds = 2_000_000_000

  /// The longest sleep between looks at a `TensorBasics.CancellationFlag`; a signal ends it at once.
  public static let stepMilliseconds = 100

  public init() {}

  /// Takes one completion of `device`, sleeping one step at most; nil if none came.
  ///
  /// - Parameter report: called with the seconds waited, when it is time to report them.
  public mutating func step(
    _ device: any BlockDevice, report: (_ seconds: Int) -> Void
  ) throws(BlockIOError) -> ReadCompletion? {
    let completion = try device.reap(waiting: true, timeoutMilliseconds: Self.stepMilliseconds)
    note(isDone: completion != nil, report: report)
    return completion
  }

  /// Notes the end of a step, with or without a completion.
  public mutating func note(isDone: Bool, report: (_ seconds: Int) -> Void) {
    note(isDone: isDone, at: monotonicNanoseconds(), report: report)
  }

  /// As ``note(isDone:report:)``, at a time of the test's own.
  package mutating func note(isDone: Bool, at now: Int, report: (_ seconds: Int) -> Void) {
    if isDone {
      reset()
    } else if let seconds = secondsToReport(at: now) {
      report(seconds)
    }
  }

  /// Called when a step ended without a completion; the seconds waited, when it is time to report them.
  private mutating func secondsToReport(at now: Int) -> Int? {
    guard let start else {
      // The first step began that long ago.
      self.start = now - Self.stepMilliseconds * 1_000_000
      return nil
    }
    guard now - start >= nextNanoseconds else { return nil }
    nextNanoseconds *= 2
    return (now - start) / 1_000_000_000
  }

  /// Something completed.
  private mutating func reset() {
    guard start != nil else { return }
    self = StallWatch()
  }
}
