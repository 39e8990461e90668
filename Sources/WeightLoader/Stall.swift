import TensorBasics

/// A drive that has not answered for some seconds, and what is waited for.
public struct Stall: Sendable, CustomStringConvertible {
  public let path: String
  /// Of the read that is needed first, in bytes.
  public let offset: Int
  public let byteCount: Int
  public let tensorName: String
  public let readsInFlight: Int
  /// How long no read has completed.
  public let seconds: Int

  public var description: String {
    "\(path): waiting for the drive since \(seconds) s, for \(ByteCount(byteCount)) at byte "
      + "\(offset) ('\(tensorName)'); \(readsInFlight) reads under way"
  }
}

/// Decides when a wait has lasted long enough to be spoken of: after two seconds, then whenever it has
/// doubled.
struct StallWatch {
  private var start: Int?
  private var nextNanoseconds = Self.firstNanoseconds
  private static let firstNanoseconds = 2_000_000_000

  /// Called when a wait ended without a completion; the seconds waited, where it is time to say so.
  mutating func secondsToReport(at now: Int = monotonicNanoseconds()) -> Int? {
    guard let start else {
      // Waits are cut into tenths of a second: this one began that long ago.
      self.start = now - 100_000_000
      return nil
    }
    guard now - start >= nextNanoseconds else { return nil }
    nextNanoseconds *= 2
    return (now - start) / 1_000_000_000
  }

  /// A read completed.
  mutating func reset() {
    guard start != nil else { return }
    self = StallWatch()
  }
}
