import Glibc
import Kernels
import TensorBasics
import Testing

@Suite struct ScanTests {
  private static let sets = InstructionSet.allCases.filter(\.isAvailable)

  /// A head's operands for some tokens: [token][…].
  private struct Operands {
    let keyCount: Int
    let columnCount: Int
    var queries: [Float] = []
    var keys: [Float] = []
    var values: [Float] = []
    var decays: [Float] = []
    var betas: [Float] = []

    init(keyCount: Int, columnCount: Int, tokenCount: Int, seed: UInt64) {
      (self.keyCount, self.columnCount) = (keyCount, columnCount)
      var generator = SeededGenerator(seed: seed)
      func uniform() -> Float { Float(generator.nextUnit()) * 2 - 1 }
      let length = 1 / Float(keyCount).squareRoot()
      queries = (0..<tokenCount * keyCount).map { _ in uniform() * length }
      keys = (0..<tokenCount * keyCount).map { _ in uniform() * length }
      values = (0..<tokenCount * columnCount).map { _ in uniform() }
      decays = (0..<tokenCount * keyCount).map { _ in 1 - Float(generator.nextUnit()) / 4 }
      betas = (0..<tokenCount).map { _ in Float(generator.nextUnit()) }
    }

    /// Outputs of the kernel, tokens given to it in `cuts`.
    func scan(
      _ decay: LinearScan.Decay, deletes: Bool, cuts: [Int], _ set: InstructionSet? = nil
    ) -> (outputs: [Float], state: [Float]) {
      let scan = LinearScan(
        keyCount: keyCount, columnCount: columnCount, keyStride: keyCount,
        valueStride: columnCount, decay: decay, decayStride: keyCount, betaStride: 1,
        deletes: deletes)
      let count = LinearScan.stateCount(keyCount: keyCount, columnCount: columnCount)
      let memory = UnsafeMutableRawPointer.allocate(byteCount: 4 * count, alignment: 64)
      defer { memory.deallocate() }
      let state = memory.bindMemory(to: Float.self, capacity: count)
      state.initialize(repeating: 0, count: count)
      var outputs = values
      outputs.withUnsafeMutableBufferPointer { outputs in
        queries.withUnsafeBufferPointer { queries in
          keys.withUnsafeBufferPointer { keys in
            decays.withUnsafeBufferPointer { decays in
              betas.withUnsafeBufferPointer { betas in
                var first = 0
                for cut in cuts {
                  scan.run(
                    state: state, queries: queries.baseAddress! + first * keyCount,
                    keys: keys.baseAddress! + first * keyCount,
                    values: outputs.baseAddress! + first * columnCount,
                    decays: decay == .none ? nil : decays.baseAddress! + first * keyCount,
                    betas: betas.baseAddress! + first, tokenCount: cut, instructionSet: set)
                  first += cut
                }
              }
            }
          }
        }
      }
      return (outputs, Array(UnsafeBufferPointer(start: state, count: count)))
    }

    /// The same in f64 as attention over all tokens before: without a state.
    func attended(_ decay: LinearScan.Decay, deletes: Bool) -> [Double] {
      let count = betas.count
      func decayed(_ key: Int, after past: Int, upTo token: Int) -> Double {
        guard decay != .none, past < token else { return 1 }
        return ((past + 1)...token).reduce(1) {
          $0 * Double(decays[$1 * keyCount + (decay == .scalar ? 0 : key)])
        }
      }
      func product(_ x: [Float], _ token: Int, _ past: Int) -> Double {
        (0..<keyCount).reduce(0) {
          $0 + Double(x[token * keyCount + $1]) * Double(keys[past * keyCount + $1])
            * decayed($1, after: past, upTo: token)
        }
      }
      var written: [[Double]] = []
      var outputs: [Double] = []
      for token in 0..<count {
        var value = (0..<columnCount).map { Double(values[token * columnCount + $0]) }
        if deletes {
          for past in 0..<token {
            let weight = product(keys, token, past)
            for column in value.indices { value[column] -= weight * written[past][column] }
          }
        }
        written.append(value.map { $0 * Double(betas[token]) })
        var output = [Double](repeating: 0, count: columnCount)
        for past in 0...token {
          let weight = product(queries, token, past)
          for column in output.indices { output[column] += weight * written[past][column] }
        }
        outputs += output
      }
      return outputs
    }
  }

