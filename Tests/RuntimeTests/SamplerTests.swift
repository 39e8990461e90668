import Glibc
import Runtime
import TensorBasics
import Testing

@Suite struct SamplerTests {
  private func draw(
    _ logits: [Float], _ options: SamplingOptions, history: [Int32] = [], position: Int = 0
  ) -> Int32 {
    var sampler = Sampler(options: options, vocabularyCount: logits.count)
    return sampler.draw(logits.span, history: history.span, position: position)
  }

  /// Without filters.
  private func plain(
    temperature: Float = 1, seed: UInt64 = 0, stream: UInt32 = 0
  ) -> SamplingOptions {
    SamplingOptions(
      temperature: temperature, topK: 0, topP: 1, minP: 0, seed: seed, stream: stream)
  }

  // MARK: Which token

  /// Computed by a program of its own, in another language; seed, stream, then tokens of twelve positions.
  @Test(
    arguments: [
      (0, 0, [9, 4, 2, 4, 11, 2, 9, 9, 13, 4, 4, 4]),
      (7, 0, [10, 9, 11, 12, 2, 9, 2, 11, 2, 9, 11, 11]),
      (7, 1, [2, 9, 9, 2, 4, 9, 4, 10, 2, 2, 6, 9]),
      (0x8000_0000_0000_0005, 0, [6, 4, 11, 2, 4, 9, 4, 9, 11, 11, 13, 11]),
    ] as [(UInt64, UInt32, [Int32])])
  func `Draws are these`(seed: UInt64, stream: UInt32, expected: [Int32]) {
    let logits = (0..<16).map { Float($0 * 7 % 16) / 4 - 1 }
    var options = plain(temperature: 0.75, seed: seed, stream: stream)
    #expect((100..<112).map { draw(logits, options, position: $0) } == expected)
    // Filters leave 2, 4, 6, 9, 11 and 13; those that had been drawn are drawn again.
    (options.topK, options.topP, options.minP) = (8, 0.875, 0.03125)
    for (position, token) in zip(100..<112, expected) {
      let filtered = draw(logits, options, position: position)
      #expect([2, 4, 6, 9, 11, 13].contains(filtered))
      #expect(filtered == token || [10, 12].contains(token))
    }
  }

