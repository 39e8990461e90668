import CKernels

/// Operations on f32 vectors in place; the same bits on every instruction set.
public enum VectorOps {
  /// x += y, `count` elements.
  public static func add(
    _ x: UnsafeMutablePointer<Float>, _ y: UnsafePointer<Float>, count: Int,
    instructionSet: InstructionSet? = nil
  ) { KernelTable.of(instructionSet).pointee.add(x, y, count) }

  /// x *= factor.
  public static func scale(
    _ x: UnsafeMutablePointer<Float>, by factor: Float, count: Int,
    instructionSet: InstructionSet? = nil
  ) { KernelTable.of(instructionSet).pointee.scale(x, factor, count) }

  /// x = eˣ; at most 2 units in the last place off.
  public static func exp(
    _ x: UnsafeMutablePointer<Float>, count: Int, instructionSet: InstructionSet? = nil
  ) { KernelTable.of(instructionSet).pointee.exp(x, count) }

  /// gate = SiLU(gate) · up.
  public static func siluMultiply(
    _ gate: UnsafeMutablePointer<Float>, _ up: UnsafePointer<Float>, count: Int,
    instructionSet: InstructionSet? = nil
  ) { KernelTable.of(instructionSet).pointee.silu_multiply(gate, up, count) }

  /// gate = GELU(gate) · up, GELU by its tanh formula.
  public static func geluTanhMultiply(
    _ gate: UnsafeMutablePointer<Float>, _ up: UnsafePointer<Float>, count: Int,
    instructionSet: InstructionSet? = nil
  ) { KernelTable.of(instructionSet).pointee.gelu_multiply(gate, up, count) }

  /// gate = min(gate, 7) · sigmoid(1.702 · min(gate, 7)) · (up + 1), up between −7 and 7: gpt-oss's SwiGLU.
  public static func clampedSwiGLU(
    _ gate: UnsafeMutablePointer<Float>, _ up: UnsafePointer<Float>, count: Int,
    instructionSet: InstructionSet? = nil
  ) { KernelTable.of(instructionSet).pointee.clamped_swiglu(gate, up, count) }

  /// gate = max(gate, 0) · up.
  public static func reluMultiply(
    _ gate: UnsafeMutablePointer<Float>, _ up: UnsafePointer<Float>, count: Int,
    instructionSet: InstructionSet? = nil
  ) { KernelTable.of(instructionSet).pointee.relu_multiply(gate, up, count) }

  /// x = x · sigmoid(gate).
  public static func gate(
    _ x: UnsafeMutablePointer<Float>, bySigmoidOf gate: UnsafePointer<Float>, count: Int,
    instructionSet: InstructionSet? = nil
  ) { KernelTable.of(instructionSet).pointee.sigmoid_multiply(x, gate, count) }

  /// x = cap · tanh(x / cap), but −∞ where x is.
  public static func softCap(
    _ x: UnsafeMutablePointer<Float>, at cap: Float, count: Int,
    instructionSet: InstructionSet? = nil
  ) { KernelTable.of(instructionSet).pointee.soft_cap(x, cap, count) }

  /// y = x / √(mean(x²) + epsilon) · weight; `y` may be `x`.
  ///
  /// - Returns: whether the mean is finite: false if an element of `x` is not, or its square is too large.
  @discardableResult
  public static func rmsNorm(
    _ x: UnsafePointer<Float>, weight: UnsafePointer<Float>, epsilon: Float, count: Int,
    into y: UnsafeMutablePointer<Float>, instructionSet: InstructionSet? = nil
  ) -> Bool { KernelTable.of(instructionSet).pointee.rms_norm(x, weight, epsilon, count, y) != 0 }

  /// y = (x − mean) / √(variance + epsilon) · weight + bias (arXiv:1607.06450), the variance biased;
  /// `y` may be `x`.
  ///
  /// - Returns: as ``rmsNorm(_:weight:epsilon:count:into:instructionSet:)``, of the variance.
  @discardableResult
  public static func layerNorm(
    _ x: UnsafePointer<Float>, weight: UnsafePointer<Float>, bias: UnsafePointer<Float>,
    epsilon: Float, count: Int, into y: UnsafeMutablePointer<Float>,
    instructionSet: InstructionSet? = nil
  ) -> Bool {
    KernelTable.of(instructionSet).pointee.layer_norm(x, weight, bias, epsilon, count, y) != 0
  }

  /// Whether no element of `x` is infinite or NaN.
  public static func isFinite(
    _ x: UnsafePointer<Float>, count: Int, instructionSet: InstructionSet? = nil
  ) -> Bool { KernelTable.of(instructionSet).pointee.all_finite(x, count) != 0 }

  /// x = max(x, 0), but NaN or −∞ where x is.
  public static func relu(
    _ x: UnsafeMutablePointer<Float>, count: Int, instructionSet: InstructionSet? = nil
  ) { KernelTable.of(instructionSet).pointee.relu(x, count) }

  /// Finds the elements of `x` above a threshold; NaN is not.
  ///
  /// - Parameter indexes: room for `count`; the part after the result is overwritten too.
  /// - Returns: how many there are; `indexes` begins with theirs, ascending.
  public static func indexesAbove(
    _ threshold: Float, in x: UnsafePointer<Float>, count: Int,
    into indexes: UnsafeMutablePointer<Int32>, instructionSet: InstructionSet? = nil
  ) -> Int { KernelTable.of(instructionSet).pointee.indexes_above(x, threshold, count, indexes) }

  /// The lowest index of the highest element of `x`; NaN counts as −∞, and 0 where all are that low.
  public static func indexOfHighest(
    _ x: UnsafePointer<Float>, count: Int, instructionSet: InstructionSet? = nil
  ) -> Int { KernelTable.of(instructionSet).pointee.index_of_highest(x, count) }

  /// RoPE (arXiv:2104.09864 §3.2.2) on the leading `dimensionCount` elements of each head of
  /// `heads` [headCount, headDim].
  ///
  /// - Parameters:
  ///   - adjacentPairs: rotates x[2i] with x[2i+1]; otherwise x[i] with x[i + dimensionCount / 2].
  ///   - cosines: [dimensionCount / 2], as `sines`.
  public static func rotate(
    _ heads: UnsafeMutablePointer<Float>, headCount: Int, headDim: Int, dimensionCount: Int,
    adjacentPairs: Bool, cosines: UnsafePointer<Float>, sines: UnsafePointer<Float>,
    instructionSet: InstructionSet? = nil
  ) {
    let kernels = KernelTable.of(instructionSet)
    let rotation = adjacentPairs ? kernels.pointee.rotate_adjacent : kernels.pointee.rotate_halves
    for head in 0..<headCount {
      rotation(heads + head * headDim, cosines, sines, dimensionCount / 2)
    }
  }
}
