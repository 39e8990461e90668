import TensorBasics

/// A line on an interactive standard error that says how far long work has come; silent elsewhere.
public struct ProgressBar {
  private let total: Int
  private let start = monotonicNanoseconds()
  private var lastDrawn = 0
  private static let cellCount = 30
  private static let intervalNanoseconds = 100_000_000

  /// - Parameter total: bytes in all.
  public init(total: Int) { self.total = max(1, total) }

  /// Draws the bar at `byteCount`, at most ten times a second.
  public mutating func update(_ byteCount: Int) {
    let now = monotonicNanoseconds()
    guard Terminal.errorIsInteractive, now - lastDrawn >= Self.intervalNanoseconds else { return }
    lastDrawn = now
    let filled = min(Self.cellCount, byteCount * Self.cellCount / total)
    let bar =
      String(repeating: "█", count: filled)
      + String(repeating: "░", count: Self.cellCount - filled)
    let perSecond = Double(byteCount) * 1e9 / Double(max(1, now - start))
    Terminal.status(
      "\(bar) \(byteCount * 100 / total) % of \(ByteCount(total)), \(ByteCount(Int(perSecond)))/s")
  }

  /// Takes the bar away.
  public func finish() {
    if lastDrawn > 0 { Terminal.status("") }
  }
}
