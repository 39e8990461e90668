import BlockIO
import Testing

/// When a drive that does not answer is spoken of.
@Suite struct StallTests {
  /// The seconds told of in `seconds` of waiting from `start` on, a step at a time.
  private func reports(_ watch: inout StallWatch, from start: Int, seconds: Int) -> [Int] {
    var reports: [Int] = []
    let step = StallWatch.stepMilliseconds
    for milliseconds in stride(from: step, through: seconds * 1000, by: step) {
      watch.note(isDone: false, at: (start * 1000 + milliseconds) * 1_000_000) {
        reports.append($0)
      }
    }
    return reports
  }

  @Test func `A wait is told of after two seconds, then whenever it has doubled`() {
    var watch = StallWatch()
    #expect(reports(&watch, from: 5, seconds: 40) == [2, 4, 8, 16, 32])
    // Whatever completes ends the wait; the next is another.
    watch.note(isDone: true, at: 45_000_000_000) { _ in Issue.record("told of no wait") }
    #expect(reports(&watch, from: 1000, seconds: 1) == [])
    watch.note(isDone: true, at: 1_001_000_000_000) { _ in Issue.record("told of no wait") }
    #expect(reports(&watch, from: 2000, seconds: 9) == [2, 4, 8])
  }
}