  @Test(arguments: LinearScan.Decay.allCases, [false, true])
  func `A scan is attention over what was written`(decay: LinearScan.Decay, deletes: Bool) {
    for (keyCount, columnCount) in [(16, 16), (5, 3), (32, 40), (24, 100)] {
      let operands = Operands(
        keyCount: keyCount, columnCount: columnCount, tokenCount: 23, seed: UInt64(keyCount))
      let found = operands.scan(decay, deletes: deletes, cuts: [23]).outputs
      let expected = operands.attended(decay, deletes: deletes)
      let worst = zip(found, expected).map { (Double($0) - $1).magnitude }.max() ?? .infinity
      #expect(worst < 1e-5, "\(keyCount) × \(columnCount): \(worst)")
      #expect(expected.contains { $0.magnitude > 0.05 })
    }
  }

  @Test(arguments: LinearScan.Decay.allCases, [false, true])
  func `A scan has the same bits on every set and however it is cut`(
    decay: LinearScan.Decay, deletes: Bool
  ) {
    for (keyCount, columnCount) in [(16, 48), (7, 21), (128, 128)] {
      let operands = Operands(
        keyCount: keyCount, columnCount: columnCount, tokenCount: 11, seed: 3)
      let whole = operands.scan(decay, deletes: deletes, cuts: [11], .scalar)
      for set in Self.sets {
        for cuts in [[11], Array(repeating: 1, count: 11), [4, 1, 6]] {
          let found = operands.scan(decay, deletes: deletes, cuts: cuts, set)
          #expect(found.outputs.map(\.bitPattern) == whole.outputs.map(\.bitPattern))
          #expect(found.state.map(\.bitPattern) == whole.state.map(\.bitPattern))
        }
      }
    }
  }

  @Test(arguments: [false, true])
  func `A convolution sees the last positions`(activates: Bool) {
    for (tapCount, channelCount) in [(4, 37), (1, 5), (3, 16), (8, 33)] {
      let tokenCount = 13
      var generator = SeededGenerator(seed: UInt64(tapCount))
      func random(_ count: Int) -> [Float] {
        (0..<count).map { _ in Float(generator.nextUnit()) * 2 - 1 }
      }
      let (input, weights, bias) = (
        random(tokenCount * channelCount), random(channelCount * tapCount), random(channelCount)
      )
      var bits: [UInt32]?
      for set in Self.sets {
        for cuts in [[tokenCount], Array(repeating: 1, count: tokenCount), [2, 8, 3]] {
          var output = input
          var history = [Float](repeating: 0, count: max(1, tapCount - 1) * channelCount)
          let convolution = ShortConvolution(
            tapCount: tapCount, stride: channelCount, historyStride: channelCount,
            activates: activates)
          var first = 0
          for cut in cuts {
            output.withUnsafeMutableBufferPointer {
              convolution.run(
                $0.baseAddress! + first * channelCount, weights: weights, bias: bias,
                history: &history, channelCount: channelCount, tokenCount: cut,
                instructionSet: set)
            }
            first += cut
          }
          let found = output.map(\.bitPattern)
          #expect(bits == nil || bits == found, "\(set), \(cuts)")
          bits = found
        }
      }
      for token in 0..<tokenCount {
        for channel in 0..<channelCount {
          var sum = Double(bias[channel])
          for tap in 0..<tapCount where token - tapCount + 1 + tap >= 0 {
            sum +=
              Double(weights[channel * tapCount + tap])
              * Double(input[(token - tapCount + 1 + tap) * channelCount + channel])
          }
          let expected = activates ? sum / (1 + exp(-sum)) : sum
          let found = Double(Float(bitPattern: bits![token * channelCount + channel]))
          #expect((found - expected).magnitude < 1e-5)
        }
      }
    }
  }
}
