import Synchronization
import TensorBasics

/// How far long work has come, for people.
///
/// On a terminal it is a line that is drawn again several times a second, from 0.3 s on, and that is gone
/// before anything else is printed; elsewhere it is a line every ten seconds. `--quiet` silences both. What is
/// shown is the work that began last. Of an answer's tokens (``Unit/step``) only those are shown that take long.
public final class Progress: Sendable {
  /// What is counted.
  public enum Unit: Sendable {
    case bytes
    /// Things of a name, in the plural.
    case count(String)
    /// Time itself: work that takes as long as it was given, in milliseconds.
    case milliseconds
    /// Nothing: how much there is to do is not known.
    case unknown
    /// Bytes that one step reads, of work in many steps that ``Progress/restart()`` tells apart: what is shown is a
    /// step of more than two seconds.
    case step
  }

  let title: String
  private let unit: Unit
  private let total: Int
  private let start = Atomic(monotonicNanoseconds())
  private let done = Atomic(0)

  private init(_ title: String, total: Int, unit: Unit) {
    self.title = title
    self.unit = unit
    self.total = max(1, total)
  }

  /// Begins to show work.
  ///
  /// - Parameter title: what is being done, as `reading the prompt`.
  public static func begin(_ title: String, total: Int = 0, unit: Unit = .unknown) -> Progress {
    let progress = Progress(title, total: total, unit: unit)
    ProgressLine.show(progress)
    return progress
  }

  /// Shows `work` while it runs.
  public static func showing<Result>(
    _ title: String, total: Int = 0, unit: Unit = .unknown,
    _ work: (_ progress: Progress) throws -> Result
  ) rethrows -> Result {
    let progress = begin(title, total: total, unit: unit)
    defer { progress.finish() }
    return try work(progress)
  }

  /// Says how much is done of the total; may be called as often as one likes.
  public func update(_ count: Int) {
    done.store(count, ordering: .relaxed)
    ProgressLine.advance()
  }

  /// Says what share is done of the total.
  public func update(fraction: Double) { update(Int(fraction * Double(total))) }

  /// Begins the next step.
  public func restart() {
    start.store(monotonicNanoseconds(), ordering: .relaxed)
    done.store(0, ordering: .relaxed)
  }

  /// Takes the line away.
  public func finish() { ProgressLine.hide(self) }

  /// A file's name without its folders, for a title.
  public static func name(_ path: String) -> String {
    path.split(separator: "/").last.map(String.init) ?? path
  }

  var startNanoseconds: Int { start.load(ordering: .relaxed) }
  var elapsedNanoseconds: Int { monotonicNanoseconds() - startNanoseconds }

  /// Whether the work is a step that has not taken long yet.
  var isShortStep: Bool {
    guard case .step = unit else { return false }
    return elapsedNanoseconds < Self.longStepNanoseconds
  }

  private static let longStepNanoseconds = 2_000_000_000

  // MARK: What it says

  private static let mostCells = 20
  private static let leastCells = 6

  /// The line on a terminal that is `columnCount` characters wide.
  func drawing(columnCount: Int) -> String {
    let text = description
    // A line that wraps cannot be taken back.
    let room = columnCount - 1
    switch unit {
    case .unknown, .step: return String(text.prefix(room))
    case .bytes, .count, .milliseconds: break
    }
    let cellCount = min(Self.mostCells, room - text.count - 1)
    guard cellCount >= Self.leastCells else { return String(text.prefix(room)) }
    let filled = Int(fraction * Double(cellCount))
    return String(repeating: "█", count: filled)
      + String(repeating: "░", count: cellCount - filled) + " " + text
  }

  /// The line for a file.
  var description: String {
    let (done, seconds) = (done.load(ordering: .relaxed), Double(elapsedNanoseconds) / 1e9)
    let left = timeLeft.map { ", \(Self.time($0)) left" } ?? ""
    switch unit {
    case .unknown: return "\(title), \(Self.time(seconds))"
    case .step: return "\(title): \(Self.time(seconds)), \(ByteCount(done)) read"
    case .milliseconds: return "\(title)\(left)"
    case .bytes:
      return "\(title): \(ByteCount(done)) of \(ByteCount(total)), "
        + "\(ByteCount(Int(Double(done) / seconds)))/s\(left)"
    case .count(let name) where done == 0:
      return "\(title): \(total) \(name), \(Self.time(seconds))"
    case .count(let name):
      return "\(title): \(done) of \(total) \(name), "
        + "\(Self.digits(Double(done) / seconds)) \(name)/s\(left)"
    }
  }

  private var fraction: Double {
    if case .milliseconds = unit {
      return min(1, Double(elapsedNanoseconds) / 1e6 / Double(total))
    }
    return max(0, min(1, Double(done.load(ordering: .relaxed)) / Double(total)))
  }

  /// Seconds; nil where nothing is done yet.
  private var timeLeft: Double? {
    let fraction = fraction
    guard fraction > 0 else { return nil }
    return Double(elapsedNanoseconds) / 1e9 * (1 / fraction - 1)
  }

  static func time(_ seconds: Double) -> String {
    let seconds = Int(seconds.rounded())
    guard seconds >= 60 else { return "\(seconds) s" }
    guard seconds >= 3600 else { return "\(seconds / 60) min \(seconds % 60) s" }
    return "\(seconds / 3600) h \(seconds % 3600 / 60) min"
  }

  /// Three significant digits.
  private static func digits(_ value: Double) -> String {
    guard value < 100 else { return "\(Int(value.rounded()))" }
    let factor = value < 10 ? 100.0 : 10.0
    return "\((value * factor).rounded() / factor)"
  }
}
