import BlockIO
import ModelFormat
import TensorBasics

/// Reads single rows of tables that are not in memory, several at a time.
///
/// From an interleaved table the row's whole group is read. Slots are used round robin, so that rows
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
  private var submitted = 0
  private var consumed = 0

  /// - Parameter tables: the tensors that rows will be read from.
  init(source: ModelSource, tables: [Int]) throws(LoaderError) {
    self.source = source
    var largest = 1
    for table in tables {
      largest = max(largest, Self.unitByteCount(source.description.tensors[table]))
    }
    slotByteCount = AlignedBuffer.roundedUp(largest) + AlignedBuffer.pageByteCount
    slotCount = max(1, min(16, (1 << 20) / slotByteCount))
    isReady = [Bool](repeating: false, count: slotCount)
    neededByteCount = [Int](repeating: 0, count: slotCount)
    do { buffer = try AlignedBuffer(byteCount: slotCount * slotByteCount) } catch {
      throw .allocation(error)
    }
    places = Array(repeating: (UnsafeRawPointer(buffer.address), .rowMajor), count: slotCount)
  }

  /// Memory that a reader of `tables` takes.
  static func byteCount(_ tables: [TensorRecord]) -> Int {
    let largest = tables.map(unitByteCount).max() ?? 1
    let slot = AlignedBuffer.roundedUp(largest) + AlignedBuffer.pageByteCount
    return max(1, min(16, (1 << 20) / slot)) * slot
  }

  var hasFreeSlot: Bool { submitted - consumed < slotCount }
  var isNextReady: Bool { submitted > consumed && isReady[consumed % slotCount] }

  /// The next row (or its group) in order, once ``isNextReady``.
  var next: (address: UnsafeRawPointer, layout: RowLayout) { places[consumed % slotCount] }

  func consumeNext() { consumed += 1 }

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
    let alignment = source.device.alignment
    let alignedStart = start / alignment * alignment
    let alignedEnd = (start + unit + alignment - 1) / alignment * alignment
    let slot = submitted % slotCount
    isReady[slot] = false
    let destination = buffer.address + slot * slotByteCount
    places[slot] = (UnsafeRawPointer(destination + (start - alignedStart)), record.layout)
    neededByteCount[slot] = start - alignedStart + unit
    submitted += 1
    return ReadRequest(
      fileIndex: record.fileIndex, offset: alignedStart,
      destination: UnsafeMutableRawBufferPointer(
        start: destination, count: alignedEnd - alignedStart),
      tag: Tag.row(slot))
  }

  /// Takes a completed read; false where the file ended inside the row.
  func complete(slot: Int, byteCount: Int) -> Bool {
    isReady[slot] = true
    return byteCount >= neededByteCount[slot]
  }

  private static func unitByteCount(_ record: TensorRecord) -> Int {
    switch record.layout {
    case .interleaved: RowGroup.byteCount(record.type, columnCount: record.columnCount)
    case .rowMajor: record.byteCount / record.rowCount
    }
  }
}
