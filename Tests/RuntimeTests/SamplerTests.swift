import Glibc
import Runtime
import TensorBasics
import Testing

@Suite struct SamplerTests {
  private func sample(_ logits: [Float], _ options: SamplingOptions, observing: [Int32] = [])
    -> Int32
  {
    var sampler = Sampler(options: options, vocabularyCount: logits.count)
    for token in observing { sampler.observe(token) }
    var logits = logits
    return logits.withUnsafeMutableBufferPointer { sampler.sample($0) }
  }

  @Test func greedyTakesTheLowestIdOfATie() {
    #expect(sample([1, 3, 3, 2], SamplingOptions(temperature: 0)) == 1)
  }

  @Test func topKOfOneIsGreedy() {
    for seed in UInt64(0)..<20 {
      #expect(sample([1, 3, 3, 2], SamplingOptions(temperature: 5, topK: 1, seed: seed)) == 1)
    }
  }

  @Test func equalSeedsDrawEqualTokens() {
    var generator = SeededGenerator(seed: 3)
    let logits = (0..<1000).map { _ in Float(generator.nextUnit() * 8) }
    for seed in UInt64(0)..<20 {
      let options = SamplingOptions(temperature: 1, topK: 0, topP: 1, minP: 0, seed: seed)
      #expect(sample(logits, options) == sample(logits, options))
    }
  }

  @Test func drawsFollowTheProbabilities() {
    let logits: [Float] = [0, 1, 2, 3]
    var sampler = Sampler(
      options: SamplingOptions(temperature: 1, topK: 0, topP: 1, minP: 0, seed: 11),
      vocabularyCount: 4)
    var counts = [0, 0, 0, 0]
    for _ in 0..<20_000 {
      var copy = logits
      counts[Int(copy.withUnsafeMutableBufferPointer { sampler.sample($0) })] += 1
    }
    let expected = [0.0321, 0.0871, 0.2369, 0.6439]
    for (count, share) in zip(counts, expected) {
      #expect(abs(Double(count) / 20_000 - share) < 0.015)
    }
  }

  @Test func topPAndMinPCutTheTail() {
    let logits: [Float] = [5, 4.9, 0, -1, -20]
    for seed in UInt64(0)..<50 {
      #expect(
        sample(logits, SamplingOptions(temperature: 9, topK: 0, topP: 0.9, minP: 0, seed: seed)) < 2
      )
      #expect(
        sample(logits, SamplingOptions(temperature: 9, topK: 0, topP: 1, minP: 0.5, seed: seed)) < 2
      )
    }
  }

  @Test func repetitionIsPenalisedOncePerToken() {
    let options = SamplingOptions(temperature: 0, repetitionPenalty: 2)
    #expect(sample([3, 2, -1], options, observing: [0, 0, 0]) == 1)
    #expect(sample([3, 1.4, -1], options, observing: [0, 0, 0]) == 0)
  }

  @Test func logProbabilitiesAreNormalisedAndOrdered() {
    let logits: [Float] = (0..<500).map { Float(($0 * 7919) % 500) / 50 }
    logits.withUnsafeBufferPointer { buffer in
      let all = LogProbabilities.top(500, of: buffer)
      #expect(abs(all.reduce(0) { $0 + exp($1.logProbability) } - 1) < 1e-9)
      let few = LogProbabilities.top(5, of: buffer)
      #expect(few.map(\.token) == all.prefix(5).map(\.token))
    }
  }
}
