import CKernels

/// The functions of one instruction set, chosen once.
struct VectorFunctions: @unchecked Sendable {
  // Safety: C functions without state.
  typealias Binary =
    @convention(c) (UnsafeMutablePointer<Float>?, UnsafePointer<Float>?, Int) -> Void
  typealias Rotation =
    @convention(c) (
      UnsafeMutablePointer<Float>?, UnsafePointer<Float>?, UnsafePointer<Float>?, Int
    ) -> Void

  var add: Binary
  var siluMultiply: Binary
  var geluMultiply: Binary
  var reluMultiply: Binary
  var exp: @convention(c) (UnsafeMutablePointer<Float>?, Int) -> Void
  var scale: @convention(c) (UnsafeMutablePointer<Float>?, Float, Int) -> Void
  var rmsNorm:
    @convention(c) (
      UnsafePointer<Float>?, UnsafePointer<Float>?, Float, Int, UnsafeMutablePointer<Float>?
    ) -> Void
  var layerNorm:
    @convention(c) (
      UnsafePointer<Float>?, UnsafePointer<Float>?, UnsafePointer<Float>?, Float, Int,
      UnsafeMutablePointer<Float>?
    ) -> Void
  var relu: @convention(c) (UnsafeMutablePointer<Float>?, Int) -> Void
  var indexesAbove:
    @convention(c) (UnsafePointer<Float>?, Float, Int, UnsafeMutablePointer<Int32>?) -> Int
  var rotateHalves: Rotation
  var rotateAdjacent: Rotation

  static let best = of(.best)

  /// An unavailable set falls back to scalar.
  static func of(_ set: InstructionSet) -> VectorFunctions {
    #if arch(x86_64)
      if set == .avx512, set.isAvailable {
        return VectorFunctions(
          add: ck_add_avx512, siluMultiply: ck_silu_multiply_avx512,
          geluMultiply: ck_gelu_multiply_avx512, reluMultiply: ck_relu_multiply_avx512,
          exp: ck_exp_avx512, scale: ck_scale_avx512, rmsNorm: ck_rms_norm_avx512,
          layerNorm: ck_layer_norm_avx512, relu: ck_relu_avx512,
          indexesAbove: ck_indexes_above_avx512,
          rotateHalves: ck_rotate_halves_avx512, rotateAdjacent: ck_rotate_adjacent_avx512)
      }
      if set == .avx2, set.isAvailable {
        return VectorFunctions(
          add: ck_add_avx2, siluMultiply: ck_silu_multiply_avx2,
          geluMultiply: ck_gelu_multiply_avx2, reluMultiply: ck_relu_multiply_avx2,
          exp: ck_exp_avx2, scale: ck_scale_avx2, rmsNorm: ck_rms_norm_avx2,
          layerNorm: ck_layer_norm_avx2, relu: ck_relu_avx2,
          indexesAbove: ck_indexes_above_avx2,
          rotateHalves: ck_rotate_halves_avx2, rotateAdjacent: ck_rotate_adjacent_avx2)
      }
    #elseif arch(arm64)
      if set == .neon {
        return VectorFunctions(
          add: ck_add_neon, siluMultiply: ck_silu_multiply_neon,
          geluMultiply: ck_gelu_multiply_neon, reluMultiply: ck_relu_multiply_neon,
          exp: ck_exp_neon, scale: ck_scale_neon, rmsNorm: ck_rms_norm_neon,
          layerNorm: ck_layer_norm_neon, relu: ck_relu_neon,
          indexesAbove: ck_indexes_above_neon,
          rotateHalves: ck_rotate_halves_neon, rotateAdjacent: ck_rotate_adjacent_neon)
      }
    #endif
    return VectorFunctions(
      add: ck_add_scalar, siluMultiply: ck_silu_multiply_scalar,
      geluMultiply: ck_gelu_multiply_scalar, reluMultiply: ck_relu_multiply_scalar,
      exp: ck_exp_scalar, scale: ck_scale_scalar, rmsNorm: ck_rms_norm_scalar,
      layerNorm: ck_layer_norm_scalar, relu: ck_relu_scalar,
      indexesAbove: ck_indexes_above_scalar,
      rotateHalves: ck_rotate_halves_scalar, rotateAdjacent: ck_rotate_adjacent_scalar)
  }
}

/// Operations on f32 vectors in place; the same bits on every instruction set.
public enum VectorOps {
  private static func functions(_ set: InstructionSet?) -> VectorFunctions {
    set.map(VectorFunctions.of) ?? .best
  }

