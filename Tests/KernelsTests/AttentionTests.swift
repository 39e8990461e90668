import Glibc
import Kernels
import TensorBasics
import Testing

@Suite struct AttentionTests {
  /// A head's cache with random content, and queries with what they see.
  private struct Case {
    let headDim: Int
    let positionCount: Int
    let keys: [Float]
    let values: [Float]
    let queries: [Float]
    let visible: [VisibleRange]
    var queryCount: Int { visible.count }

    init(seed: UInt64, scale: Double, positionCount given: Int? = nil) {
      var generator = SeededGenerator(seed: seed)
      headDim = 16 * Int.random(in: 1...8, using: &generator)
      positionCount =
        given
        ?? [1, 15, 16, 17, 511, 512, 513, Int.random(in: 1...1600, using: &generator)]
        .randomElement(using: &generator) ?? 1
      func random(_ count: Int, _ scale: Double) -> [Float] {
        (0..<count).map { _ in Float(Float16((generator.nextUnit() * 2 - 1) * scale)) }
      }
      keys = random(positionCount * headDim, 1)
      values = random(positionCount * headDim, 2)
      let queryCount = Int.random(in: 1...14, using: &generator)
      queries = random(queryCount * headDim, scale)
      visible = (0..<queryCount).map { [positionCount] _ in
        let last = Int.random(in: 0..<positionCount, using: &generator)
        let first = Bool.random(using: &generator) ? 0 : Int.random(in: 0...last, using: &generator)
        return VisibleRange(first: Int32(first), last: Int32(last))
      }
    }

    private var groupCount: Int { (positionCount + 15) / 16 }
    private var groupByteCount: Int { KeyValueGroup.byteCount(headDim: headDim) }

    /// Where a group lies: the last comes first.
    private func offset(ofGroup group: Int) -> Int { (groupCount - 1 - group) * groupByteCount }

    /// The groups of the cache, stored by `set`.
    func groups(_ set: InstructionSet) -> [UInt16] {
      var memory = [UInt16](repeating: 0x7E00, count: groupCount * groupByteCount / 2)  // NaN
      // Slots after the last position exist in a cache as zeros.
      let padding = [Float](repeating: 0, count: 15 * headDim)
      let (keys, values) = (keys + padding, values + padding)
      memory.withUnsafeMutableBytes { memory in
        for position in 0..<groupCount * 16 {
          keys.withUnsafeBufferPointer { keys in
            values.withUnsafeBufferPointer { values in
              KeyValueBlock.store(
                key: keys.baseAddress! + position * headDim,
                value: values.baseAddress! + position * headDim, headDim: headDim,
                position: position % 16,
                into: memory.baseAddress! + offset(ofGroup: position / 16), instructionSet: set)
            }
          }
        }
      }
      return memory
    }

    /// Where the tiles' equal shares of that many workers end.
    func cuts(workerCount: Int) -> Set<Int> {
      let tileCount = (positionCount + 511) / 512
      return Set((1...workerCount).map { $0 * tileCount / workerCount })
    }

    /// Ends of runs of one tile each.
    var everyTile: Set<Int> { Set(1...(positionCount + 511) / 512) }

    /// Attention's output, tiles in runs that end at `cuts` merged in order.
    ///
    /// - Parameter absent: groups that are not attended over.
    func output(_ set: InstructionSet, cuts: Set<Int> = [], absent: Set<Int> = []) -> [Float] {
      let memory = groups(set)
      let tileCount = (positionCount + 511) / 512
      let partialByteCount = AttentionPartials.byteCount(
        queryCount: queryCount, headDim: headDim)
      let partials = UnsafeMutableRawPointer.allocate(
        byteCount: 2 * partialByteCount, alignment: 64)
      let scratch = UnsafeMutableRawPointer.allocate(
        byteCount: AttentionKernel.scratchByteCount(queryCount: queryCount, headDim: headDim),
        alignment: 64)
      defer {
        partials.deallocate()
        scratch.deallocate()
      }
      let total = AttentionPartials(
        memory: partials, queryCount: queryCount, headDim: headDim)
      let part = AttentionPartials(
        memory: partials + partialByteCount, queryCount: queryCount, headDim: headDim)
      total.reset()
      part.reset()
      memory.withUnsafeBytes { memory in
        for tile in 0..<tileCount {
          let target = cuts.isEmpty ? total : part
          let groups = (32 * tile..<32 * tile + 32).map { group -> UnsafeRawPointer? in
            group < groupCount && !absent.contains(group)
              ? memory.baseAddress! + offset(ofGroup: group) : nil
          }
          AttentionKernel.accumulate(
            groups: groups, tileFirstPosition: tile * 512, headDim: headDim, queries: queries,
            queryStride: headDim, visible: visible, queryCount: queryCount, into: target,
            scratch: scratch, instructionSet: set)
          if cuts.contains(tile + 1) {
            AttentionKernel.merge(into: total, from: part, instructionSet: set)
            part.reset()
          }
        }
      }
      var output = [Float](repeating: .nan, count: queryCount * headDim)
      output.withUnsafeMutableBufferPointer {
        AttentionKernel.finish(total, into: $0.baseAddress!, outputStride: headDim)
      }
      return output
    }

