/// Decides how many tokens of prompts a sweep reads beside the rows of answers.
///
/// Every answer has its row. Prompts get as many as keep a sweep within 1.6 times the time that the answers' rows take alone:
/// those late in a long prompt take longer than what was measured, and none should take twice that time. They get at least
/// twelve and a quarter of that, and all there is room for while nobody answers. What is chosen never changes a result, so it
/// may depend on time.
package struct Scheduler {
  private var times = SweepTimes()
  private let rowCapacity: Int
  private let chunkLength: Int

  /// Longest sweep with tokens of prompts ÷ sweep with those of answers alone.
  private static let slowdown = 1.6
  private static let leastPromptRowCount = 12
  private static let promptShare = 4

  /// - Parameters:
  ///   - rowCapacity: most rows of a sweep.
  ///   - chunkLength: most of one prompt.
  package init(rowCapacity: Int, chunkLength: Int) {
    self.rowCapacity = rowCapacity
    self.chunkLength = chunkLength
  }

  /// Notes how long a sweep took.
  package mutating func note(rowCount: Int, nanoseconds: Int) {
    times.note(rowCount: rowCount, nanoseconds: Double(nanoseconds))
  }

  /// How many tokens a sweep reads of each prompt.
  ///
  /// - Parameters:
  ///   - unread: tokens of each that are to be read, in the order of their turns.
  ///   - answerCount: rows of answers in the sweep.
  package func shares(of unread: [Int], beside answerCount: Int) -> [Int] {
    var left = promptRowCount(beside: answerCount)
    return unread.map { count in
      let share = min(count, left, chunkLength)
      left -= share
      return share
    }
  }

  /// Rows for prompts beside those of answers.
  package func promptRowCount(beside answerCount: Int) -> Int {
    let room = rowCapacity - answerCount
    guard answerCount > 0 else { return room }
    var target = answerCount
    if let alone = times[answerCount] {
      target = max(target, times.mostRows(within: Self.slowdown * alone))
    }
    let least = max(Self.leastPromptRowCount, target / Self.promptShare)
    return min(room, max(least, target - answerCount))
  }
}

/// How long sweeps take by their number of rows, as measured: moving averages, with lines between them.
package struct SweepTimes {
  private static let bounds = [1, 4, 8, 12, 16, 24, 32, 48, 64, 128, 256, 512]
  /// Of sweeps up to each bound, and beyond the last.
  private var points = [Point?](repeating: nil, count: bounds.count + 1)

  private struct Point {
    var rowCount: Double
    var nanoseconds: Double
  }

  package init() {}

  package mutating func note(rowCount: Int, nanoseconds: Double) {
    let index = Self.bounds.firstIndex { rowCount <= $0 } ?? Self.bounds.count
    guard let old = points[index] else {
      points[index] = Point(rowCount: Double(rowCount), nanoseconds: nanoseconds)
      return
    }
    // The first sweeps load weights: what is faster counts for more.
    let weight = nanoseconds < old.nanoseconds ? 0.5 : 0.25
    points[index] = Point(
      rowCount: old.rowCount + weight * (Double(rowCount) - old.rowCount),
      nanoseconds: old.nanoseconds + weight * (nanoseconds - old.nanoseconds))
  }

  /// Nanoseconds of a sweep of so many rows: those of the fewest that were measured at least, and beyond the most that
  /// were in proportion; nil where nothing was.
  package subscript(rowCount: Int) -> Double? {
    let count = Double(rowCount)
    var before: Point?
    for case let point? in points {
      guard point.rowCount < count else {
        guard let before else { return point.nanoseconds }
        let share = (count - before.rowCount) / (point.rowCount - before.rowCount)
        return before.nanoseconds + share * (point.nanoseconds - before.nanoseconds)
      }
      before = point
    }
    return before.map { $0.nanoseconds * count / $0.rowCount }
  }

  /// Nanoseconds of a sweep of so many rows, never fewer than of one of less.
  ///
  /// A sweep takes as long as the drive, or as computing its rows where that is longer: so it is between the rows that were
  /// measured, at most on the line between them, and beyond.
  ///
  /// - Parameters:
  ///   - rowNanoseconds: what computing a row takes; nil = it is not known.
  ///   - assumedRowShare: by what share of a sweep a row is assumed to prolong it then.
  func estimate(rowCount: Int, rowNanoseconds: Double?, assumedRowShare: Double) -> Double {
    let count = Double(rowCount)
    var before: Point?
    var longest = 0.0
    for case let point? in points {
      guard point.rowCount < count else {
        guard let before else { return point.nanoseconds }
        let share = (count - before.rowCount) / (point.rowCount - before.rowCount)
        let line = longest + share * (max(longest, point.nanoseconds) - longest)
        return rowNanoseconds.map { min(line, max(longest, count * $0)) } ?? line
      }
      before = point
      longest = max(longest, point.nanoseconds)
    }
    guard let before else { return 1 + assumedRowShare * (count - 1) }
    if let rowNanoseconds { return max(longest, count * rowNanoseconds) }
    return longest * (1 + assumedRowShare * (count - before.rowCount))
  }

  /// The most rows that take no longer than that; where nothing slower was measured, twice what was.
  package func mostRows(within nanoseconds: Double) -> Int {
    var before: Point?
    for case let point? in points {
      guard point.nanoseconds <= nanoseconds else {
        guard let before else { return 0 }
        let share = (nanoseconds - before.nanoseconds) / (point.nanoseconds - before.nanoseconds)
        return Int(before.rowCount + share * (point.rowCount - before.rowCount))
      }
      before = point
    }
    return before.map { Int(2 * $0.rowCount) } ?? 0
  }
}
