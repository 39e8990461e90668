import Kernels
import ModelFormat
import Synchronization
import TensorBasics

/// Turns row-major rows of a source into an image's bytes: as they are, with 1 added, unpacked or quantised;
/// then row after row, or interleaved.
final class TensorEncoder {
  private let source: TensorRecord
  private let target: TensorRecord
  private let derivation: TensorDerivation?
  private let memory: AlignedBuffer
  /// Rows in the target's type, where that differs from the source's bytes.
  private let rows: UnsafeMutableRawPointer
  /// Interleaved groups of a chunk.
  private let groups: UnsafeMutableRawPointer
  /// One row as f32 for each thread.
  private let values: UnsafeMutablePointer<Float>
  private let pool: ThreadPool

  /// - Parameters:
  ///   - rowCapacity: the most rows a call brings; nil = a chunk of ``RowChunkReader``.
  ///   - pool: converts rows.
  init(
    from source: TensorRecord, to target: TensorRecord, _ derivation: TensorDerivation? = nil,
    rowCapacity: Int? = nil, pool: ThreadPool
  ) throws(ConversionError) {
    let rowCount = rowCapacity ?? RowChunkReader.rowsPerChunk(source)
    let groupCount = RowGroup.groupCount(rows: rowCount)
    let rowsByteCount = AlignedBuffer.roundedUp(rowCount * Self.rowByteCount(target))
    let groupsByteCount = AlignedBuffer.roundedUp(
      groupCount * RowGroup.byteCount(target.type, columnCount: target.columnCount))
    do throws(AllocationError) {
      memory = try AlignedBuffer(
        byteCount: rowsByteCount + groupsByteCount
          + 4 * source.columnCount * pool.threadCount)
    } catch { throw .allocation(error) }
    self.source = source
    self.target = target
    self.derivation = derivation
    rows = memory.address
    groups = rows + rowsByteCount
    values = (groups + groupsByteCount).bindMemory(
      to: Float.self, capacity: source.columnCount * pool.threadCount)
    self.pool = pool
  }

  private static func rowByteCount(_ record: TensorRecord) -> Int {
    record.type.rowByteCount(columnCount: record.columnCount) ?? 0
  }

  /// The image's bytes of `rowCount` rows at `address`; valid until the next call.
  ///
  /// - Parameters:
  ///   - firstRow: number of the first row, to be named.
  ///   - rowCount: whole row groups, except at the tensor's end.
  ///   - packed: of a packed matrix, what unpacks the rows.
  /// - Throws: ``ConversionError/notPossible(_:)`` if a weight is too large for the target's scales.
  func encode(
    _ address: UnsafeRawPointer, firstRow: Int, rowCount: Int, packed: PackedRows? = nil
  ) throws(ConversionError) -> UnsafeRawBufferPointer {
    let rows = try converted(address, firstRow: firstRow, rowCount: rowCount, packed)
    let rowByteCount = Self.rowByteCount(target)
    guard target.layout == .interleaved else {
      return UnsafeRawBufferPointer(start: rows, count: rowCount * rowByteCount)
    }
    let groupByteCount = RowGroup.byteCount(target.type, columnCount: target.columnCount)
    let groupCount = RowGroup.groupCount(rows: rowCount)
    for group in 0..<groupCount {
      let first = group * RowGroup.rowCount
      Interleaving.interleave(
        rows: rows + first * rowByteCount, rowByteCount: rowByteCount,
        rowCount: min(RowGroup.rowCount, rowCount - first), type: target.type,
        columnCount: target.columnCount, into: groups + group * groupByteCount)
    }
    return UnsafeRawBufferPointer(start: groups, count: groupCount * groupByteCount)
  }

  /// Refuses quantised rows with a scale that did not fit in its bits: their weights would be infinite.
  ///
  /// - Parameters:
  ///   - rows: [rowCount, columnCount] of `type`.
  ///   - place: what the row is, for people.
  static func checkScales(
    _ rows: UnsafeRawPointer, type: ElementType, columnCount: Int, rowCount: Int = 1,
    _ place: (_ row: Int) -> String
  ) throws(ConversionError) {
    guard
      let found = WeightValues.firstNotFinite(
        rows, type: type, columnCount: columnCount, rowCount: rowCount)
    else { return }
    throw .notPossible(
      "\(place(found.row)) cannot be stored as \(type.name): a weight from column \(found.column) on is too large "
        + "for its scale; convert without quantising")
  }

