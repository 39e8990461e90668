import BlockIO
import TensorBasics
import Testing

@Suite struct StripeLayoutTests {
  @Test func `Every byte lies at one place, and members have no gaps`() {
    for memberCount in 1...4 {
      for unitByteCount in 1...5 {
        for byteCount in 0...43 {
          let layout = StripeLayout(
            unitByteCount: unitByteCount, memberCount: memberCount, headerByteCount: 3,
            byteCount: byteCount)
          var ends = [Int](repeating: 3, count: memberCount)
          for offset in 0..<byteCount {
            let place = layout.part(at: offset, limit: 1)
            #expect(place.fileIndex == offset / unitByteCount % memberCount)
            #expect(place.offset == ends[place.fileIndex], "\(layout), byte \(offset)")
            ends[place.fileIndex] += 1
          }
          #expect(ends == (0..<memberCount).map(layout.memberByteCount), "\(layout)")
          // What is past the end lies past the end of every member too.
          for offset in byteCount..<byteCount + 20 {
            let place = layout.part(at: offset, limit: 1)
            #expect(place.offset >= layout.memberByteCount(place.fileIndex))
          }
        }
      }
    }
  }

  @Test func `Longer parts are the bytes one by one`() {
    for memberCount in 1...3 {
      let layout = StripeLayout(
        unitByteCount: 4, memberCount: memberCount, headerByteCount: 8, byteCount: 50)
      for offset in 0..<50 {
        for limit in 1...20 {
          let part = layout.part(at: offset, limit: limit)
          #expect(part.byteCount <= limit && part.byteCount > 0)
          for step in 0..<part.byteCount {
            let byte = layout.part(at: offset + step, limit: 1)
            #expect(byte.fileIndex == part.fileIndex && byte.offset == part.offset + step)
          }
          // The longest: one more byte is elsewhere, or was not wanted.
          if part.byteCount < limit {
            let next = layout.part(at: offset + part.byteCount, limit: 1)
            #expect(next.fileIndex != part.fileIndex || next.offset != part.offset + part.byteCount)
          }
        }
      }
    }
  }

  @Test func `A mirrored read is cut in nearly equal, aligned parts, and small ones are not`() {
    for seed in UInt64(0)..<2000 {
      var generator = SeededGenerator(seed: seed)
      let copyCount = Int.random(in: 1...5, using: &generator)
      let mapping = ReadMapping.mirror(copyCount: copyCount, byteCounts: [1 << 30])
      let offset = Int.random(in: 0...1000, using: &generator) * 4096
      let byteCount = Int.random(in: 1...600, using: &generator) * 4096
      var lengths: [Int] = []
      var position = 0
      while position < byteCount {
        let part = mapping.part(at: position, offset: offset, byteCount: byteCount)
        #expect(part.fileIndex == nil && part.offset == offset + position)
        #expect(part.offset % 4096 == 0 && part.byteCount > 0)
        lengths.append(part.byteCount)
        position += part.byteCount
      }
      #expect(position == byteCount)
      let smallest = ReadMapping.smallestPartByteCount
      #expect(lengths.count == min(copyCount, max(1, byteCount / smallest)), "seed \(seed)")
      if lengths.count > 1, let least = lengths.min(), let most = lengths.max() {
        #expect(least >= smallest - 4096 && most - least <= 2 * 4096, "seed \(seed): \(lengths)")
      }
    }
  }
}
