import BlockIO
import TensorBasics
import Testing

@Suite struct ReadPlanTests {
  @Test func `Every extent is covered, aligned, merged where it is near`() {
    for seed in UInt64(0)..<200 {
      var generator = SeededGenerator(seed: seed)
      let extents = (0..<Int.random(in: 0...30, using: &generator)).map { _ in
        Extent(
          fileIndex: Int.random(in: 0...1, using: &generator),
          offset: Int.random(in: 0..<200_000, using: &generator),
          byteCount: Int.random(in: 0...20_000, using: &generator))
      }
      let plan = ReadPlan(
        extents, alignment: 4096, maximumByteCount: 32768,
        maximumGapByteCount: Int.random(in: 0...8192, using: &generator))
      for read in plan.reads {
        #expect(read.range.offset % 4096 == 0 && read.range.byteCount % 4096 == 0)
        #expect(read.range.byteCount <= 32768, "seed \(seed)")
      }
      for (index, extent) in plan.extents.enumerated() {
        let bytes = plan.reads.filter { $0.extents.contains(index) }.reduce(0) { sum, read in
          sum
            + max(
              0, min(read.range.endOffset, extent.endOffset) - max(read.range.offset, extent.offset)
            )
        }
        #expect(bytes == extent.byteCount, "seed \(seed), \(extent)")
      }
      #expect(plan.amplification >= 1)
    }
  }
}
