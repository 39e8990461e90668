import BlockIO
import Kernels
import ModelFormat
import TensorBasics

/// Rows of tensors as 32-bit floats, within the loader's budget, until the object is gone.
public final class LoadedValues: Sendable {
  /// The parts asked for.
  public let parts: [TensorPart]
  private let ranges: [Range<Int>]
  private let memory: HeldMemory

  fileprivate init(_ parts: [TensorPart], ranges: [Range<Int>], in memory: HeldMemory) {
    self.parts = parts
    self.ranges = ranges
    self.memory = memory
  }

  /// Calls `body` with the values of `parts[index]`, row after row, which are valid during the call.
  public func withValues<Result, Failure>(
    _ index: Int = 0, _ body: (Span<Float>) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    defer { extendLifetime(self) }
    let values = UnsafeBufferPointer(memory.bytes.bindMemory(to: Float.self))
    return try body(UnsafeBufferPointer(rebasing: values[ranges[index]]).span)
  }
}

extension TensorLoader {
  /// Memory within the budget, for what a program makes of tensors.
  ///
  /// - Throws: ``LoaderError/tensorsInUse(wanted:free:limit:)``, ``LoaderError/allocation(_:)``, and what every
  ///   call may throw.
  public func allocate(byteCount: Int) throws(LoaderError) -> HeldMemory {
    try enter()
    defer { leave() }
    return try HeldMemory(byteCount: max(0, min(byteCount, 1 << 60)), isZero: true, of: account)
  }

  /// Converts rows of `tensor` to 32-bit floats.
  ///
  /// - Parameters:
  ///   - tensor: Index into ``tensors``.
  ///   - bytes: As a piece or load has them: they begin with a whole row, interleaved ones with a group.
  ///   - rows: Counted from the first of `bytes`.
  ///   - values: Room for the rows, [rows.count, columnCount], in the caller's memory or that of
  ///     ``allocate(byteCount:)``.
  /// - Throws: ``LoaderError/notWeights(_:type:path:)``, ``LoaderError/badRows(_:)`` where `bytes` do not hold the
  ///   rows or `values` has no room for them, ``LoaderError/noSuchTensorIndex(_:count:path:)``.
  public func dequantise(
    _ tensor: Int, _ bytes: RawSpan, rows: Range<Int>, into values: inout MutableSpan<Float>
  ) throws(LoaderError) {
    try values.withUnsafeMutableBufferPointer { (values) throws(LoaderError) in
      try bytes.withUnsafeBytes { (bytes) throws(LoaderError) in
        try dequantise(tensor, bytes, rows: rows, into: values)
      }
    }
  }

  /// As the public one.
  package func dequantise(
    _ tensor: Int, _ bytes: UnsafeRawBufferPointer, rows: Range<Int>,
    into values: UnsafeMutableBufferPointer<Float>
  ) throws(LoaderError) {
    guard tensors.indices.contains(tensor) else {
      throw .noSuchTensorIndex(tensor, count: tensors.count, path: path)
    }
    let record = tensors[tensor]
    guard let type = record.type.elementType else {
      throw .notWeights(record.name, type: record.type.name, path: path)
    }
    let unitByteCount = record.unitByteCount
    let unitRowCount = record.unitRowCount
    let held = unitByteCount == 0 ? 0 : bytes.count / unitByteCount * unitRowCount
    guard rows.lowerBound >= 0, rows.upperBound <= held else {
      throw .badRows(
        "\(bytes.count) bytes of '\(record.name)' hold \(held) rows, not \(rows.count) from row "
          + "\(rows.lowerBound)")
    }
    let columnCount = record.columnCount
    let needed = rows.count.multipliedReportingOverflow(by: columnCount)
    guard !needed.overflow, needed.partialValue <= values.count else {
      throw .badRows(
        "values has room for \(values.count) floats; \(rows.count) rows of \(columnCount) do not fit"
      )
    }
    guard let data = bytes.baseAddress, let output = values.baseAddress else { return }
    for (index, row) in rows.enumerated() {
      let target = output + index * columnCount
      let unit = data + row / unitRowCount * unitByteCount
      switch record.layout {
      case .interleaved:
        Dequantisation.row(
          inGroup: unit, row: row % unitRowCount, type: type, columnCount: columnCount, into: target
        )
      case .rowMajor:
        Dequantisation.row(unit, type: type, columnCount: columnCount, into: target)
      }
    }
  }

