import CKernels
public import TensorBasics

/// What all rows of a matrix have in common, and products ask for again and again.
public struct MatrixRows: Sendable {
  public let type: ElementType
  public let columnCount: Int
  /// Bytes of sixteen rows, interleaved.
  public let groupByteCount: Int
  /// As `ElementType.isQuantised`.
  public let isQuantised: Bool

  public init(_ type: ElementType, columnCount: Int) {
    self.type = type
    self.columnCount = columnCount
    groupByteCount = RowGroup.byteCount(type, columnCount: columnCount)
    isQuantised = type.isQuantised
  }
}

/// Left-hand side of a product: rows of a matrix [rowCount, columnCount].
public struct MatrixOperand: @unchecked Sendable {
  // Safety: plain memory that is not written during a product.
  /// The first row, or the first row group.
  public var address: UnsafeRawPointer
  public let rows: MatrixRows
  public var layout: RowLayout
  public let rowCount: Int

  public init(address: UnsafeRawPointer, rows: MatrixRows, layout: RowLayout, rowCount: Int) {
    self.address = address
    self.rows = rows
    self.layout = layout
    self.rowCount = rowCount
  }

  public init(
    address: UnsafeRawPointer, type: ElementType, layout: RowLayout, rowCount: Int,
    columnCount: Int
  ) {
    self.init(
      address: address, rows: MatrixRows(type, columnCount: columnCount), layout: layout,
      rowCount: rowCount)
  }
}

/// Products of weights with activations, in canonical arithmetic (`docs/decisions/0001`).
public enum MatrixProduct {
  /// Scratch that a worker needs for row-major weights: one row group.
  public static func scratchByteCount(type: ElementType, columnCount: Int) -> Int {
    RowGroup.byteCount(type, columnCount: columnCount)
  }

  /// output[token · outputStride + row] = Σ weights[row, k] · x[token, k] for the rows of `groups`.
  ///
  /// Row-major weights are interleaved group by group in `scratch`, then multiplied by the same kernel.
  ///
  /// - Parameters:
  ///   - groups: row groups of sixteen; rows past `rowCount` are not written.
  ///   - x: with blocks where the weights are quantised.
  ///   - scratch: ``scratchByteCount(type:columnCount:)`` bytes for row-major weights.
  public static func multiply(
    _ weights: MatrixOperand, groups: Range<Int>, by x: Activations,
    into output: UnsafeMutablePointer<Float>, outputStride: Int,
    scratch: UnsafeMutableRawPointer?, instructionSet: InstructionSet? = nil
  ) {
    product(
      weights, groups, x, output, outputStride, scratch, accumulates: false, instructionSet)
  }

  /// Multiplies and adds to `output`: each sum continues from what is there.
  ///
  /// Otherwise as ``multiply(_:groups:by:into:outputStride:scratch:instructionSet:)``. Multiplying blocks of a
  /// matrix's columns one after the other gives the bits of one product over all of them. For quantised weights only;
  /// a product of floats has four sums an output, which cannot be continued.
  public static func accumulate(
    _ weights: MatrixOperand, groups: Range<Int>, by x: Activations,
    into output: UnsafeMutablePointer<Float>, outputStride: Int,
    scratch: UnsafeMutableRawPointer?, instructionSet: InstructionSet? = nil
  ) {
    precondition(weights.rows.isQuantised, "products of floats do not accumulate")
    product(
      weights, groups, x, output, outputStride, scratch, accumulates: true, instructionSet)
  }

  private static func product(
    _ weights: MatrixOperand, _ groups: Range<Int>, _ x: Activations,
    _ output: UnsafeMutablePointer<Float>, _ outputStride: Int,
    _ scratch: UnsafeMutableRawPointer?, accumulates: Bool, _ instructionSet: InstructionSet?
  ) {
    guard !groups.isEmpty else { return }
    let rows = weights.rows
    precondition(
      !rows.isQuantised || x.blocks != nil, "quantised weights take int8 activations")
    switch weights.layout {
    case .interleaved:
      run(
        weights, address: weights.address + groups.lowerBound * rows.groupByteCount,
        groups: groups, x, output, outputStride, accumulates, instructionSet)
    case .rowMajor:
      guard let scratch else { preconditionFailure("row-major weights need scratch") }
      let rowByteCount =
        rows.columnCount / rows.type.blockElementCount * rows.type.blockByteCount
      for group in groups {
        let first = group * RowGroup.rowCount
        Interleaving.interleave(
          rows: weights.address + first * rowByteCount, rowByteCount: rowByteCount,
          rowCount: min(RowGroup.rowCount, weights.rowCount - first), type: rows.type,
          columnCount: rows.columnCount, into: scratch, instructionSet: instructionSet)
        run(
          weights, address: UnsafeRawPointer(scratch), groups: group..<(group + 1), x, output,
          outputStride, accumulates, instructionSet)
      }
    }
  }

  private static func run(
    _ weights: MatrixOperand, address: UnsafeRawPointer, groups: Range<Int>, _ x: Activations,
    _ output: UnsafeMutablePointer<Float>, _ outputStride: Int, _ accumulates: Bool,
    _ set: InstructionSet?
  ) {
    let firstRow = groups.lowerBound * RowGroup.rowCount
    var matrix = ck_matrix(
      groups: address.assumingMemoryBound(to: UInt8.self), group_count: groups.count,
      group_bytes: weights.rows.groupByteCount,
      row_count: min(groups.count * RowGroup.rowCount, weights.rowCount - firstRow),
      columns: weights.rows.columnCount, accumulates: accumulates ? 1 : 0)
    var activations = ck_activations(
      values: x.values, value_stride: x.stride,
      panels: x.blocks.map { UnsafePointer($0.panels) })
    let result = KernelTable.of(set).pointee.matmul(
      Int32(weights.rows.type.rawValue), &matrix, &activations, x.tokenCount, output + firstRow,
      outputStride)
    precondition(result == 0, "no kernel for \(weights.rows.type.name)")
  }
}
