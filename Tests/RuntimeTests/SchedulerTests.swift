import Runtime
import Testing

/// How many tokens of prompts a sweep reads beside answers.
@Suite struct SchedulerTests {
  /// A sweep of n rows: so long where the drive is the limit, then in proportion to them.
  private func nanoseconds(_ rowCount: Int) -> Int { max(900_000_000, 30_000_000 * rowCount) }

  private func learned(by rows: [Int]) -> Scheduler {
    var scheduler = Scheduler(rowCapacity: 512, chunkLength: 512)
    for count in rows { scheduler.note(rowCount: count, nanoseconds: nanoseconds(count)) }
    return scheduler
  }

  @Test func `Prompts have all room while nobody answers, the oldest first`() {
    let scheduler = Scheduler(rowCapacity: 100, chunkLength: 60)
    #expect(scheduler.shares(of: [20, 500, 30, 4], beside: 0) == [20, 60, 20, 0])
  }

  @Test func `A sweep with prompts is at most twice as long as one without`() {
    for answerCount in [1, 8, 20] {
      var scheduler = Scheduler(rowCapacity: 512, chunkLength: 512)
      var last = 0
      for _ in 0..<40 {
        let count = answerCount + scheduler.promptRowCount(beside: answerCount)
        if last > 0 { #expect(count <= 2 * last + 13) }
        last = count
        scheduler.note(rowCount: count, nanoseconds: nanoseconds(count))
        scheduler.note(rowCount: answerCount, nanoseconds: nanoseconds(answerCount))
      }
      #expect(nanoseconds(last) <= 21 * nanoseconds(answerCount) / 10)
      #expect(nanoseconds(last) >= 3 * nanoseconds(answerCount) / 2)
    }
  }

  @Test func `Prompts get their least, however slow they are`() {
    var scheduler = learned(by: [])
    for count in [1, 4, 12, 16, 24, 64] {
      scheduler.note(rowCount: count, nanoseconds: count * 1_000_000)
    }
    #expect(scheduler.promptRowCount(beside: 1) == 12)
    #expect(scheduler.promptRowCount(beside: 30) == 18)
    #expect(Scheduler(rowCapacity: 4, chunkLength: 4).shares(of: [9, 9], beside: 3) == [1, 0])
  }

  @Test func `Times are what was measured, and lines between`() {
    var times = SweepTimes()
    #expect(times[3] == nil)
    times.note(rowCount: 8, nanoseconds: 100)
    times.note(rowCount: 16, nanoseconds: 200)
    #expect(times[1] == 100 && times[8] == 100 && times[12] == 150 && times[32] == 400)
    #expect(times.mostRows(within: 150) == 12)
    #expect(times.mostRows(within: 250) == 32)
    #expect(times.mostRows(within: 50) == 0)
    times.note(rowCount: 8, nanoseconds: 50)
    #expect(times[8] == 75)
  }
}
