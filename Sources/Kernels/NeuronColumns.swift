import CKernels
public import TensorBasics

/// Sums of row-major rows weighted by activations.
///
/// These are the products of matrices whose columns are stored as rows, one a neuron, so that inactive neurons cost
/// nothing.
public enum NeuronColumns {
  /// Whether ``accumulate(rows:rowCount:type:columns:values:valueStride:tokenCount:into:outputStride:instructionSet:)``
  /// takes rows of this type.
  public static func supports(_ type: ElementType) -> Bool {
    switch type {
    case .f32, .f16, .bf16, .q8_0, .q4_0: true
    default: false
    }
  }

  /// output[t · outputStride + c] += Σ values[t · valueStride + i] · row i [c], for the columns c of `columns`.
  ///
  /// The arithmetic is canonical (`docs/decisions/0001`).
  ///
  /// A value of 0 leaves its token's sums as they are, whatever the row holds. Columns, rows and tokens
  /// may be cut into several calls, rows in ascending order, without changing a bit.
  ///
  /// - Parameters:
  ///   - rows: `rowCount` addresses of any alignment.
  ///   - columns: begins at a multiple of 32 and ends at one, or where a row of floats ends.
  public static func accumulate(
    rows: UnsafePointer<UnsafeRawPointer>, rowCount: Int, type: ElementType, columns: Range<Int>,
    values: UnsafePointer<Float>, valueStride: Int, tokenCount: Int,
    into output: UnsafeMutablePointer<Float>, outputStride: Int,
    instructionSet: InstructionSet? = nil
  ) {
    precondition(
      columns.lowerBound % 32 == 0 && (columns.upperBound % 32 == 0 || !type.isQuantised),
      "columns are cut at multiples of 32")
    let result = UnsafeRawPointer(rows).withMemoryRebound(
      to: UnsafePointer<UInt8>?.self, capacity: rowCount
    ) { rows in
      var sum = ck_neuron_sum(
        rows: rows, row_count: rowCount, first_column: columns.lowerBound,
        end_column: columns.upperBound, values: values, value_stride: valueStride,
        token_count: tokenCount, out: output, out_stride: outputStride)
      return KernelTable.of(instructionSet).pointee.accumulate_rows(Int32(type.rawValue), &sum)
    }
    precondition(result == 0, "no kernel for \(type.name)")
  }
}
