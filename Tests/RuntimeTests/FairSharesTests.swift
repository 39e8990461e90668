import Runtime
import TensorBasics
import TestSupport
import Testing

/// Whose turn it is, in a model of an engine that computes a row for every place at a time: nothing here looks at a clock.
@Suite struct FairSharesTests {
  private struct Request {
    var client: String
    var rows: Int
    var priority = 0
    var startRowCount = 0
  }

  private struct Rig {
    var shares = FairShares()
    let placeCount: Int
    var waiting: [Request] = []
    var running: [Request] = []
    /// Clients and priorities in the order in which they got a place.
    var begun: [(client: String, priority: Int, rowCount: Int)] = []

    init(placeCount: Int) { self.placeCount = placeCount }

    mutating func ask(_ client: String, rows: Int, priority: Int = 0, count: Int = 1) {
      for _ in 0..<count {
        waiting.append(
          Request(
            client: client, rows: rows, priority: priority, startRowCount: shares.rowCount))
        shares.note(client, waiting: 1)
      }
    }

    mutating func sweep() {
      while running.count < placeCount, !waiting.isEmpty {
        let claims = waiting.map {
          FairShares.Claim(
            client: $0.client, priority: $0.priority, startRowCount: $0.startRowCount)
        }
        let next = waiting.remove(at: shares.order(claims, countsPlaces: true)[0])
        shares.note(next.client, places: 1)
        shares.note(next.client, waiting: -1)
        begun.append((next.client, next.priority, shares.rowCount))
        running.append(next)
      }
      for index in running.indices {
        running[index].rows -= 1
        shares.charge(running[index].client, rows: 1)
      }
      for done in running where done.rows == 0 { shares.note(done.client, places: -1) }
      running.removeAll { $0.rows == 0 }
      shares.settle()
    }

    func rows(_ client: String) -> Int {
      shares.clients.first { $0.name == client }?.rowCount ?? 0
    }
  }

  @Test func `One client with 200 requests does not keep another from its turn`() {
    var rig = Rig(placeCount: 2)
    rig.ask("many", rows: 100, count: 200)
    for _ in 0..<150 { rig.sweep() }
    let before = rig.begun.count
    rig.ask("one", rows: 100)
    while !rig.begun.contains(where: { $0.client == "one" }) { rig.sweep() }
    // Two places become free at a time, and they are level.
    let turn = rig.begun.firstIndex { $0.client == "one" } ?? .max
    #expect(turn <= before + 1)
  }

  @Test func `Rows are shared equally, whatever the number and length of requests`() {
    var rig = Rig(placeCount: 4)
    rig.ask("short", rows: 10, count: 2000)
    rig.ask("long", rows: 400, count: 100)
    rig.ask("middle", rows: 50, count: 400)
    for _ in 0..<6000 { rig.sweep() }
    // As far as the rows of what is under way may part them.
    for client in ["short", "long", "middle"] {
      #expect((7200...8800).contains(rig.rows(client)), "\(rig.shares.clients)")
    }
  }

  @Test func `Who was alone owes nothing, and who was away has saved nothing`() {
    var rig = Rig(placeCount: 1)
    rig.ask("first", rows: 10, count: 400)
    for _ in 0..<2000 { rig.sweep() }
    rig.ask("second", rows: 10, count: 400)
    for _ in 0..<1000 { rig.sweep() }
    #expect(abs(rig.rows("first") - 2000 - rig.rows("second")) <= 20)
    // One that had a turn long ago is level with the others.
    var other = Rig(placeCount: 1)
    other.ask("away", rows: 1)
    other.ask("here", rows: 10, count: 400)
    for _ in 0..<1001 { other.sweep() }
    other.ask("away", rows: 10, count: 400)
    for _ in 0..<1000 { other.sweep() }
    #expect(abs(other.rows("away") - 500) <= 80, "\(other.shares.clients)")
    // Where nobody asked in between, it begins anew.
    var idle = Rig(placeCount: 1)
    idle.ask("early", rows: 1000)
    idle.ask("late", rows: 1)
    for _ in 0..<1001 { idle.sweep() }
    #expect(idle.running.isEmpty)
    idle.ask("early", rows: 10, count: 100)
    idle.ask("late", rows: 10, count: 100)
    for _ in 0..<1000 { idle.sweep() }
    #expect(abs(idle.rows("early") - 1000 - (idle.rows("late") - 1)) <= 20)
  }

  @Test func `What stands back comes after the others, and within a bound`() {
    var rig = Rig(placeCount: 1)
    rig.ask("a", rows: 10, priority: 2)
    rig.ask("a", rows: 10, priority: 1)
    rig.ask("a", rows: 10, priority: 1)
    rig.ask("a", rows: 10)
    for _ in 0..<40 { rig.sweep() }
    #expect(rig.begun.map(\.priority) == [0, 1, 1, 2])
    // Others come as fast as they are answered, and do not keep it for ever.
    rig.ask("a", rows: 10, priority: 1)
    let start = rig.shares.rowCount
    while rig.waiting.contains(where: { $0.priority == 1 }) {
      rig.ask("a", rows: 10)
      rig.sweep()
    }
    let waited = rig.begun.last { $0.priority == 1 }.map { $0.rowCount - start } ?? .max
    #expect(waited >= FairShares.priorityRowCount)
    #expect(waited <= FairShares.priorityRowCount + 10)
  }

  @Test func `A client's order is its own: another that comes first does not stand back for it`() {
    var shares = FairShares()
    for client in ["a", "b"] { shares.note(client, waiting: 2) }
    let claims = [("a", 3), ("a", 0), ("b", 1), ("b", 0)].map {
      FairShares.Claim(client: $0.0, priority: $0.1)
    }
    #expect(shares.order(claims, countsPlaces: true) == [1, 3, 2, 0])
    #expect(shares.order(claims, countsPlaces: false) == [1, 3, 2, 0])
  }

  @Test func `Random clients are never further apart than what they have under way`() {
    for seed in 0..<20 as Range<UInt64> {
      var generator = SeededGenerator(seed: seed)
      var rig = Rig(placeCount: Int.random(in: 1...6, using: &generator))
      let names = (0..<Int.random(in: 2...5, using: &generator)).map { "client \($0)" }
      for _ in 0..<3000 {
        // All of them always want something.
        for name in names where rig.waiting.count(where: { $0.client == name }) < 8 {
          rig.ask(name, rows: Int.random(in: 1...120, using: &generator))
        }
        rig.sweep()
      }
      let rows = names.map(rig.rows)
      let bound = 120 * (rig.placeCount + 1) + FairShares.placeRowCount
      #expect(rows.max()! - rows.min()! <= bound, "seed \(seed): \(rows)")
    }
  }

  @Test func `Clients that ask for nothing are forgotten when there are many`() {
    var shares = FairShares()
    shares.note("stays", waiting: 1)
    for number in 0..<5000 {
      shares.note("\(number)", waiting: 1)
      shares.note("\(number)", waiting: -1)
    }
    #expect(shares.clients.count <= 1025)
    #expect(shares.clients.contains { $0.name == "stays" })
  }
}
