import TensorBasics
import Testing

@Suite struct ElementTypeTests {
  @Test(arguments: ElementType.allCases)
  func `A type's name, blocks and row groups agree`(type: ElementType) throws {
    #expect(ElementType(name: type.name) == type)
    #expect(ElementType(rawValue: type.rawValue) == type)
    #expect(type.isQuantised == (type.blockElementCount > 1))
    let columns = 3 * 256
    let row = try #require(type.rowByteCount(columnCount: columns))
    #expect(row == columns / type.blockElementCount * type.blockByteCount)
    #expect(RowGroup.byteCount(type, columnCount: columns) == RowGroup.rowCount * row)
    // Words of four bytes and, before or after them, up to two bytes alone.
    guard type.isQuantised else { return }
    let layout = type.layout
    #expect((layout.byteCount - layout.loneByteCount) % 4 == 0)
    #expect([0, layout.byteCount - layout.loneByteCount].contains(layout.loneOffset))
    for offset in layout.halfOffsets { #expect((0...layout.byteCount - 2).contains(offset)) }
  }

  @Test(arguments: ElementType.allCases)
  func `Rows that are no whole number of blocks have no length`(type: ElementType) {
    #expect(type.rowByteCount(columnCount: 0) == nil)
    #expect(type.rowByteCount(columnCount: -type.blockElementCount) == nil)
    if type.isQuantised {
      #expect(type.rowByteCount(columnCount: type.blockElementCount + 1) == nil)
    }
    let most = Int.max / type.blockElementCount * type.blockElementCount
    if type.blockByteCount > type.blockElementCount {
      #expect(type.rowByteCount(columnCount: most) == nil, "more bytes than an Int counts")
    }
  }

  @Test func `Groups of sixteen rows cover any number of rows`() {
    for rows in 0..<100 {
      let groups = RowGroup.groupCount(rows: rows)
      #expect(groups * RowGroup.rowCount >= rows)
      #expect(groups == 0 || (groups - 1) * RowGroup.rowCount < rows)
    }
  }
}
