import Glibc
import TensorBasics
import Testing

@Suite struct BufferTests {
  @Test(arguments: [0, 1, 4095, 4096, 4097, 1 << 20])
  func `A buffer is whole pages of zeros`(byteCount: Int) throws {
    let buffer = try AlignedBuffer(byteCount: byteCount)
    #expect(buffer.byteCount >= byteCount && buffer.byteCount % AlignedBuffer.pageByteCount == 0)
    #expect(Int(bitPattern: buffer.address) % AlignedBuffer.pageByteCount == 0)
    #expect(buffer.bytes.allSatisfy { $0 == 0 })
    #expect(buffer.elements(of: UInt32.self).count == buffer.byteCount / 4)
  }

  @Test func `Memory that the system does not give is an error that says how much`() {
    #expect(throws: AllocationError.self) { _ = try AlignedBuffer(byteCount: 1 << 60) }
    do { _ = try AlignedBuffer(byteCount: 1 << 60) } catch {
      #expect(error.byteCount == 1 << 60 && error.description.contains("1048576 TiB"))
    }
  }

  @Test func `Memory that the kernel may still write to is kept wherever it lies in a buffer`()
    throws
  {
    let pageByteCount = AlignedBuffer.pageByteCount
    // Whether the buffer's pages are mapped once it is gone, where that range of it is kept.
    func staysMapped(keeping range: Range<Int>) throws -> Bool {
      let address: UnsafeMutableRawPointer
      do {
        let buffer = try AlignedBuffer(byteCount: 4 * pageByteCount)
        address = buffer.address
        AbandonedMemory.keep(UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[range]))
      }
      // Refused where one of the pages is not mapped.
      return msync(address, 4 * pageByteCount, MS_ASYNC) == 0
    }
    for range in [
      0..<4 * pageByteCount, 0..<1, pageByteCount..<2 * pageByteCount,
      4 * pageByteCount - 1..<4 * pageByteCount,
    ] { #expect(try staysMapped(keeping: range), "\(range)") }
  }

  @Test func `Packed strings are bytes: composed and decomposed letters are two`() {
    var strings = PackedStrings()
    let parts: [[UInt8]] = [
      Array("é".utf8), Array("e\u{301}".utf8), [], [0xFF, 0], Array("é".utf8),
    ]
    for part in parts { strings.append(part) }
    #expect(strings.count == parts.count)
    for (index, part) in parts.enumerated() { #expect(Array(strings[index]) == part) }
    #expect(strings.offsets.last == UInt32(strings.bytes.count))
  }

  @Test func `The seeded generator is SplitMix64`() {
    // The first numbers of seed 1234567, as its authors' program prints them.
    var generator = SeededGenerator(seed: 1_234_567)
    let expected: [UInt64] = [
      6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423,
      4_593_380_528_125_082_431, 16_408_922_859_458_223_821,
    ]
    #expect(expected.map { _ in generator.next() } == expected)
    for _ in 0..<1000 { #expect((0..<1).contains(generator.nextUnit())) }
  }

  @Test func `A raised flag stays raised until it is lowered`() {
    let flag = CancellationFlag()
    #expect(!flag.isRaised)
    flag.raise()
    flag.raise()
    #expect(flag.isRaised)
    flag.lower()
    #expect(!flag.isRaised)
  }
}