  /// A tokenizer may be longer or shorter than the model's table of embeddings.
  @Test(arguments: [0, 1, 63, 900, 1001, 5000], [0, 5, 40])
  func `A sampler for another number of tokens draws the same ones`(count: Int, topK: Int) {
    var options = plain(temperature: 0.9, seed: 5)
    options.topK = topK
    for penalty: Float in [1, 1.5] {
      options.repetitionPenalty = penalty
      for sign: Float in [1, -1] {
        let logits = (0..<1000).map { sign * Float(1 + $0 * 7 % 1000) / 100 }
        let history: [Int32] = [999, 3, 4999]
        var sampler = Sampler(options: options, vocabularyCount: count)
        for position in 0..<20 {
          #expect(
            sampler.draw(logits.span, history: history.span, position: position)
              == draw(logits, options, history: history, position: position))
        }
      }
    }
  }

  // MARK: Before the filters

  @Test func `A bias is added, and penalties are subtracted by what the answer has`() {
    var generator = SeededGenerator(seed: 0x1B)
    for _ in 0..<200 {
      let logits = (0..<64).map { _ in Float.random(in: -4...4, using: &generator) }
      let history = (0..<20).map { _ in Int32.random(in: 0..<64, using: &generator) }
      let start = Int.random(in: 0...20, using: &generator)
      var options = plain(seed: generator.next())
      (options.topK, options.minP) = (10, 0.01)
      options.repetitionPenalty = [1, 1.5].randomElement(using: &generator)!
      options.presencePenalty = [0, 0.75, -1].randomElement(using: &generator)!
      options.frequencyPenalty = [0, 0.5].randomElement(using: &generator)!
      options.logitBias = [3, 9, 9, 70, -1].map { TokenBias(token: $0, bias: 1.5) }
      var expected = logits
      expected[3] += 1.5
      expected[9] += 1.5
      expected[9] += 1.5
      for token in Set(history).map(Int.init) where options.repetitionPenalty != 1 {
        let logit = expected[token]
        expected[token] = logit > 0 ? logit / 1.5 : logit * 1.5
      }
      for token in Set(history[start...]) {
        let count = history[start...].count { $0 == token }
        expected[Int(token)] -= options.presencePenalty + options.frequencyPenalty * Float(count)
      }
      var sampler = Sampler(options: options, vocabularyCount: 64)
      for position in 20..<24 {
        let drawn = sampler.draw(
          logits.span, history: history.span, position: position, answerStart: start)
        #expect(drawn == NaiveSampler(options: options).draw(expected, position: position))
      }
    }
  }

  @Test func `Greedy takes the lowest id of a tie`() {
    #expect(draw([1, 3, 3, 2], SamplingOptions(temperature: 0)) == 1)
    let equal: [Float] = [-1, -.infinity, -1]
    #expect(Sampler.argmax(equal.span) == 0)
  }

  @Test func `A low temperature is greedy`() {
    for seed in UInt64(0)..<50 {
      #expect(draw([1, 3, 2.5, 2], plain(temperature: 0.001, seed: seed)) == 1)
      // So low that noise is lost: the lowest id of a tie.
      #expect(draw([1, 3, 3, 2], plain(temperature: 1e-30, seed: seed)) == 1)
      #expect(draw([1, 3, 2.5, 2], plain(temperature: .leastNonzeroMagnitude, seed: seed)) == 1)
    }
  }

  @Test func `Top-k of one is greedy`() {
    for seed in UInt64(0)..<20 {
      #expect(draw([1, 3, 3, 2], SamplingOptions(temperature: 5, topK: 1, seed: seed)) == 1)
    }
  }

  @Test func `Filters cut the tail`() {
    let logits: [Float] = [5, 4.9, 0, -1, -20]
    for position in 0..<50 {
      var options = plain(temperature: 9)
      options.topP = 0.9
      #expect(draw(logits, options, position: position) < 2)
      (options.topP, options.minP) = (1, 0.5)
      #expect(draw(logits, options, position: position) < 2)
      (options.minP, options.topK) = (0, 2)
      #expect(draw(logits, options, position: position) < 2)
    }
  }

  @Test func `What must not be drawn is not, and without any token the answer is 0`() {
    let logits: [Float] = [-.infinity, 1, .nan, -.infinity, 0, -.infinity]
    var (drawn, all) = (Set<Int32>(), plain(temperature: 20))
    for position in 0..<200 {
      drawn.insert(draw(logits, all, position: position))
      (all.topK, all.topP, all.minP) =
        [(0, 1, 0), (4, 1, 0), (0, 0.999, 0), (5, 0.999, 0.001)][
          position % 4]
    }
    #expect(drawn == [1, 4])
    #expect(draw([-.infinity, -.infinity], plain()) == 0 && draw([.nan, .nan], plain()) == 0)
    for topK in 0..<3 {
      let options = SamplingOptions(temperature: 1, topK: topK, topP: 0.5, minP: 0.5)
      #expect(draw([-.infinity, -.infinity, -.infinity], options) == 0)
    }
  }

  // MARK: Penalty

  @Test func `Repetition is penalised once per token`() {
    let options = SamplingOptions(temperature: 0, repetitionPenalty: 2)
    #expect(draw([3, 2, -1], options, history: [0, 0, 0]) == 1)
    #expect(draw([3, 1.4, -1], options, history: [0, 0, 0]) == 0)
    #expect(draw([-3, -1, -1.5], options, history: [1, 9, -1]) == 2)
  }

  @Test func `Only the end of the path counts as recent`() {
    var options = SamplingOptions(temperature: 0, repetitionPenalty: 2, repetitionWindow: 2)
    #expect(draw([3, 2, -1], options, history: [0, 2, 2]) == 0)
    #expect(draw([3, 2, -1], options, history: [2, 0, 2]) == 1)
    options.repetitionWindow = 0
    #expect(draw([3, 2, -1], options, history: [0, 0]) == 0)
  }

  // MARK: A function of its arguments

  @Test func `The order of calls changes nothing`() {
    var generator = SeededGenerator(seed: 3)
    let rows = (0..<8).map { _ in (0..<700).map { _ in Float(generator.nextUnit() * 8) } }
    var options = plain(seed: 5)
    options.repetitionPenalty = 1.5
    for (topK, topP, minP) in [(0, 1, 0), (40, 0.9, 0.01), (0, 0.8, 0)] as [(Int, Float, Float)] {
      (options.topK, options.topP, options.minP) = (topK, topP, minP)
      var calls = (0..<64).map { (row: $0 % 8, position: $0 * 31, history: [Int32($0), 3]) }
      func tokens(_ sampler: inout Sampler) -> [Int: Int32] {
        var tokens: [Int: Int32] = [:]
        for (row, position, history) in calls {
          let logits = rows[row]
          tokens[position] = sampler.draw(
            logits.span, history: history.span, position: position)
        }
        return tokens
      }
      var sampler = Sampler(options: options, vocabularyCount: 700)
      let expected = tokens(&sampler)
      for _ in 0..<3 {
        calls.shuffle(using: &generator)
        #expect(tokens(&sampler) == expected)
      }
      for call in calls {
        let token = draw(rows[call.row], options, history: call.history, position: call.position)
        #expect(token == expected[call.position])
      }
    }
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
