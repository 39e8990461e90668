import Glibc
import Kernels
import TensorBasics
import Testing

@Suite struct VectorOpsTests {
  private typealias Operation =
    @Sendable (
      _ x: UnsafeMutablePointer<Float>, _ y: UnsafePointer<Float>, _ count: Int,
      _ set: InstructionSet
    ) -> Void

  private static let operations:
    [(name: String, run: Operation, f64: @Sendable (Double, Double) -> Double)] = [
      ("add", { VectorOps.add($0, $1, count: $2, instructionSet: $3) }, { $0 + $1 }),
      (
        "silu", { VectorOps.siluMultiply($0, $1, count: $2, instructionSet: $3) },
        { $0 / (1 + exp(-$0)) * $1 }
      ),
      (
        "gelu", { VectorOps.geluTanhMultiply($0, $1, count: $2, instructionSet: $3) },
        {
          0.5 * $0 * (1 + tanh((2 / Double.pi).squareRoot() * ($0 + 0.044715 * $0 * $0 * $0))) * $1
        }
      ),
      (
        "clamped SwiGLU", { VectorOps.clampedSwiGLU($0, $1, count: $2, instructionSet: $3) },
        { min($0, 7) / (1 + exp(-1.702 * min($0, 7))) * (max(-7, min($1, 7)) + 1) }
      ),
      (
        "relu", { VectorOps.reluMultiply($0, $1, count: $2, instructionSet: $3) },
        { max($0, 0) * $1 }
      ),
      (
        "scale",
        { x, _, count, set in VectorOps.scale(x, by: 1.7, count: count, instructionSet: set) },
        { x, _ in x * Double(Float(1.7)) }
      ),
      (
        "soft cap",
        { x, _, count, set in VectorOps.softCap(x, at: 30, count: count, instructionSet: set) },
        { x, _ in 30 * tanh(x / 30) }
      ),
      (
        "exp", { x, _, count, set in VectorOps.exp(x, count: count, instructionSet: set) },
        { x, _ in exp(x) }
      ),
    ]

  private func random(_ count: Int, _ scale: Double, _ generator: inout SeededGenerator) -> [Float]
  {
    (0..<count).map { _ in Float((generator.nextUnit() * 2 - 1) * scale) }
  }

