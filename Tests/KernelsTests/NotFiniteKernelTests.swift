import Kernels
import TensorBasics
import Testing

/// Infinities and NaN stay what they are until a check sees them.
@Suite struct NotFiniteKernelTests {
  private static let poisons: [Float] = [.nan, -.nan, .signalingNaN, .infinity, -.infinity]
  private static let sets = InstructionSet.allCases.filter(\.isAvailable)

  @Test(arguments: sets)
  func `One element that is not finite is found wherever it lies`(set: InstructionSet) {
    for count in [1, 15, 16, 17, 33, 100] {
      var x = (0..<count).map { Float($0) * 1e36 }
      #expect(VectorOps.isFinite(x, count: count, instructionSet: set))
      for index in 0..<count {
        let kept = x[index]
        for poison in Self.poisons {
          x[index] = poison
          #expect(
            !VectorOps.isFinite(x, count: count, instructionSet: set), "\(poison) at \(index)")
        }
        x[index] = kept
      }
    }
    #expect(
      VectorOps.isFinite(
        [.greatestFiniteMagnitude, -0.0, .leastNonzeroMagnitude], count: 3, instructionSet: set))
  }

  @Test(arguments: sets)
  func `Norms say where a mean is not finite, also where finite squares overflow`(
    set: InstructionSet
  ) {
    let weight = [Float](repeating: 1, count: 40)
    var y = weight
    for poison in Self.poisons + [3e38] {
      for index in [0, 16, 39] {
        var x = (0..<40).map { Float($0) }
        #expect(
          VectorOps.rmsNorm(
            x, weight: weight, epsilon: 1e-5, count: 40, into: &y, instructionSet: set))
        x[index] = poison
        #expect(
          !VectorOps.rmsNorm(
            x, weight: weight, epsilon: 1e-5, count: 40, into: &y, instructionSet: set))
        #expect(
          !VectorOps.layerNorm(
            x, weight: weight, bias: weight, epsilon: 1e-5, count: 40, into: &y, instructionSet: set
          ))
      }
    }
  }

  @Test(arguments: sets)
  func `ReLU leaves alone what is not finite`(set: InstructionSet) {
    var x: [Float] =
      [-1, 0, -0.0, 2, .nan, .infinity, -.infinity] + [Float](repeating: .nan, count: 16)
    VectorOps.relu(&x, count: x.count, instructionSet: set)
    #expect(x[..<4].map(\.bitPattern) == [0, 0, 0, Float(2).bitPattern])
    #expect(x[4].isNaN && x[5] == .infinity && x[6] == -.infinity && x[7...].allSatisfy(\.isNaN))
  }

  @Test(arguments: sets)
  func `No product with activations that are not finite is finite`(set: InstructionSet) throws {
    var generator = SeededGenerator(seed: 3)
    let (rows, columns) = (16, 64)
    for tokens in [1, 2, 13] {
      for poison in Self.poisons {
        var x = (0..<tokens * columns).map { _ in Float(generator.nextUnit() - 0.5) }
        let broken = Int.random(in: 0..<tokens, using: &generator)
        x[broken * columns + Int.random(in: 0..<columns, using: &generator)] = poison
        // Weights of 0 in Q8_0: 0 times infinity is no number either.
        let weights = try AlignedBuffer(
          byteCount: RowGroup.byteCount(.q8_0, columnCount: columns))
        let memory = try AlignedBuffer(
          byteCount: ActivationBlocks.byteCount(tokenCapacity: tokens, columnCount: columns))
        let blocks = ActivationBlocks(memory: memory.address, columnCount: columns)
        blocks.quantise(x, stride: columns, tokens: 0..<tokens, instructionSet: set)
        var output = [Float](repeating: 0, count: tokens * rows)
        x.withUnsafeBufferPointer { values in
          MatrixProduct.multiply(
            MatrixOperand(
              address: weights.address, type: .q8_0, layout: .interleaved, rowCount: rows,
              columnCount: columns), groups: 0..<1,
            by: Activations(
              values: values.baseAddress!, stride: columns, blocks: blocks, tokenCount: tokens),
            into: &output, outputStride: rows, scratch: nil, instructionSet: set)
        }
        for token in 0..<tokens {
          let row = output[token * rows..<(token + 1) * rows]
          #expect(
            row.allSatisfy { $0.isFinite != (token == broken) }, "\(poison), \(tokens) tokens")
        }
      }
    }
  }

  @Test(arguments: ElementType.allCases)
  func `A stored weight or scale that is not finite is found with its place`(type: ElementType)
    throws
  {
    let (rows, columns) = (3, 512)
    let rowByteCount = try #require(type.rowByteCount(columnCount: columns))
    let offsets = type.isQuantised ? type.layout.halfOffsets : [0]
    let clean = [UInt8](repeating: 0x11, count: rows * rowByteCount)
    #expect(
      WeightValues.firstNotFinite(clean, type: type, columnCount: columns, rowCount: rows) == nil)
    for offset in offsets {
      for (row, block) in [(0, 0), (1, 1), (2, 512 / type.blockElementCount - 1)] {
        var bytes = clean
        let first = row * rowByteCount + block * type.blockByteCount + offset
        let high: [UInt8] =
          switch type {
          case .f32: [0, 0, 0x80, 0x7F]
          case .bf16: [0x80, 0xFF]
          default: [0, 0x7E]
          }
        bytes.replaceSubrange(first..<first + high.count, with: high)
        let found = WeightValues.firstNotFinite(
          bytes, type: type, columnCount: columns, rowCount: rows)
        #expect(found?.row == row && found?.column == block * type.blockElementCount)
      }
    }
  }
}