    /// Textbook attention in f64; 0 where nothing is seen.
    func reference(absent: Set<Int> = []) -> [Double] {
      visible.enumerated().flatMap { query, range -> [Double] in
        let positions = (range.first...range.last).map(Int.init).filter {
          !absent.contains($0 / 16)
        }
        guard !positions.isEmpty else { return Array(repeating: 0, count: headDim) }
        let scores = positions.map { position in
          (0..<headDim).reduce(0.0) {
            $0 + Double(queries[query * headDim + $1]) * Double(keys[position * headDim + $1])
          }
        }
        let highest = scores.max() ?? 0
        let weights = scores.map { exp($0 - highest) }
        let sum = weights.reduce(0, +)
        return (0..<headDim).map { element in
          zip(positions, weights).reduce(0.0) {
            $0 + $1.1 * Double(values[$1.0 * headDim + element])
          } / sum
        }
      }
    }
  }

  @Test func `Every instruction set gives the scalar twin's bits, and f64's value`() {
    for seed in UInt64(0)..<60 {
      // Scales up to logits of about ±80.
      let attention = Case(seed: seed, scale: [0.1, 1, 8][Int(seed % 3)])
      let scalar = attention.output(.scalar)
      for set in MatrixProductTests.vectorSets {
        #expect(
          attention.output(set).map(\.bitPattern) == scalar.map(\.bitPattern),
          "seed \(seed), \(set)")
      }
      for (found, expected) in zip(scalar, attention.reference()) {
        #expect((Double(found) - expected).magnitude < 2e-5 * 2, "seed \(seed)")
      }
    }
  }

  @Test func `Positions of groups that are not there weigh nothing`() {
    for seed in UInt64(300)..<360 {
      let attention = Case(seed: seed, scale: 1)
      var generator = SeededGenerator(seed: seed)
      let some = [2, 5, 20].randomElement(using: &generator)!
      // Single ones, and whole runs.
      let absent = Set(
        (0..<attention.positionCount / 16 + 1).filter {
          Int.random(in: 0..<some, using: &generator) == 0 || $0 / 8 % 3 == Int(seed % 4)
        })
      let scalar = attention.output(.scalar, absent: absent)
      for set in MatrixProductTests.vectorSets {
        #expect(
          attention.output(set, absent: absent).map(\.bitPattern) == scalar.map(\.bitPattern),
          "seed \(seed), \(set)")
      }
      for (found, expected) in zip(scalar, attention.reference(absent: absent)) {
        #expect((Double(found) - expected).magnitude < 2e-5 * 2, "seed \(seed)")
      }
    }
  }

  @Test(arguments: [1, 127, 128, 129, 512, 513, 1025, 2047, 4096, 4097])
  func `Long contexts keep to f64's value however tiles are shared out`(positionCount: Int) {
    for seed in UInt64(200)..<203 {
      let attention = Case(
        seed: seed, scale: [0.1, 1, 8][Int(seed % 3)], positionCount: positionCount)
      let whole = attention.output(.best)
      let expected = attention.reference()
      let highest = attention.values.map(\.magnitude).max() ?? 0
      // Each worker's tiles are merged among themselves, then the workers' partials.
      for workerCount in [1, 2, 3, 5] {
        let shared = attention.output(.best, cuts: attention.cuts(workerCount: workerCount))
        for (found, value) in zip(shared, expected) {
          #expect(
            (Double(found) - value).magnitude <= 1e-5 * Double(highest), "seed \(seed)")
        }
      }
      #expect(attention.output(.best) == whole, "seed \(seed)")
    }
  }

  @Test func `Merging tile by tile is accumulating them`() {
    for seed in UInt64(100)..<130 {
      let attention = Case(seed: seed, scale: 2)
      for set in [.scalar] + MatrixProductTests.vectorSets {
        let merged = attention.output(set, cuts: attention.everyTile)
        #expect(merged == attention.output(set), "seed \(seed), \(set)")
      }
    }
  }
}