  /// The rows in the target's type; the source's own bytes where nothing changes.
  private func converted(
    _ address: UnsafeRawPointer, firstRow: Int, rowCount: Int, _ packed: PackedRows?
  ) throws(ConversionError) -> UnsafeRawPointer {
    guard source.type != target.type || derivation != nil else { return address }
    let firstBad = Atomic(Int.max)
    func convert(_ index: Int, _ values: UnsafeMutablePointer<Float>) throws(ConversionError) {
      let input = address + index * (source.byteCount / source.rowCount)
      try convertRow(
        input, row: firstRow + index, packed, values,
        to: rows + index * Self.rowByteCount(target))
    }
    try packed?.prepare(rows: firstRow..<firstRow + rowCount)
    pool.run(count: rowCount) { index, worker in
      do throws(ConversionError) {
        try convert(index, values + worker * source.columnCount)
      } catch { firstBad.min(index, ordering: .relaxed) }
    }
    // The same row again, for its error.
    let row = firstBad.load(ordering: .relaxed)
    if row < rowCount { try convert(row, values) }
    if target.type.isQuantised {
      try Self.checkScales(
        rows, type: target.type, columnCount: target.columnCount, rowCount: rowCount
      ) { [source] in "row \(firstRow + $0) of tensor '\(source.name)'" }
    }
    return UnsafeRawPointer(rows)
  }

  /// Writes one row in the target's type; several threads may do so.
  ///
  /// - Parameter values: the thread's own row of f32.
  private func convertRow(
    _ input: UnsafeRawPointer, row: Int, _ packed: PackedRows?,
    _ values: UnsafeMutablePointer<Float>, to output: UnsafeMutableRawPointer
  ) throws(ConversionError) {
    if let packed {
      if target.type == packed.exactType {
        return try packed.repack(input, row: row, into: output)
      }
      try packed.unpack(input, row: row, into: values)
    } else if case .everyOther(let first) = derivation {
      try takeEveryOther(input, from: first, into: values)
    } else {
      Dequantisation.row(
        input, type: source.type, columnCount: source.columnCount, into: values)
      derivation?.apply(to: values, count: source.columnCount)
    }
    guard fits(values) else {
      throw .notPossible(
        "row \(row) of tensor '\(source.name)' cannot be stored as \(target.type.name): it has a weight beyond "
          + "2^27; convert without quantising")
    }
    Self.store(values, as: target, at: output)
  }

  /// Reads every other of twice as many elements.
  private func takeEveryOther(
    _ input: UnsafeRawPointer, from first: Int, into values: UnsafeMutablePointer<Float>
  ) throws(ConversionError) {
    let size = source.type.blockByteCount
    for column in 0..<source.columnCount {
      Dequantisation.row(
        input + (2 * column + first) * size, type: source.type, columnCount: 1,
        into: values + column)
      guard values[column].isFinite else {
        throw .notPossible(
          "element \(column) of tensor '\(source.name)' is \(values[column]): a weight must be a finite number"
        )
      }
    }
  }

  /// Whether a row may be quantised: beyond what 16-bit scales reach anyway, the squares that the search for scales
  /// adds up would overflow, and a block become zeros.
  private func fits(_ values: UnsafePointer<Float>) -> Bool {
    guard target.type.isQuantised else { return true }
    var largest: Float = 0
    for column in 0..<source.columnCount { largest = max(largest, abs(values[column])) }
    return largest <= 0x1p27 || !largest.isFinite
  }

  /// Writes a row in the target's type.
  private static func store(
    _ values: UnsafePointer<Float>, as target: TensorRecord, at output: UnsafeMutableRawPointer
  ) {
    switch target.type {
    case .f32: output.copyMemory(from: values, byteCount: rowByteCount(target))
    case .bf16:
      for column in 0..<target.columnCount {
        output.storeBytes(
          of: BrainFloat.bits(values[column]).littleEndian, toByteOffset: 2 * column,
          as: UInt16.self)
      }
    default:
      Quantisation.row(values, type: target.type, columnCount: target.columnCount, into: output)
    }
  }
}

/// The upper half of an f32.
enum BrainFloat {
  /// The nearest one, ties to the even.
  static func bits(_ value: Float) -> UInt16 {
    let bits = value.bitPattern
    return UInt16(truncatingIfNeeded: (bits &+ 0x7FFF &+ (bits >> 16 & 1)) >> 16)
  }
}