  /// x += y, `count` elements.
  public static func add(
    _ x: UnsafeMutablePointer<Float>, _ y: UnsafePointer<Float>, count: Int,
    instructionSet: InstructionSet? = nil
  ) { functions(instructionSet).add(x, y, count) }

  /// x *= factor.
  public static func scale(
    _ x: UnsafeMutablePointer<Float>, by factor: Float, count: Int,
    instructionSet: InstructionSet? = nil
  ) { functions(instructionSet).scale(x, factor, count) }

  /// x = eˣ; at most 2 units in the last place off.
  public static func exp(
    _ x: UnsafeMutablePointer<Float>, count: Int, instructionSet: InstructionSet? = nil
  ) { functions(instructionSet).exp(x, count) }

  /// gate = SiLU(gate) · up.
  public static func siluMultiply(
    _ gate: UnsafeMutablePointer<Float>, _ up: UnsafePointer<Float>, count: Int,
    instructionSet: InstructionSet? = nil
  ) { functions(instructionSet).siluMultiply(gate, up, count) }

  /// gate = GELU(gate) · up, GELU by its tanh formula.
  public static func geluTanhMultiply(
    _ gate: UnsafeMutablePointer<Float>, _ up: UnsafePointer<Float>, count: Int,
    instructionSet: InstructionSet? = nil
  ) { functions(instructionSet).geluMultiply(gate, up, count) }

  /// gate = max(gate, 0) · up.
  public static func reluMultiply(
    _ gate: UnsafeMutablePointer<Float>, _ up: UnsafePointer<Float>, count: Int,
    instructionSet: InstructionSet? = nil
  ) { functions(instructionSet).reluMultiply(gate, up, count) }

  /// y = x / √(mean(x²) + epsilon) · weight; `y` may be `x`.
  public static func rmsNorm(
    _ x: UnsafePointer<Float>, weight: UnsafePointer<Float>, epsilon: Float, count: Int,
    into y: UnsafeMutablePointer<Float>, instructionSet: InstructionSet? = nil
  ) { functions(instructionSet).rmsNorm(x, weight, epsilon, count, y) }

  /// y = (x − mean) / √(variance + epsilon) · weight + bias (arXiv:1607.06450), the variance biased;
  /// `y` may be `x`.
  public static func layerNorm(
    _ x: UnsafePointer<Float>, weight: UnsafePointer<Float>, bias: UnsafePointer<Float>,
    epsilon: Float, count: Int, into y: UnsafeMutablePointer<Float>,
    instructionSet: InstructionSet? = nil
  ) { functions(instructionSet).layerNorm(x, weight, bias, epsilon, count, y) }

  /// x = max(x, 0).
  public static func relu(
    _ x: UnsafeMutablePointer<Float>, count: Int, instructionSet: InstructionSet? = nil
  ) { functions(instructionSet).relu(x, count) }

  /// Finds the elements of `x` above a threshold; NaN is not.
  ///
  /// - Parameter indexes: room for `count`; what lies behind the result is overwritten too.
  /// - Returns: how many there are; `indexes` begins with theirs, ascending.
  public static func indexesAbove(
    _ threshold: Float, in x: UnsafePointer<Float>, count: Int,
    into indexes: UnsafeMutablePointer<Int32>, instructionSet: InstructionSet? = nil
  ) -> Int { functions(instructionSet).indexesAbove(x, threshold, count, indexes) }

  /// RoPE (arXiv:2104.09864 §3.2.2) on the leading `dimensionCount` elements of each head of
  /// `heads` [headCount, headLength].
  ///
  /// - Parameters:
  ///   - adjacentPairs: rotates x[2i] with x[2i+1]; otherwise x[i] with x[i + dimensionCount / 2].
  ///   - cosines: [dimensionCount / 2], as `sines`.
  public static func rotate(
    _ heads: UnsafeMutablePointer<Float>, headCount: Int, headLength: Int, dimensionCount: Int,
    adjacentPairs: Bool, cosines: UnsafePointer<Float>, sines: UnsafePointer<Float>,
    instructionSet: InstructionSet? = nil
  ) {
    let functions = functions(instructionSet)
    let rotation = adjacentPairs ? functions.rotateAdjacent : functions.rotateHalves
    for head in 0..<headCount {
      rotation(heads + head * headLength, cosines, sines, dimensionCount / 2)
    }
  }
}
