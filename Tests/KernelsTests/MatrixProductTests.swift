import Kernels
import TensorBasics
import Testing

@Suite struct MatrixProductTests {
  /// The sets this machine has beside scalar.
  static let vectorSets = InstructionSet.allCases.filter { $0 != .scalar && $0.isAvailable }

  struct Case {
    var rows: RandomRows
    var x: [Float]
    var tokenCount: Int

    /// - Parameters:
    ///   - isWide: more columns than a kernel takes at once.
    ///   - tokens: how many there may be.
    init(
      _ type: ElementType, seed: UInt64, isWide: Bool = false, tokens: ClosedRange<Int> = 1...40
    ) {
      var generator = SeededGenerator(seed: seed)
      let unit = max(32, type.blockElementCount)
      let columns =
        type.isQuantised
        ? (isWide ? 4096 : 0) + unit * Int.random(in: 1...4, using: &generator)
        : Int.random(in: 1...67, using: &generator)
      rows = RandomRows(
        type, rowCount: Int.random(in: 1...50, using: &generator), columnCount: columns,
        using: &generator)
      tokenCount = Int.random(in: tokens, using: &generator)
      x = (0..<tokenCount * columns).map { _ in
        Float(generator.nextUnit() * 2 - 1) * (generator.next() % 97 == 0 ? 50 : 1)
      }
    }

    /// The product [tokenCount, rowCount].
    func product(
      _ set: InstructionSet, layout: RowLayout, tokens: Range<Int>? = nil, splitAt split: Int = 0
    ) -> [Float] {
      let tokens = tokens ?? 0..<tokenCount
      let columns = rows.columnCount
      let groups = RowGroup.groupCount(rows: rows.rowCount)
      let groupByteCount = RowGroup.byteCount(rows.type, columnCount: columns)
      var output = [Float](repeating: .nan, count: tokens.count * rows.rowCount)
      let scratch = UnsafeMutableRawPointer.allocate(
        byteCount: groupByteCount * (groups + 1), alignment: 64)
      let blockMemory = UnsafeMutableRawPointer.allocate(
        byteCount: ActivationBlocks.byteCount(
          tokenCapacity: tokenCount, columnCount: (columns + 31) / 32 * 32),
        alignment: 64)
      defer {
        scratch.deallocate()
        blockMemory.deallocate()
      }
      rows.bytes.withUnsafeBytes { bytes in
        x.withUnsafeBufferPointer { x in
          let values = x.baseAddress! + tokens.lowerBound * columns
          var activations = Activations(
            values: values, stride: columns, blocks: nil, tokenCount: tokens.count)
          if rows.type.isQuantised {
            let blocks = ActivationBlocks(
              memory: blockMemory, columnCount: columns)
            blocks.quantise(
              values, stride: columns, tokens: 0..<tokens.count, instructionSet: set)
            activations.blocks = blocks
          }
          var operand = MatrixOperand(
            address: bytes.baseAddress!, type: rows.type, layout: .rowMajor,
            rowCount: rows.rowCount, columnCount: columns)
          if layout == .interleaved {
            for group in 0..<groups {
              let first = group * RowGroup.rowCount
              Interleaving.interleave(
                rows: bytes.baseAddress! + first * rows.rowByteCount,
                rowByteCount: rows.rowByteCount,
                rowCount: min(RowGroup.rowCount, rows.rowCount - first), type: rows.type,
                columnCount: columns, into: scratch + group * groupByteCount)
            }
            operand.address = UnsafeRawPointer(scratch)
            operand.layout = .interleaved
          }
          let cut = min(split, groups)
          for part in [0..<cut, cut..<groups] {
            MatrixProduct.multiply(
              operand, groups: part, by: activations, into: &output,
              outputStride: rows.rowCount, scratch: scratch + groups * groupByteCount,
              instructionSet: set)
          }
        }
      }
      return output
    }
  }

