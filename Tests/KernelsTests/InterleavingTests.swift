import Kernels
import TensorBasics
import Testing

@Suite struct InterleavingTests {
  /// The layout of `docs/format.md` §5, byte for byte.
  private func reference(_ rows: [[UInt8]?], _ type: ElementType, columnCount: Int) -> [UInt8] {
    let blockByteCount = RowGroup.blockByteCount(type)
    let (lone, count) = (type.layout.loneOffset, type.layout.loneByteCount)
    func byte(_ row: Int, _ offset: Int) -> UInt8 {
      guard row < rows.count, let bytes = rows[row], offset < bytes.count else { return 0 }
      return bytes[offset]
    }
    var group: [UInt8] = []
    for block in 0..<RowGroup.blockCount(type, columnCount: columnCount) {
      let start = block * blockByteCount
      for row in 0..<16 { group += (0..<count).map { byte(row, start + lone + $0) } }
      for word in 0..<blockByteCount / 4 {
        let offset = start + (lone == 0 ? count : 0) + 4 * word
        for row in 0..<16 { group += (0..<4).map { byte(row, offset + $0) } }
      }
    }
    return group
  }

  @Test(arguments: ElementType.allCases)
  func `Rows anywhere are interleaved as the format says, missing ones as zeros`(
    type: ElementType
  ) {
    for seed in UInt64(0)..<25 {
      var generator = SeededGenerator(seed: seed)
      let unit = type.blockElementCount
      let columns = unit * Int.random(in: 1...(unit == 1 ? 77 : 5), using: &generator)
      let rowCount = Int.random(in: 0...16, using: &generator)
      let random = RandomRows(type, rowCount: 16, columnCount: columns, using: &generator)
      let byteCount = random.rowByteCount
      // At odd addresses, in descending order.
      let memory = UnsafeMutableRawPointer.allocate(
        byteCount: 16 * (byteCount + 1), alignment: 64)
      defer { memory.deallocate() }
      var rows: [[UInt8]?] = []
      var pointers: [UnsafeRawPointer?] = []
      for row in 0..<16 {
        let bytes = Array(random.bytes[row * byteCount..<(row + 1) * byteCount])
        let address = memory + (15 - row) * (byteCount + 1)
        address.copyMemory(from: bytes, byteCount: byteCount)
        let isMissing = generator.next() % 5 == 0
        if row < rowCount { rows.append(isMissing ? nil : bytes) }
        pointers.append(isMissing ? nil : UnsafeRawPointer(address))
      }
      let expected = reference(rows, type, columnCount: columns)
      for set in [.scalar] + MatrixProductTests.vectorSets {
        var group = [UInt8](repeating: 0xEE, count: expected.count)
        Interleaving.interleave(
          rowPointers: pointers, rowCount: rowCount, type: type, columnCount: columns,
          into: &group, instructionSet: set)
        #expect(group == expected, "seed \(seed), \(set)")
        if rowCount > 0 {
          Interleaving.interleave(
            rows: random.bytes, rowByteCount: byteCount, rowCount: rowCount, type: type,
            columnCount: columns, into: &group, instructionSet: set)
          let whole = (0..<rowCount).map {
            Array(random.bytes[$0 * byteCount..<($0 + 1) * byteCount])
          }
          #expect(
            group == reference(whole, type, columnCount: columns), "seed \(seed), \(set)")
        }
      }
    }
  }
}
