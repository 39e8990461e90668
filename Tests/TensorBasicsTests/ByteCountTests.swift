import TensorBasics
import Testing

@Suite struct ByteCountTests {
  @Test(arguments: [
    ("0", 0), ("4096", 4096), ("200MiB", 209_715_200), ("1.5 GiB", 1_610_612_736),
    ("2g", 2_147_483_648),
    ("7kb", 7000), ("1TB", 1_000_000_000_000), ("12 b", 12), ("0.5k", 512),
  ])
  func `Counts are read as people write them`(text: String, bytes: Int) {
    #expect(ByteCount(text)?.bytes == bytes)
  }

  @Test(arguments: [
    "", "MiB", "-1", "1 2 x", "ten", "1e9", "9999999TiB", "1.2.3k", "٣k", "nan", "∞",
  ])
  func `What is no count is refused`(text: String) { #expect(ByteCount(text) == nil) }

  @Test(arguments: [
    (0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (32_505_856, "31 MiB"),
    (32_768_000, "31.25 MiB"), (1_090_519_040, "1.02 GiB"), (-2048, "-2 KiB"),
  ])
  func `Counts are written with at most two decimals`(bytes: Int, text: String) {
    #expect(ByteCount(bytes).description == text)
  }

  @Test func `What is written is read as the same, to a hundredth`() throws {
    var generator = SeededGenerator(seed: 1)
    for _ in 0..<1000 {
      let bytes = Int(generator.next() >> UInt64.random(in: 2..<63, using: &generator))
      let again = try #require(ByteCount(ByteCount(bytes).description))
      #expect(abs(Double(again.bytes - bytes)) <= Double(bytes) * 0.005, "\(bytes)")
    }
  }
}
