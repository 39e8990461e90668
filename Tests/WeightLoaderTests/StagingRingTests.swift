import TensorBasics
import Testing
import WeightLoader

@Suite struct StagingRingTests {
  @Test func handsOutDisjointRangesUntilItIsFull() {
    var ring = StagingRing(byteCount: 100, capacity: 8)
    #expect(ring.allocate(40) == 0)
    #expect(ring.allocate(40) == 40)
    #expect(ring.allocate(40) == nil)
    #expect(ring.allocate(20) == 80)
    #expect(ring.allocate(1) == nil)
  }

  @Test func wrapsBehindTheOldestRange() {
    var ring = StagingRing(byteCount: 100, capacity: 8)
    #expect(ring.allocate(60) == 0)
    #expect(ring.allocate(30) == 60)
    ring.releaseOldest()
    #expect(ring.allocate(50) == 0)
    #expect(ring.allocate(20) == nil)
    ring.releaseOldest()
    ring.releaseOldest()
    #expect(ring.allocate(100) == 0)
  }

  @Test func neverHandsOutAByteTwice() {
    for seed in UInt64(0)..<200 {
      var generator = SeededGenerator(seed: seed)
      let size = Int.random(in: 1...300, using: &generator)
      var ring = StagingRing(byteCount: size, capacity: 16)
      var live: [Range<Int>] = []
      for _ in 0..<500 {
        if Bool.random(using: &generator), !live.isEmpty {
          live.removeFirst()
          ring.releaseOldest()
        } else {
          let length = Int.random(in: 1...size, using: &generator)
          guard let start = ring.allocate(length) else {
            #expect(!live.isEmpty, "an empty ring refused \(length) of \(size) (seed \(seed))")
            continue
          }
          let range = start..<start + length
          #expect(range.upperBound <= size, "seed \(seed)")
          #expect(!live.contains { $0.overlaps(range) }, "seed \(seed)")
          live.append(range)
        }
      }
    }
  }
}
