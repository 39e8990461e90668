import Kernels
import TensorBasics
import Testing

@Suite struct TopSelectionTests {
  @Test(arguments: UInt64(0)..<20)
  func `The largest of values are those of a sort`(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let count = Int.random(in: 1...600, using: &generator)
    let values = (0..<count).map { _ in
      Bool.random(using: &generator)
        ? Float(generator.nextUnit()) : Float(generator.next() % 5) * 1e-3
    }
    let wanted = Int.random(in: 0...count, using: &generator)
    var indexes = [Int32](repeating: -1, count: max(1, wanted))
    TopSelection.largest(wanted, of: values, valueCount: count, into: &indexes)
    let expected = values.indices
      .sorted { values[$0] != values[$1] ? values[$0] > values[$1] : $0 < $1 }
      .prefix(wanted).sorted().map(Int32.init)
    #expect(Array(indexes.prefix(wanted)) == expected)
  }
}