  /// Reads `parts` as 32-bit floats, some rows at a time: the budget holds the floats and a few reads, never
  /// also the parts as they are in the file.
  ///
  /// - Throws: ``LoaderError/tensorsInUse(wanted:free:limit:)`` where the budget has no room for the floats,
  ///   ``LoaderError/notWeights(_:type:path:)``, and as `load(_:)`.
  public func loadValues(_ parts: [TensorPart]) throws(LoaderError) -> LoadedValues {
    let floatCounts = try values(in: parts)
    var ranges: [Range<Int>] = []
    for count in floatCounts {
      let start = ranges.last?.upperBound ?? 0
      ranges.append(start..<start + count)
    }
    let memory = try allocate(
      byteCount: (ranges.last?.upperBound ?? 0) * MemoryLayout<Float>.stride)
    let target = memory.bytes.bindMemory(to: Float.self)
    var filled = 0
    try forEachBatch(of: parts) { (batch, loaded) throws(LoaderError) in
      for (index, part) in batch.enumerated() {
        guard let rows = part.rows else { continue }
        let count = rows.count * tensors[part.tensor].columnCount
        let first = rows.lowerBound - loaded.rows(index).lowerBound
        try dequantise(
          part.tensor, loaded.bytes(index), rows: first..<first + rows.count,
          into: UnsafeMutableBufferPointer(rebasing: target[filled..<filled + count]))
        filled += count
      }
    }
    return LoadedValues(parts, ranges: ranges, in: memory)
  }

  /// Reads the tensor of that name as 32-bit floats; as `loadValues(_:)`.
  public func loadValues(_ name: String) throws(LoaderError) -> LoadedValues {
    guard let index = index(of: name) else { throw .noSuchTensor(name, path: path) }
    return try loadValues((0..<tensors[index].partCount).map { TensorPart(index, part: $0) })
  }

  /// How many values each part has.
  private func values(in parts: [TensorPart]) throws(LoaderError) -> [Int] {
    try check(parts)
    var counts: [Int] = []
    for part in parts {
      let tensor = tensors[part.tensor]
      guard tensor.type.elementType != nil else {
        throw .notWeights(tensor.name, type: tensor.type.name, path: path)
      }
      counts.append((part.rows?.count ?? tensor.partRowCount) * tensor.columnCount)
    }
    return counts
  }

  /// Loads `parts` in batches of rows of about one read each, the next ones while `body` works on one.
  private func forEachBatch(
    of parts: [TensorPart],
    _ body: (_ batch: [TensorPart], _ loaded: LoadedTensors) throws(LoaderError) -> Void
  ) throws(LoaderError) {
    var batches = RowBatches(parts, of: tensors, byteCount: plan.readByteCount)
    var asked: [[TensorPart]] = []
    defer { for batch in asked { try? cancelPrefetch(batch) } }
    while true {
      // As many as memory has room for; at least one, which says so where it has not.
      while asked.count < Self.batchLimit, let batch = batches.peek() {
        do { try prefetch(batch) } catch {
          guard case .tensorsInUse = error, !asked.isEmpty else { throw error }
          break
        }
        asked.append(batch)
        batches.step()
      }
      guard let batch = asked.first else { return }
      let loaded = try load(batch)
      asked.removeFirst()
      try body(batch, loaded)
    }
  }

  /// Batches that are read ahead.
  private static let batchLimit = 8
}

/// Rows of parts in batches of about equal length.
private struct RowBatches {
  private let parts: [TensorPart]
  private let tensors: [LoadableTensor]
  private let byteCount: Int
  private var index = 0
  /// Rows of the part that were in batches before.
  private var rowCount = 0
  private var next: [TensorPart]?

  init(_ parts: [TensorPart], of tensors: [LoadableTensor], byteCount: Int) {
    self.parts = parts
    self.tensors = tensors
    self.byteCount = byteCount
    next = make()
  }

  /// The next batch, each of whose parts names its rows; nil at the end.
  func peek() -> [TensorPart]? { next }

  mutating func step() { next = make() }

  private mutating func make() -> [TensorPart]? {
    var batch: [TensorPart] = []
    var left = byteCount
    while index < parts.count {
      var part = parts[index]
      let tensor = tensors[part.tensor]
      let rows = part.rows ?? 0..<tensor.partRowCount
      let first = rows.lowerBound + rowCount
      // Whole groups of interleaved rows, so that none is read twice.
      let units = max(batch.isEmpty ? 1 : 0, left / max(1, tensor.unitByteCount))
      let end = min(
        rows.upperBound, (first / tensor.unitRowCount + units) * tensor.unitRowCount)
      guard end > first || rows.isEmpty else { break }
      part.rows = first..<max(first, end)
      batch.append(part)
      left -= tensor.extent(of: part).byteCount
      if end < rows.upperBound {
        rowCount = end - rows.lowerBound
        break
      }
      (index, rowCount) = (index + 1, 0)
    }
    return batch.isEmpty ? nil : batch
  }
}
