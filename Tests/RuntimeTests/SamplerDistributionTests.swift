import Runtime
import TensorBasics
import Testing

/// Draws against the softmax, and filters against sorting.
@Suite struct SamplerDistributionTests {
  private static let logits: [Float] = [0.5, 2, -1, 2, 1.25, 0, -3, 1.75, 0.25, -0.5, 1, -6]

  /// Draws of `count` different (seed, stream, position), of which the last one changes first.
  private func draws(_ options: SamplingOptions, count: Int, seeds: Int, streams: Int) -> [Int32] {
    let positions = count / seeds / streams
    let (logits, noHistory) = (Self.logits, [Int32]())
    return (0..<seeds * streams).flatMap { run in
      var options = options
      options.seed += UInt64(run / streams)
      options.stream += UInt32(run % streams)
      var sampler = Sampler(options: options, vocabularyCount: Self.logits.count)
      return (0..<positions).map {
        sampler.draw(logits.span, history: noHistory.span, position: $0)
      }
    }
  }

  /// Σ (observed − expected)² ÷ expected; cells that are expected to be empty must be.
  private func chiSquare(_ observed: [Int], _ expected: [Double]) -> Double {
    zip(observed, expected).reduce(0) { sum, cell in
      let (count, mean) = (Double(cell.0), cell.1)
      if mean == 0 { return count == 0 ? sum : .infinity }
      return sum + (count - mean) * (count - mean) / mean
    }
  }

  /// What a statistic of `freedom` degrees of freedom exceeds about once in a million (Wilson–Hilferty).
  private func limit(_ freedom: Int) -> Double {
    let share = 2 / (9 * Double(freedom))
    let root = 1 - share + 4.75 * share.squareRoot()
    return Double(freedom) * root * root * root
  }

  @Test(
    arguments: [
      (0.3, 0, 1, 0), (0.7, 0, 1, 0), (1, 0, 1, 0), (2.5, 0, 1, 0), (1, 5, 1, 0), (1.5, 0, 0.8, 0),
      (0.7, 0, 1, 0.1), (0.7, 8, 0.9, 0.05),
    ] as [(Float, Int, Float, Float)])
  func `Draws follow the probabilities`(
    temperature: Float, topK: Int, topP: Float, minP: Float
  ) {
    let options = SamplingOptions(
      temperature: temperature, topK: topK, topP: topP, minP: minP, seed: 1000)
    let expected = NaiveSampler(options: options).probabilities(Self.logits)
    let freedom = expected.count { $0 > 0 } - 1
    // Over positions, over seeds, over streams.
    for (seeds, streams) in [(1, 1), (60_000, 1), (1, 60_000)] {
      let count = 120_000
      var observed = [Int](repeating: 0, count: expected.count)
      for token in draws(options, count: count, seeds: seeds, streams: streams) {
        observed[Int(token)] += 1
      }
      let statistic = chiSquare(observed, expected.map { $0 * Double(count) })
      #expect(statistic < limit(freedom), "\(seeds) seeds, \(streams) streams: \(observed)")
    }
  }

  @Test func `Draws of other seeds, streams and positions are independent`() {
    let options = SamplingOptions(temperature: 1, topK: 4, topP: 1, minP: 0, seed: 77)
    let shares = NaiveSampler(options: options).probabilities(Self.logits)
    let count = 120_000
    let first = draws(options, count: count, seeds: 1, streams: 1)
    let (otherSeed, otherStream) = (
      SamplingOptions(temperature: 1, topK: 4, topP: 1, minP: 0, seed: 78),
      SamplingOptions(temperature: 1, topK: 4, topP: 1, minP: 0, seed: 77, stream: 1)
    )
    let others = [
      draws(otherSeed, count: count, seeds: 1, streams: 1),
      draws(otherStream, count: count, seeds: 1, streams: 1), Array(first.dropFirst()),
    ]
    for second in others {
      var observed = [Int](repeating: 0, count: shares.count * shares.count)
      for (a, b) in zip(first, second) { observed[Int(a) * shares.count + Int(b)] += 1 }
      let expected = shares.flatMap { a in shares.map { a * $0 * Double(second.count) } }
      #expect(chiSquare(observed, expected) < limit(15))
    }
  }

  /// At a high temperature draws visit every token that is left.
  @Test(arguments: UInt64(0)..<60)
  func `Filters keep what sorting keeps`(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let count = Int.random(in: 1...4000, using: &generator)
    let hasTies = Bool.random(using: &generator)
    let logits = (0..<count).map { _ in
      generator.next() % 16 == 0
        ? -Float.infinity
        : hasTies
          ? Float(generator.next() % 9) - 4 : Float((generator.nextUnit() - 0.7) * 12)
    }
    let noHistory: [Int32] = []
    for position in 0..<40 {
      let options = SamplingOptions(
        temperature: [0.5, 1, 30].randomElement(using: &generator) ?? 1,
        topK: [0, 1, 3, 40, 200, count - 1, count].randomElement(using: &generator) ?? 0,
        topP: [1, 1e-9, 0.25, 0.5, 0.9, 0.999_999_9].randomElement(using: &generator) ?? 1,
        minP: [0, 0, 1e-4, 0.05, 0.5, 1].randomElement(using: &generator) ?? 0, seed: seed)
      var sampler = Sampler(options: options, vocabularyCount: count)
      let token = sampler.draw(logits.span, history: noHistory.span, position: position)
      let expected = NaiveSampler(options: options).draw(logits, position: position)
      #expect(token == expected, "\(options), \(count) tokens, position \(position)")
    }
  }
}
