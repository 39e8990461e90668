import BlockIO
import ModelFormat
import TensorBasics

/// Reads single rows of tables that are not in memory, several at a time.
///
/// From an interleaved table the row's whole group is read, from an image the extents around it, which
/// are checked. Slots are used round robin, so that rows
/// complete in any order and are consumed in the order of their submission.
final class RowReader {
  /// Rows read at once.
  let slotCount: Int

  private let source: ModelSource
  private let buffer: AlignedBuffer
  private let slotByteCount: Int
  private var isReady: [Bool]
  /// Where each slot's row is: in the slot, or in pinned memory.
  private var places: [(address: UnsafeRawPointer, layout: RowLayout)]
  private var neededByteCount: [Int]
  private var fileIndexes: [Int]
  /// The image's extents that a slot's read brings.
  private var extents: [Range<Int>?]
  private let verifier: ExtentVerifier?
  private var submitted = 0
  private var consumed = 0

  /// - Parameter tables: the tensors that rows will be read from.
  init(
    source: ModelSource, tables: [Int], verifier: ExtentVerifier?
  ) throws(LoaderError) {
    self.source = source
    self.verifier = verifier
    slotByteCount = Self.slotByteCount(
      tables.map { source.description.tensors[$0] }, in: source.description)
    slotCount = Self.slotCount(slotByteCount)
    extents = [Range<Int>?](repeating: nil, count: slotCount)
    isReady = [Bool](repeating: false, count: slotCount)
    neededByteCount = [Int](repeating: 0, count: slotCount)
    fileIndexes = neededByteCount
    do { buffer = try AlignedBuffer(byteCount: slotCount * slotByteCount) } catch {
      throw .allocation(error)
    }
    places = Array(repeating: (UnsafeRawPointer(buffer.address), .rowMajor), count: slotCount)
  }

  /// Memory that a reader of `tables` takes.
  static func byteCount(_ tables: [TensorRecord], in model: ModelDescription) -> Int {
    let slot = slotByteCount(tables, in: model)
    return slotCount(slot) * slot
  }

  private static func slotCount(_ slotByteCount: Int) -> Int {
    max(1, min(16, (1 << 20) / slotByteCount))
  }

  /// Room for any row of `tables`: of an image the extents around it.
  private static func slotByteCount(_ tables: [TensorRecord], in model: ModelDescription) -> Int {
    var largest = 1
    for table in tables {
      let unit = unitByteCount(table)
      let alone = AlignedBuffer.roundedUp(unit) + AlignedBuffer.pageByteCount
      let table = Extent(
        fileIndex: table.fileIndex, offset: table.offset, byteCount: table.byteCount)
      let longest = checkedExtents(of: table, in: model)?.map(\.byteCount).max()
      largest = max(largest, longest.map { (unit / $0 + 2) * $0 } ?? alone)
    }
    return AlignedBuffer.roundedUp(largest)
  }

  /// The extents of a table, if they are short enough to be read for a single row.
  private static func checkedExtents(
    of table: Extent, in model: ModelDescription
  ) -> ArraySlice<ExtentRecord>? {
    guard let (indexes, _) = ExtentVerifier.wholeExtents(around: table, in: model),
      case let extents = model.extents[indexes],
      extents.allSatisfy({ $0.byteCount <= longestCheckedExtent })
    else { return nil }
    return extents
  }

  /// Whether the extents around a row are read with it, so that it can be checked.
  static func checksRows(of table: TensorRecord, in model: ModelDescription) -> Bool {
    checkedExtents(
      of: Extent(fileIndex: table.fileIndex, offset: table.offset, byteCount: table.byteCount),
      in: model) != nil
  }

  /// Rows in longer extents are read alone and not checked: images written before extents of tables
  /// became short.
  private static let longestCheckedExtent = 128 << 10

  var hasFreeSlot: Bool { submitted - consumed < slotCount }
  var isNextReady: Bool { submitted > consumed && isReady[consumed % slotCount] }

  /// The next row (or its group) in order, once ``isNextReady``.
  var next: (address: UnsafeRawPointer, layout: RowLayout) { places[consumed % slotCount] }

  func consumeNext() { consumed += 1 }

  /// Drops the rows that were asked for, none of which is being read any more.
  func abandon() { consumed = submitted }

  /// Queues a row that is in memory already.
  func appendResident(_ address: UnsafeRawPointer, _ layout: RowLayout) {
    let slot = submitted % slotCount
    places[slot] = (address, layout)
    isReady[slot] = true
    submitted += 1
  }

  /// The read that brings `row` of `table`.
  func request(table: Int, row: Int) -> ReadRequest {
    let record = source.description.tensors[table]
    let unit = Self.unitByteCount(record)
    let index = record.layout == .interleaved ? row / RowGroup.rowCount : row
    let start = record.offset + index * unit
    var read = Extent(fileIndex: record.fileIndex, offset: start, byteCount: unit).aligned(
      to: source.device.alignment)
    let slot = submitted % slotCount
    extents[slot] = nil
    if let (indexes, range) = ExtentVerifier.wholeExtents(around: read, in: source.description),
      range.byteCount <= slotByteCount
    {
      extents[slot] = indexes
      read = range
    }
    isReady[slot] = false
    let destination = buffer.address + slot * slotByteCount
    places[slot] = (UnsafeRawPointer(destination + (start - read.offset)), record.layout)
    neededByteCount[slot] = start - read.offset + unit
    fileIndexes[slot] = read.fileIndex
    submitted += 1
    return ReadRequest(
      fileIndex: read.fileIndex, offset: read.offset,
      destination: UnsafeMutableRawBufferPointer(start: destination, count: read.byteCount),
      tag: Tag.row(slot))
  }

  /// Takes a completed read.
  ///
  /// - Throws: ``LoaderError/format(_:)`` if the file ended inside the row, or the bytes are not what was
  ///   written.
  func complete(slot: Int, byteCount: Int) throws(LoaderError) {
    isReady[slot] = true
    guard byteCount >= neededByteCount[slot] else {
      throw .format(
        FormatError(
          .truncated, path: source.description.files[fileIndexes[slot]],
          "the file ends inside the embedding table; it was complete when it was opened"))
    }
    if let extents = extents[slot] {
      try verifier?.check(extents, at: buffer.address + slot * slotByteCount)
    }
  }

  private static func unitByteCount(_ record: TensorRecord) -> Int {
    switch record.layout {
    case .interleaved: RowGroup.byteCount(record.type, columnCount: record.columnCount)
    case .rowMajor: record.byteCount / record.rowCount
    }
  }
}
