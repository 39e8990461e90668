import Kernels
import TensorBasics
import Testing

@Suite struct NeuronColumnsTests {
  static let types = ElementType.allCases.filter(NeuronColumns.supports)

  struct Case {
    var rows: RandomRows
    var values: [Float]
    var start: [Float]
    var tokenCount: Int

    init(_ type: ElementType, seed: UInt64) {
      var generator = SeededGenerator(seed: seed)
      let columns =
        type.isQuantised
        ? 32 * Int.random(in: 1...20, using: &generator)
        : Int.random(in: 1...600, using: &generator)
      rows = RandomRows(
        type, rowCount: Int.random(in: 1...40, using: &generator), columnCount: columns,
        using: &generator)
      tokenCount = Int.random(in: 1...9, using: &generator)
      values = (0..<tokenCount * rows.rowCount).map { _ in
        let value = Float(generator.nextUnit() * 4 - 2)
        return generator.next() % 3 == 0 ? 0 : value
      }
      start = (0..<tokenCount * columns).map { _ in Float(generator.nextUnit() * 2 - 1) }
      start[0] = -0.0
    }

    /// Sums [tokenCount, columnCount] of rows at odd addresses, `step` columns and `tokenStep` tokens
    /// a call.
    func sums(_ set: InstructionSet, step: Int = .max, tokenStep: Int = .max) -> [Float] {
      let byteCount = rows.rowByteCount
      let columns = rows.columnCount
      let memory = UnsafeMutableRawPointer.allocate(
        byteCount: 1 + rows.bytes.count, alignment: 64)
      defer { memory.deallocate() }
      (memory + 1).copyMemory(from: rows.bytes, byteCount: rows.bytes.count)
      let pointers = (0..<rows.rowCount).map { UnsafeRawPointer(memory + 1 + $0 * byteCount) }
      var output = start
      output.withUnsafeMutableBufferPointer { output in
        values.withUnsafeBufferPointer { values in
          for column in stride(from: 0, to: columns, by: min(step, columns)) {
            for token in stride(from: 0, to: tokenCount, by: min(tokenStep, tokenCount)) {
              NeuronColumns.accumulate(
                rows: pointers, rowCount: rows.rowCount, type: rows.type,
                columns: column..<min(columns, column + min(step, columns)),
                values: values.baseAddress! + token * rows.rowCount, valueStride: rows.rowCount,
                tokenCount: min(tokenStep, tokenCount - token),
                into: output.baseAddress! + token * columns, outputStride: columns,
                instructionSet: set)
            }
          }
        }
      }
      return output
    }
  }

  @Test(arguments: types)
  func `Instruction sets, strips and tokens change no bit`(type: ElementType) {
    for seed in UInt64(0)..<30 {
      let test = Case(type, seed: seed)
      let scalar = test.sums(.scalar).map(\.bitPattern)
      for set in [.scalar] + MatrixProductTests.vectorSets {
        #expect(test.sums(set).map(\.bitPattern) == scalar, "seed \(seed), \(set)")
        for step in [32, 96, 256] {
          #expect(
            test.sums(set, step: step).map(\.bitPattern) == scalar, "seed \(seed), \(set), \(step)")
        }
        #expect(
          test.sums(set, step: 64, tokenStep: 1).map(\.bitPattern) == scalar,
          "seed \(seed), \(set)")
      }
    }
  }

  @Test(arguments: types)
  func `Sums are near those of f64`(type: ElementType) {
    for seed in UInt64(40)..<50 {
      let test = Case(type, seed: seed)
      let columns = test.rows.columnCount
      let found = test.sums(.scalar)
      var exact = test.start.map(Double.init)
      var bounds = exact.map { 1e-6 * $0.magnitude }
      for row in 0..<test.rows.rowCount {
        var weights = [Float](repeating: 0, count: columns)
        test.rows.bytes.withUnsafeBytes {
          Dequantisation.row(
            $0.baseAddress! + row * test.rows.rowByteCount, type: type, columnCount: columns,
            into: &weights)
        }
        for token in 0..<test.tokenCount {
          let value = Double(test.values[token * test.rows.rowCount + row])
          for (column, weight) in weights.enumerated() {
            exact[token * columns + column] += value * Double(weight)
            bounds[token * columns + column] += 1e-5 * (value * Double(weight)).magnitude + 1e-6
          }
        }
      }
      for index in exact.indices {
        #expect(
          (Double(found[index]) - exact[index]).magnitude <= bounds[index], "seed \(seed)")
      }
    }
  }

  @Test func `A value of 0 leaves a token's bits alone, whatever the row holds`() {
    let columns = 70
    let rows: [[Float]] = [
      .init(repeating: .infinity, count: columns), .init(repeating: 2, count: columns),
    ]
    // Token 0 uses no row, the others differ in which they use.
    let values: [Float] = [0, 0, -0.0, 3, 0, 1, 0, 5, 1, 0]
    for set in [.scalar] + MatrixProductTests.vectorSets {
      for tokenCount in 1...5 {
        var output = [Float](repeating: -0.0, count: tokenCount * columns)
        rows[0].withUnsafeBytes { first in
          rows[1].withUnsafeBytes { second in
            NeuronColumns.accumulate(
              rows: [first.baseAddress!, second.baseAddress!], rowCount: 2, type: .f32,
              columns: 0..<columns, values: values, valueStride: 2, tokenCount: tokenCount,
              into: &output, outputStride: columns, instructionSet: set)
          }
        }
        let expected: [Float] = [-0.0, 6, 2, 10, .infinity]
        for token in 0..<tokenCount {
          #expect(
            output[token * columns..<(token + 1) * columns]
              .allSatisfy { $0.bitPattern == expected[token].bitPattern }, "\(set), \(token)")
        }
      }
    }
  }
}
