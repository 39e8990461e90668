import Kernels
import TensorBasics
import Testing

@Suite struct ProductAccumulationTests {
  /// A product of `columns` of x [tokenCount, columnCount] with rows cut to those columns; goes on
  /// from `output` where `accumulates`.
  private func product(
    _ rows: [[UInt8]], _ type: ElementType, columns: Range<Int>, x: [Float], stride: Int,
    tokenCount: Int, into output: inout [Float], accumulates: Bool, _ set: InstructionSet
  ) {
    let bytesPerBlock = type.blockByteCount
    let blocks = columns.lowerBound / type.blockElementCount
    let groupByteCount = RowGroup.byteCount(type, columnCount: columns.count)
    let groups = RowGroup.groupCount(rows: rows.count)
    let memory = UnsafeMutableRawPointer.allocate(
      byteCount: groups * groupByteCount, alignment: 64)
    let blockMemory = UnsafeMutableRawPointer.allocate(
      byteCount: ActivationBlocks.byteCount(tokenCapacity: 40, columnCount: columns.count),
      alignment: 64)
    defer {
      memory.deallocate()
      blockMemory.deallocate()
    }
    for group in 0..<groups {
      let part = rows[(16 * group)..<min(16 * group + 16, rows.count)]
      let cut = part.flatMap {
        $0[(blocks * bytesPerBlock)..<(columns.upperBound / type.blockElementCount * bytesPerBlock)]
      }
      Interleaving.interleave(
        rows: cut, rowByteCount: cut.count / part.count, rowCount: part.count, type: type,
        columnCount: columns.count, into: memory + group * groupByteCount)
    }
    let quantised = ActivationBlocks(memory: blockMemory, columnCount: columns.count)
    x.withUnsafeBufferPointer { x in
      let values = x.baseAddress! + columns.lowerBound
      quantised.quantise(values, stride: stride, tokens: 0..<tokenCount, instructionSet: set)
      let operand = MatrixOperand(
        address: memory, type: type, layout: .interleaved, rowCount: rows.count,
        columnCount: columns.count)
      let activations = Activations(
        values: values, stride: stride, blocks: quantised, tokenCount: tokenCount)
      let run = accumulates ? MatrixProduct.accumulate : MatrixProduct.multiply
      run(operand, 0..<groups, activations, &output, rows.count, nil, set)
    }
  }

  @Test(arguments: ElementType.allCases.filter(\.isQuantised))
  func `Blocks of columns, one after the other, give the bits of one product`(type: ElementType) {
    for seed in UInt64(0)..<12 {
      var generator = SeededGenerator(seed: seed)
      let columns = 4 * type.blockElementCount
      let random = RandomRows(
        type, rowCount: Int.random(in: 1...40, using: &generator), columnCount: columns,
        using: &generator)
      let rows = (0..<random.rowCount).map {
        Array(random.bytes[$0 * random.rowByteCount..<($0 + 1) * random.rowByteCount])
      }
      let tokenCount = seed % 3 == 0 ? 1 : Int.random(in: 2...40, using: &generator)
      let x = (0..<tokenCount * columns).map { _ in Float(generator.nextUnit() * 2 - 1) }
      for set in [.scalar] + MatrixProductTests.vectorSets {
        var whole = [Float](repeating: .nan, count: tokenCount * rows.count)
        product(
          rows, type, columns: 0..<columns, x: x, stride: columns, tokenCount: tokenCount,
          into: &whole, accumulates: false, set)
        var parts = [Float](repeating: 0, count: tokenCount * rows.count)
        for first in stride(from: 0, to: columns, by: columns / 4) {
          product(
            rows, type, columns: first..<first + columns / 4, x: x, stride: columns,
            tokenCount: tokenCount, into: &parts, accumulates: true, set)
        }
        #expect(
          parts.map(\.bitPattern) == whole.map(\.bitPattern), "seed \(seed), \(set)")
      }
    }
  }
}