  @Test func `Every instruction set gives the scalar twin's bits, and f64's value`() {
    for seed in UInt64(0)..<60 {
      var generator = SeededGenerator(seed: seed)
      let count = Int.random(in: 1...100, using: &generator)
      let x = random(count, [0.1, 5, 80][Int(seed % 3)], &generator)
      let y = random(count, 2, &generator)
      for (name, run, f64) in Self.operations {
        func result(_ set: InstructionSet) -> [Float] {
          var output = x
          output.withUnsafeMutableBufferPointer { output in
            y.withUnsafeBufferPointer { run(output.baseAddress!, $0.baseAddress!, count, set) }
          }
          return output
        }
        let scalar = result(.scalar)
        for set in MatrixProductTests.vectorSets {
          #expect(
            result(set).map(\.bitPattern) == scalar.map(\.bitPattern),
            "\(name), \(set), seed \(seed)")
        }
        for index in 0..<count {
          let expected = f64(Double(x[index]), Double(y[index]))
          let bound = 1e-5 * max(1e-3, expected.magnitude)
          #expect(
            (Double(scalar[index]) - expected).magnitude <= bound,
            "\(name)(\(x[index]), \(y[index])) = \(scalar[index]), not \(expected)")
        }
      }
    }
  }

  @Test func `exp ends where floats end`() {
    for set in [.scalar] + MatrixProductTests.vectorSets {
      var x: [Float] = [-.infinity, -1000, -104, -87.5, 0, 88.7, 89, .infinity]
      let count = x.count
      x.withUnsafeMutableBufferPointer {
        VectorOps.exp($0.baseAddress!, count: count, instructionSet: set)
      }
      #expect(
        x[0] == 0 && x[1] == 0 && x[2] < Float(sign: .plus, exponent: -140, significand: 1)
          && x[4] == 1 && x[6] == .infinity && x[7] == .infinity)
      #expect((Double(x[3]) - exp(-87.5)).magnitude < 1e-43 && x[5].isFinite)
    }
  }

  @Test func `RMSNorm is the formula, the same bits on every set`() {
    for seed in UInt64(0)..<40 {
      var generator = SeededGenerator(seed: seed)
      let count = Int.random(in: 1...700, using: &generator)
      let (x, weight) = (random(count, 3, &generator), random(count, 2, &generator))
      func result(_ set: InstructionSet) -> [Float] {
        var y = [Float](repeating: 0, count: count)
        _ = y.withUnsafeMutableBufferPointer { y in
          VectorOps.rmsNorm(
            x, weight: weight, epsilon: 1e-5, count: count, into: y.baseAddress!,
            instructionSet: set)
        }
        return y
      }
      let scalar = result(.scalar)
      for set in MatrixProductTests.vectorSets { #expect(result(set) == scalar, "seed \(seed)") }
      let mean = x.reduce(0) { $0 + Double($1) * Double($1) } / Double(count)
      for index in 0..<count {
        let expected = Double(x[index]) / (mean + 1e-5).squareRoot() * Double(weight[index])
        #expect((Double(scalar[index]) - expected).magnitude <= 1e-5 * max(1, expected.magnitude))
      }
    }
  }

  @Test func `LayerNorm is the formula, the same bits on every set and in place`() {
    for seed in UInt64(0)..<40 {
      var generator = SeededGenerator(seed: seed)
      let count = Int.random(in: 1...700, using: &generator)
      let x = random(count, 3, &generator).map { $0 + 1 }
      let (weight, bias) = (random(count, 2, &generator), random(count, 2, &generator))
      func result(_ set: InstructionSet) -> [Float] {
        var y = x
        _ = y.withUnsafeMutableBufferPointer { y in
          VectorOps.layerNorm(
            y.baseAddress!, weight: weight, bias: bias, epsilon: 1e-5, count: count,
            into: y.baseAddress!, instructionSet: set)
        }
        return y
      }
      let scalar = result(.scalar)
      for set in MatrixProductTests.vectorSets { #expect(result(set) == scalar, "seed \(seed)") }
      let mean = x.reduce(0) { $0 + Double($1) } / Double(count)
      let variance =
        x.reduce(0) { $0 + (Double($1) - mean) * (Double($1) - mean) } / Double(count)
      for index in 0..<count {
        let expected =
          (Double(x[index]) - mean) / (variance + 1e-5).squareRoot() * Double(weight[index])
          + Double(bias[index])
        #expect(
          (Double(scalar[index]) - expected).magnitude <= 2e-5 * max(1, expected.magnitude),
          "seed \(seed)")
      }
    }
  }

  @Test func `ReLU and the indexes above a threshold are their definitions`() {
    for seed in UInt64(0)..<60 {
      var generator = SeededGenerator(seed: seed)
      let count = Int.random(in: 0...100, using: &generator)
      var x = random(count, 2, &generator)
      if count > 3 { (x[0], x[count / 2], x[count - 1]) = (.nan, 0.25, .infinity) }
      let above = x.indices.filter { x[$0] > 0.25 }.map(Int32.init)
      let positive = x.map { $0 <= 0 ? 0 : $0 }.map(\.bitPattern)
      for set in [.scalar] + MatrixProductTests.vectorSets {
        // One more, which must stay.
        var indexes = [Int32](repeating: -1, count: count + 1)
        let found = VectorOps.indexesAbove(
          0.25, in: x, count: count, into: &indexes, instructionSet: set)
        #expect(Array(indexes[..<found]) == above && indexes[count] == -1, "seed \(seed), \(set)")
        var y = x
        VectorOps.relu(&y, count: count, instructionSet: set)
        #expect(y.map(\.bitPattern) == positive, "seed \(seed), \(set)")
      }
    }
  }

  @Test func `the index of the highest is the first one's, and NaN is as low as can be`() {
    for seed in UInt64(0)..<60 {
      var generator = SeededGenerator(seed: seed)
      let count = Int.random(in: 0...1600, using: &generator)
      var x = random(count, 2, &generator)
      if seed % 4 == 0 { x = x.map { $0.rounded() } }
      if seed % 3 == 0 { for index in x.indices where index % 7 < 6 { x[index] = .nan } }
      if seed % 5 == 0 { for index in x.indices where x[index] >= 0 { x[index] = -.infinity } }
      if seed % 20 == 0 { for index in x.indices where x[index] < 0 { x[index] = -.infinity } }
      if count > 3, seed % 8 == 1 { (x[count / 2], x[count - 1]) = (.infinity, .infinity) }
      var expected = 0
      for index in x.indices
      where x[index] > (x[expected].isNaN ? -.infinity : x[expected]) { expected = index }
      for set in [.scalar] + MatrixProductTests.vectorSets {
        let found = VectorOps.indexOfHighest(x, count: count, instructionSet: set)
        #expect(found == expected, "seed \(seed), \(set)")
      }
    }
  }

  @Test(arguments: [false, true])
  func `RoPE rotates pairs by their angles`(adjacent: Bool) {
    for seed in UInt64(0)..<20 {
      var generator = SeededGenerator(seed: seed)
      let half = Int.random(in: 1...40, using: &generator)
      let length = 2 * half + 8
      let x = random(3 * length, 2, &generator)
      let angles = (0..<half).map { _ in generator.nextUnit() * 100 }
      let (cosines, sines) = (angles.map { Float(cos($0)) }, angles.map { Float(sin($0)) })
      func result(_ set: InstructionSet) -> [Float] {
        var y = x
        y.withUnsafeMutableBufferPointer {
          VectorOps.rotate(
            $0.baseAddress!, headCount: 3, headDim: length, dimensionCount: 2 * half,
            adjacentPairs: adjacent, cosines: cosines, sines: sines, instructionSet: set)
        }
        return y
      }
      let scalar = result(.scalar)
      for set in MatrixProductTests.vectorSets { #expect(result(set) == scalar, "seed \(seed)") }
      for head in 0..<3 {
        for pair in 0..<half {
          let (i, j) = adjacent ? (2 * pair, 2 * pair + 1) : (pair, pair + half)
          let (a, b) = (Double(x[head * length + i]), Double(x[head * length + j]))
          let first = a * cos(angles[pair]) - b * sin(angles[pair])
          let second = a * sin(angles[pair]) + b * cos(angles[pair])
          #expect((Double(scalar[head * length + i]) - first).magnitude < 1e-5)
          #expect((Double(scalar[head * length + j]) - second).magnitude < 1e-5)
        }
        #expect(
          Array(scalar[(head * length + 2 * half)..<(head + 1) * length])
            == Array(x[(head * length + 2 * half)..<(head + 1) * length]))
      }
    }
  }
}