  @Test(arguments: ElementType.allCases, vectorSets)
  func everyInstructionSetComputesTheScalarBits(type: ElementType, set: InstructionSet) {
    for seed in UInt64(0)..<12 {
      let test = Case(type, seed: seed)
      #expect(
        test.product(set, layout: .interleaved) == test.product(.scalar, layout: .interleaved),
        "seed \(seed)")
    }
  }

  @Test(arguments: ElementType.allCases)
  func layoutTokensAndGroupsChangeNoBit(type: ElementType) {
    for seed in UInt64(20)..<30 {
      let test = Case(type, seed: seed)
      let whole = test.product(.best, layout: .interleaved)
      #expect(test.product(.best, layout: .rowMajor) == whole, "seed \(seed)")
      #expect(test.product(.best, layout: .interleaved, splitAt: 1) == whole, "seed \(seed)")
      let parts = (0..<test.tokenCount).flatMap {
        test.product(.best, layout: .rowMajor, tokens: $0..<$0 + 1)
      }
      #expect(parts == whole, "seed \(seed)")
    }
  }

  @Test(arguments: ElementType.allCases.filter(\.isQuantised))
  func columnsInSlabsChangeNoBit(type: ElementType) {
    for seed in UInt64(60)..<66 {
      let test = Case(type, seed: seed, isWide: true)
      let scalar = test.product(.scalar, layout: .interleaved)
      for set in Self.vectorSets {
        #expect(test.product(set, layout: .interleaved) == scalar, "seed \(seed), \(set)")
      }
      let last = test.tokenCount - 1
      #expect(
        test.product(.best, layout: .interleaved, tokens: last..<test.tokenCount)
          == Array(scalar[(last * test.rows.rowCount)...]), "seed \(seed)")
    }
  }

  /// Blocks of weights that are expanded serve so many tokens and no more.
  @Test(arguments: ElementType.allCases.filter(\.isQuantised))
  func `More tokens than a block is expanded for change no bit`(type: ElementType) {
    for (seed, tokens) in [97...99, 119...121, 192...219].enumerated() {
      let test = Case(type, seed: UInt64(80 + seed), tokens: tokens)
      let scalar = test.product(.scalar, layout: .interleaved)
      for set in Self.vectorSets {
        #expect(test.product(set, layout: .interleaved) == scalar, "\(tokens), \(set)")
      }
      let (first, count) = (96, test.tokenCount - 96)
      #expect(
        test.product(.best, layout: .interleaved, tokens: first..<first + count)
          == Array(scalar[(first * test.rows.rowCount)...]), "\(tokens)")
    }
  }

  /// The product of dequantised weights with the activations as they are, in f64, is as near as int8
  /// activations allow: half a step of scale per column.
  @Test(arguments: ElementType.allCases)
  func scalarIsNearTheExactProduct(type: ElementType) {
    for seed in UInt64(40)..<46 {
      let test = Case(type, seed: seed)
      let (rows, columns) = (test.rows.rowCount, test.rows.columnCount)
      let result = test.product(.scalar, layout: .interleaved)
      for row in 0..<rows {
        var weights = [Float](repeating: 0, count: columns)
        test.rows.bytes.withUnsafeBytes {
          Dequantisation.row(
            $0.baseAddress! + row * test.rows.rowByteCount, type: type, columnCount: columns,
            into: &weights)
        }
        for token in 0..<test.tokenCount {
          let x = test.x[token * columns..<(token + 1) * columns]
          var exact = 0.0
          var bound = 1e-6
          for (k, weight) in weights.enumerated() {
            exact += Double(weight) * Double(x[x.startIndex + k])
            let block = k / 32 * 32
            let highest = x[(x.startIndex + block)..<min(x.startIndex + block + 32, x.endIndex)]
              .map(abs).max()!
            // Half a quantisation step, or for f32 activations the rounding of the chain.
            let error = type.isQuantised ? highest / 254 * 1.01 : highest * 1e-5
            bound += Double(abs(weight) * error) + Double(abs(weight)) * 1e-5 * Double(highest)
          }
          let found = Double(result[token * rows + row])
          #expect(abs(found - exact) <= bound, "row \(row), token \(token), seed \(seed)")
        }
      }
    }
  }

  @Test(arguments: [1, 2, 3]) func `Threads that share activations quantise them as one does`(
    threadCount: Int
  ) {
    let columnCount = 17_024
    var generator = SeededGenerator(seed: 5)
    let quantiser = ActivationQuantiser(pool: ThreadPool(threadCount: threadCount))
    for tokenCount in [1, 2, 23, 24, 25, 130] {
      let stride = columnCount + 7
      let x = (0..<tokenCount * stride).map { _ in Float(generator.nextUnit() - 0.5) }
      func bytes(_ quantise: (ActivationBlocks) -> Void) -> [UInt8] {
        let byteCount = ActivationBlocks.byteCount(
          tokenCapacity: tokenCount, columnCount: columnCount)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 64)
        defer { memory.deallocate() }
        memory.initializeMemory(as: UInt8.self, repeating: 0)
        quantise(ActivationBlocks(memory: memory.baseAddress!, columnCount: columnCount))
        return Array(memory)
      }
      let alone = bytes { $0.quantise(x, stride: stride, tokens: 0..<tokenCount) }
      let shared = bytes {
        quantiser.quantise(x, stride: stride, tokenCount: tokenCount, into: $0)
      }
      #expect(alone == shared && alone.contains { $0 != 0 })
    }
  }
}
