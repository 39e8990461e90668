import CommandLineSupport
import Testing

/// Figures as people read them, and what their initialisers refuse to be.
@Suite struct FigureTests {
  @Test(
    arguments: [
      (1_601_268_933, .bytesPerSecond, "1.60 GB/s"), (522_228_592, .bytesPerSecond, "522 MB/s"),
      (0, .bytesPerSecond, "0 B/s"), (7340, .microseconds, "7.34 ms"),
      (0.0073, .seconds, "7.30 ms"),
      (2196, .milliseconds, "2.20 s"), (90.5, .seconds, "90.5 s"),
      (979_865_600, .bytes, "934.47 MiB"),
      (0.31234, .fraction, "31.2 %"), (1, .fraction, "100 %"),
      (8.3121, .tokensPerSecond, "8.31 tokens/s"),
      (400, .tokens, "400 tokens"), (1460, .number, "1460"), (-0.0025, .nats, "−0.00250 nats"),
      (1.5, .number, "1.50"), (123_456.7, .number, "123457"),
    ] as [(Double, FigureUnit, String)])
  func `Numbers are written in the multiple that shows three digits`(
    value: Double, unit: FigureUnit, text: String
  ) {
    #expect(unit.text(value) == text)
  }

  @Test func `Repetitions give the mean, its spread and how many there were`() {
    let figure = Figure(
      "loadBytesPerSecond", samples: [1e9, 2e9, 3e9], .bytesPerSecond, limit: 4e9)
    #expect(figure.value == 2e9 && figure.spread?.median == 2e9)
    #expect(figure.spread?.minimum == 1e9 && figure.spread?.maximum == 3e9)
    #expect(figure.spread?.standardDeviation == 1e9)
    #expect(figure.text == "2.00 ± 1.00 GB/s (3 times), limit 4.00 GB/s")
    #expect(Figure("x", samples: [5], .number).spread == nil)
  }

  @Test func `What is no number has a reason, whatever it came from`() {
    for figure in [
      Figure("a", .nan, .number), Figure("a", 1, dividedBy: 0, "bytes", .fraction),
      Figure("a", 0, dividedBy: 0, "bytes"), Figure("a", samples: [], .seconds),
      Figure("a", samples: [1, .infinity], .seconds),
      Figure("a", -.infinity, .bytes, absence: "none"),
    ] {
      #expect(figure.value == nil && figure.reason?.isEmpty == false)
      #expect(figure.text.hasPrefix("–"))
    }
    #expect(Figure("a", 1, .bytes, limit: .nan).limit == nil)
    #expect(Figure("a", 6, dividedBy: 2, "bytes").value == 3)
    #expect(Figure("a", 6, dividedBy: 2, "bytes").reason == nil)
  }

  @Test(arguments: [
    ("decodeTokensPerSecond", FigureUnit.tokensPerSecond, "decode"),
    ("kvBytesPerToken", .bytes, "KV bytes per token"),
    ("peakResidentBytes", .bytes, "peak resident"),
    ("bytes", .bytes, "bytes"), ("latencyP99Microseconds", .microseconds, "latency p99"),
    ("hitRate/lru", .fraction, "lru: hit rate"), ("cosine/1/8", .number, "1/8: cosine"),
    ("dramBytesPerSecond", .bytesPerSecond, "DRAM"),
  ])
  func `Labels are words, without the quantity that the unit states`(
    name: String, unit: FigureUnit, label: String
  ) {
    #expect(Figure(name, 1, unit).label == label)
  }

  @Test func `Decimals are rounded, and nothing is minus zero`() {
    #expect((0.05).fixed(1) == "0.1" && (-0.04).fixed(1) == "0.0" && (12.0).fixed(0) == "12")
    #expect((1e300).fixed(2) == "1e+300" && Double.nan.fixed(2) == "–")
    #expect((50.546057978300865).significant(4) == "50.55" && (0.0).significant(3) == "0")
  }
}
